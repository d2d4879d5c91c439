"""The load-balancing loss of routers: by hand, against transformers' own, and what counts which token."""

import pytest
import torch
from support.architectures import HEADS, ROWS, SIZES, alike_rows, row
from torch import Tensor
from transformers import DogeConfig, DogeForCausalLM, LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import LAYOUTS, LayoutName, layout_for
from lightning_bnf.policies import FullPolicy
from lightning_bnf.policies.routing import (
    Router,
    balancing_loss,
    check_balancing,
    counted_tokens,
    over_ranks,
    router_of,
    total,
)
from lightning_bnf.runtime.refusal import Refusal


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_by_hand() -> None:
    """Two tokens of three, the third one is padding; each goes to one of two experts.

    f = (2, 0) / 2 = (1, 0); P = (0.75 + 0.75, 0.25 + 0.25) / 2 = (0.75, 0.25); L = 2 * 0.75 = 1.5
    """
    layer = logits([0.75, 0.25], [0.75, 0.25], [0.1, 0.9])
    found = Router(1, 0.1).routing([layer], torch.tensor([1, 1, 0]))
    assert found.chosen.tolist() == [2, 0]
    assert found.tokens == 2
    assert found.probability.tolist() == pytest.approx([1.5, 0.5])
    assert balancing_loss(found, found) == pytest.approx(1.5)


def test_it_is_that_of_all_tokens_together_and_not_a_mean() -> None:
    """One micro-batch goes to the first expert, the other to the second: uneven each (1.5), even together (1)."""
    one, other = logits([0.75, 0.25]), logits([0.25, 0.75])
    router, each = Router(1, 0.1), torch.ones(1)
    parts = [router.routing([layer], each) for layer in (one, other)]
    together = router.routing([torch.cat([one, other])], torch.ones(2))
    step = over_ranks(total(parts))
    assert sum(balancing_loss(part, step) for part in parts) == pytest.approx(1.0)
    assert balancing_loss(together, together) == pytest.approx(1.0)


def test_it_is_transformers_own_with_padding_and_several_layers() -> None:
    torch.manual_seed(0)
    layers = tuple(torch.randn(12, 5, requires_grad=True) for _ in range(3))
    mask = torch.tensor([1, 1, 1, 0] * 3)
    found = Router(2, 0.1).routing(layers, mask)
    mine = balancing_loss(found, over_ranks(found))
    own = load_balancing_loss_func(layers, 5, 2, mask.reshape(3, 4))
    torch.testing.assert_close(mine, own)
    for one, its in zip(torch.autograd.grad(mine, layers), torch.autograd.grad(own, layers)):
        torch.testing.assert_close(one, its)
    check_balancing(own, found, "its own")
    with pytest.raises(Refusal, match=r"router_loss must be false with source 'another', whose own .* got true"):
        check_balancing(2 * own, found, "another")


def test_tokens_that_many_completions_share_are_counted_exactly_in_bfloat16() -> None:
    """As a step of bf16-true runs: a prompt with 301 completions counts 301 times."""
    many = row("many", [5, 6, 7], *(([i], 1) for i in range(8, 309)))
    batch = layout_for("shared_prompt", [many]).batch([many], (1,))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        counted = counted_tokens(batch)
    finally:
        torch.set_default_dtype(before)
    assert counted[:3].tolist() == [301, 301, 301]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_counts_the_tokens_that_padded_rows_have(layout: LayoutName) -> None:
    """Rows a and b: prompts of 3 and 2 tokens with two completions each, 2 + 4 and 1 + 2 tokens: 2 * 5 + 9 = 19."""

    def counts(batch: MicroBatch) -> Tensor:
        counted, ids = counted_tokens(batch), batch.inputs["input_ids"].flatten()
        return torch.zeros(60).index_add(0, ids, counted.float())

    found = counts(LAYOUTS[layout].batch(ROWS, (1, -1)))
    assert torch.equal(found, counts(LAYOUTS["padded"].batch(ROWS, (1, -1))))
    assert found.sum() == 19
    assert counted_tokens(LAYOUTS[layout].batch([], (1, -1))).sum() == 0, "a row that keeps ranks together"
    alike, padded = (layout_for(name, alike_rows()).batch(alike_rows(), (1, -1)) for name in (layout, "padded"))
    assert torch.equal(counts(alike), counts(padded)), "also where prompts begin alike"


def test_which_models_have_one() -> None:
    mixtral = MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, router_aux_loss_coef=0.02))
    assert router_of(mixtral, mixtral.model) == Router(2, 0.02)
    llama = LlamaForCausalLM(LlamaConfig(**SIZES, **HEADS))
    assert router_of(llama, llama.model) is None
    doge = DogeForCausalLM(DogeConfig(**SIZES, **HEADS))
    assert router_of(doge, doge.model) is None, "a loss of another form"


def test_a_flag_of_the_config_adds_nothing() -> None:
    """transformers' models add the loss to their own where `output_router_logits` is set; here none is asked for."""
    found = []
    for flag in (False, True):
        torch.manual_seed(0)
        model = MixtralForCausalLM(MixtralConfig(**SIZES, **HEADS, output_router_logits=flag))
        policy = FullPolicy("x")
        policy.adopt(model)
        output = policy(LAYOUTS["padded"].batch(ROWS, (1, -1)))
        assert output.routing is None
        output.token_logps.sum().backward()
        found.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*found):
        assert (one is None and other is None) or torch.equal(one, other)
