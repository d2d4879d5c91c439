"""What probes find in models that are wrong in one way each, and that they let right ones pass."""

from typing import Any

import pytest
import torch
import transformers
from support.architectures import SIZES, long_rows, policy_of, row
from torch import nn

import lightning_bnf.policies.base as base
from lightning_bnf.datamodules.steps.layout import PACKED, PADDED, SHARED_PROMPT
from lightning_bnf.datamodules.tokens.rows import RowArrays
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.base import evaluating
from lightning_bnf.policies.head.tiles import rounded_again
from lightning_bnf.policies.probes import Probe, rounding
from lightning_bnf.training.architectures.tiny import tiny_model

LABELS = (1, -1)
BF16 = torch.bfloat16


def rows() -> list[RowArrays]:
    """Pairs of 30 and 45 tokens, and of 7 and 18."""
    return [RowArrays.of(row) for row in long_rows()]


def adopted(model: Any, **settings: Any) -> FullPolicy:
    policy = FullPolicy("tiny", **settings)
    policy.adopt(model)
    return policy


def fault(policy: FullPolicy, layout: Any = SHARED_PROMPT, gradients: bool = False) -> str | None:
    return Probe(policy, LABELS, rows()).fault(layout, rows(), gradients)


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
@pytest.mark.parametrize("layout", [PADDED, PACKED, SHARED_PROMPT], ids=["padded", "packed", "shared_prompt"])
def test_right_layouts_pass(layout: Any, dtype: torch.dtype) -> None:
    policy = policy_of("Qwen3")
    policy.to(dtype)
    assert fault(policy, layout, gradients=True) is None
    probe = Probe(policy, LABELS, rows())
    assert probe.fault_of_model(rows()[1]) is None
    assert all(parameter.grad is None for parameter in policy.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, BF16])
def test_a_window_that_a_mask_forgets_is_found_in_either_precision(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 40 tokens in 45, worth 0.17: less than the 0.25 nats which were once accepted of bfloat16."""
    policy = policy_of("Mistral", sliding_window=40, initializer_range=0.1)
    policy.to(dtype)
    monkeypatch.setattr(base, "windows_of", lambda _: {})
    found = fault(policy)
    assert found is not None
    assert found.startswith("log-probs differ by 0.")
    assert float(found.split()[3]) < 0.25
    assert found.endswith("from those of single rows")


def test_the_noise_is_measured_in_the_runs_precision() -> None:
    """bfloat16 has 16 bits less than float32: the noise is of another order of magnitude, under autocast too."""
    noise = {}
    for name, dtype, cast in (("float32", torch.float32, False), ("mixed", torch.float32, True), ("true", BF16, False)):
        policy = policy_of("Llama", initializer_range=0.1)
        policy.to(dtype)
        with torch.autocast("cpu", BF16, enabled=cast):
            noise[name] = Probe(policy, LABELS, rows())._noise.largest
    assert 0 < noise["float32"] < 1e-5
    assert 1e-4 < noise["mixed"] < 0.2
    assert 1e-4 < noise["true"] < 0.2


def test_rounding_leaves_model_and_random_numbers_as_they_were() -> None:
    policy, state = policy_of("Llama"), torch.random.get_rng_state()
    batch = PADDED.batch(rows(), LABELS)
    with evaluating(policy):
        before = policy(batch).token_logps
        with rounding(policy.causal_lm, torch.device("cpu")):
            assert not torch.equal(policy(batch).token_logps, before)
        assert torch.equal(policy(batch).token_logps, before)
    assert torch.equal(torch.random.get_rng_state(), state)


def rounds_in_batches(policy: FullPolicy | LoRAPolicy, seed: int) -> None:
    """The policy's layers round otherwise in a batch than alone, as a device's kernels may."""
    draw = torch.Generator().manual_seed(seed)

    def off(module: nn.Module, args: Any, output: Any) -> Any:
        batch = isinstance(output, torch.Tensor) and output.shape[0] > 1
        return rounded_again(output, draw) if batch else output

    for part in policy.causal_lm.modules():
        if not any(part.children()):
            part.register_forward_hook(off)


def test_answers_of_one_token_pass_where_only_rounding_differs() -> None:
    """Of the noise two numbers say little."""
    found = []
    for seed in range(8):
        policy = policy_of("Qwen3")
        policy.to(BF16)
        rounds_in_batches(policy, seed)
        ids = torch.randint(3, 60, (22,), generator=torch.Generator().manual_seed(seed)).tolist()
        few = [RowArrays.of(row("a", ids[:20], (ids[20:21], 1), (ids[21:], -1)))]
        found.append(Probe(policy, LABELS, few).fault(PADDED, few, gradients=False))
    assert found == [None] * 8


def test_gradients_of_one_adapter_pass_where_only_rounding_differs() -> None:
    found = []
    for seed in range(6):
        policy, model = LoRAPolicy("tiny", target_modules=r".*layers\.1\.mlp\.up_proj"), policy_of("Llama").causal_lm
        torch.manual_seed(seed)
        policy.adopt(model)
        rounds_in_batches(policy, seed)
        with torch.autocast("cpu", BF16):
            found.append(Probe(policy, LABELS, rows()).fault(PADDED, rows()))
    assert found == [None] * 6


def test_gradients_that_are_not_finite_are_found() -> None:
    """Gemma-3n's statistics of a token that is all zeros have a slope of 0 / 0."""
    policy = adopted(tiny_model("gemma3n_text"))
    assert fault(policy) is None, "the log-probs alone are right"
    assert fault(policy, gradients=True) == "gradients are not finite"
    assert fault(policy, PADDED, gradients=True) is None


def test_gradients_of_another_size_are_found() -> None:
    policy = policy_of("Llama")
    layer = policy.causal_lm.base_model.layers[0]

    def doubled(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
        if output.shape[0] > 1 and output.requires_grad:  # in a batch alone
            output.register_hook(lambda gradient: 2 * gradient)
        return output

    layer.mlp.register_forward_hook(doubled)
    found = fault(policy, gradients=True)
    assert found is not None
    assert found.startswith("gradients differ by")


@pytest.mark.parametrize("checkpointing", [False, True])
def test_dropout_that_is_no_module_is_off_in_training(checkpointing: bool) -> None:
    """OPT reads its rate in the forward pass; with recomputed activations its layers must be in training mode."""
    model = tiny_model("opt")
    assert model.config.dropout == model.config.attention_dropout == 0.1
    policy = adopted(model, gradient_checkpointing=checkpointing)
    assert policy.training
    batch = PADDED.batch(rows(), LABELS)
    first = policy(batch).token_logps
    assert torch.equal(policy(batch).token_logps, first)
    assert Probe(policy, LABELS, rows()).fault_of_model(rows()[1]) is None


def test_what_draws_where_activations_are_recomputed_is_named() -> None:
    class Draws(transformers.modeling_layers.GradientCheckpointingLayer):
        def __init__(self, inner: nn.Module):
            super().__init__()
            self.inner = inner

        def forward(self, hidden_states: torch.Tensor, **named: Any) -> torch.Tensor:
            output = self.inner(hidden_states, **named)
            return output * (1 + 0.1 * torch.randn_like(output)) if self.training else output

    model = policy_of("Llama").causal_lm
    model.base_model.layers[0] = Draws(model.base_model.layers[0])
    policy = adopted(model, gradient_checkpointing=True)
    found = Probe(policy, LABELS, rows()).fault_of_model(rows()[1])
    assert found is not None
    assert "in training, where" in found
    assert "Draws" in found


def test_a_model_that_looks_ahead_is_found() -> None:
    config = transformers.BertConfig(**SIZES, num_attention_heads=4, is_decoder=False, initializer_range=0.3)
    model = transformers.AutoModelForCausalLM.from_config(config)
    found = Probe(adopted(model.eval()), LABELS, rows()).fault_of_model(rows()[1])
    assert found is not None
    assert found.endswith("with another token behind it: it is not causal")


def test_an_error_of_the_model_is_a_fault_and_want_of_memory_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fault(adopted(tiny_model("bloom")))
    assert found is not None
    assert found.startswith("forward pass fails (ValueError: ")
    policy = policy_of("Llama")

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(policy, "forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        fault(policy)
