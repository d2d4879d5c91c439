"""Losses that look at more than one pair's sums: LD-DPO, D2O, LCPO; and sums of losses."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import catalog
from support.commands import refused
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses import (
    BCO,
    BNF,
    D2O,
    DPO,
    KTO,
    LCPO,
    LDDPO,
    NLLPLL,
    SFT,
    Examples,
    LossOutput,
    PairLoss,
    StepContext,
    Sum,
    Term,
)
from lightning_bnf.losses.completions import Completions

CONTEXT = StepContext(pairs=1, groups=1, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=1)
PAIR = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))


def ln_s(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_ld_dpo_by_hand() -> None:
    """Chosen log-ratios (1, 2, 4) with the rejected one's (3): beyond its one token they count half. Turned around, the
    rejected completion's do. R_w = 1 + .5 * 6 = 4, R_l = 3."""
    reference = torch.full((4,), -9.0, dtype=torch.float64)
    token = reference + torch.tensor([1.0, 2.0, 4.0, 3.0])
    policy = Completions(token, torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1]))
    ref = policy.replaced(reference)
    assert LDDPO(beta=0.5)(policy, ref, PAIR, CONTEXT).value.item() == pytest.approx(-ln_s(0.5 * (4 - 3)))
    turned = Examples(torch.tensor([-1, 1]), torch.tensor([[1, 0]]))
    assert LDDPO(beta=0.5)(policy, ref, turned, CONTEXT).value.item() == pytest.approx(-ln_s(0.5 * (3 - 4)))
    dpo = DPO(beta=0.5)(policy, ref, PAIR, CONTEXT).value
    torch.testing.assert_close(LDDPO(beta=0.5, alpha=1.0)(policy, ref, PAIR, CONTEXT).value, dpo)


def test_d2o_by_hand() -> None:
    """Samples of log-ratios 1 and 3, the rejected one of 2: (.5 / 2)(1 + 3) - .25 * 2 = .5."""
    ratios = torch.tensor([1.0, 3.0, 2.0], dtype=torch.float64)
    policy = Completions((ratios - 9).requires_grad_(), torch.arange(3), torch.ones(3, dtype=torch.long))
    examples = Examples(torch.tensor([1, 1, -1]), group=torch.zeros(3, dtype=torch.long))
    value = D2O(beta=0.5, alpha=0.25)(policy, policy.replaced(torch.full_like(ratios, -9.0)), examples, CONTEXT).value
    assert value.tolist() == pytest.approx([-ln_s(0.5)])
    (grad,) = torch.autograd.grad(value.sum(), policy.token_logps)
    slope = 1 - 1 / (1 + math.exp(-0.5))
    assert grad.tolist() == pytest.approx([-slope * 0.25, -slope * 0.25, slope * 0.25])


@pytest.mark.parametrize("eta", [0.2, 0.9])
def test_lcpo_by_hand(eta: float) -> None:
    """DPO with beta D = x: e^-l(w > l) = s(x), e^-l(l > w) = s(-x), so q = eta s(x) / (eta s(x) + (1 - eta) s(-x))."""
    x = 0.5 * (2.0 - 1.0)
    policy = Completions(
        torch.tensor([-7.0, -8.0], dtype=torch.float64, requires_grad=True), torch.arange(2), torch.ones(2)
    )
    reference = policy.replaced(torch.full((2,), -9.0, dtype=torch.float64))
    step = replace(CONTEXT, state={"lcpo/eta": eta})
    output = LCPO(DPO(beta=0.5))(policy, reference, PAIR, step)
    right, wrong = eta * math.exp(ln_s(x)), (1 - eta) * math.exp(ln_s(-x))
    q = right / (right + wrong)
    assert output.value.item() == pytest.approx(-q * ln_s(x) - (1 - q) * ln_s(-x))
    assert output.metrics["lcpo/confidence"].item() == pytest.approx(q)
    (grad,) = torch.autograd.grad(output.value.sum(), policy.token_logps)
    s = math.exp(ln_s(x))
    assert grad[0].item() == pytest.approx(0.5 * (-q * (1 - s) + (1 - q) * s))  # none through q


@pytest.mark.parametrize("name", [name for name in catalog.FILES if isinstance(catalog.build(name), PairLoss)])
def test_lcpo_weighs_what_its_base_computes(name: str) -> None:
    """Also where that is more than `pair_loss`, as in LD-DPO. Turned around, chosen and rejected are exchanged."""
    base = catalog.build(name)
    policy, reference = both()
    ref = reference if base.needs_reference else None
    assert catalog.EXAMPLES.pair is not None
    turned = replace(catalog.EXAMPLES, label=-catalog.EXAMPLES.label, pair=catalog.EXAMPLES.pair[:, [1, 0]])
    right, wrong = (base(policy, ref, some, catalog.CONTEXT).value for some in (catalog.EXAMPLES, turned))
    q = torch.stack([math.log(0.7) - right, math.log(0.3) - wrong]).softmax(0)[0].detach()
    assert isinstance(base, PairLoss)
    step = replace(catalog.CONTEXT, state={"lcpo/eta": 0.7})
    output = LCPO(base)(policy, ref, catalog.EXAMPLES, step)
    wanted = q * right + (1 - q) * wrong
    torch.testing.assert_close(output.value, wanted, rtol=1e-9, atol=0)  # SPPO's values are near 250,000
    torch.testing.assert_close(output.metrics["lcpo/confidence"], q, rtol=1e-9, atol=0)
    grads = [torch.autograd.grad(value.sum(), policy.token_logps)[0] for value in (output.value, wanted)]
    torch.testing.assert_close(*grads, rtol=1e-9, atol=1e-9)


class Told(DPO):
    """A user's loss with a metric: the labels of the chosen completions."""

    metric_names = ("told/label",)

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        output = super().__call__(policy, reference, examples, step)
        return LossOutput(examples.pairs(examples.label)[0] * output.value, {"told/label": examples.label})


def test_lcpo_has_its_bases_metrics_of_the_pairs_as_labelled() -> None:
    policy, reference = both()
    loss = LCPO(Told())
    step = replace(catalog.CONTEXT, state=loss.state)
    output = loss(policy, reference, catalog.EXAMPLES.map(lambda x: x), step)
    assert set(output.metrics) == set(loss.metric_names) == {"lcpo/confidence", "lcpo/eta", "told/label"}
    assert output.metrics["told/label"].tolist() == catalog.EXAMPLES.label.tolist()
    plain = LCPO(DPO())(policy, reference, catalog.EXAMPLES, step)
    torch.testing.assert_close(output.value, plain.value, rtol=0, atol=0)  # chosen ones have the label 1 both times


def test_swapped_examples_know_their_sides() -> None:
    """Where they were counted before, and where they are counted then."""
    for examples in (catalog.EXAMPLES, catalog.EXAMPLES.map(lambda x: x)):
        preferred, dispreferred = examples.swapped().sides()
        assert (preferred.tolist(), dispreferred.tolist()) == ([1, 3, 5], [0, 2, 4])


def test_lcpo_follows_the_confidence() -> None:
    loss = LCPO(DPO(), eta=0.8, rate=0.25)
    assert loss.state == {"lcpo/eta": 0.8}
    step = replace(CONTEXT, state=loss.state)
    assert loss.next_state({"lcpo/confidence": 0.4}, step) == {"lcpo/eta": pytest.approx(0.7)}
    assert loss.next_state({}, step) == loss.state


def both() -> tuple[Completions, Completions]:
    policy = catalog.completions(catalog.tokens(1).requires_grad_())
    return policy, policy.replaced(catalog.tokens(2))


def test_a_sum_adds_weighted_means_over_each_losss_own_examples() -> None:
    """DPO's mean over 3 pairs + .5 x SFT's mean over 3 preferred + 2 x BNF's over 6 completions."""
    terms = [Term(DPO()), Term(SFT(), 0.5), Term(BNF(), 2.0)]
    policy, reference = both()
    loss = Sum(terms)
    output = loss(policy, reference, catalog.EXAMPLES, catalog.CONTEXT)
    ours = output.value.sum() / loss.value_count(catalog.CONTEXT)
    right = torch.zeros((), dtype=torch.float64)
    for term in terms:
        alone = term.loss(policy, reference, catalog.EXAMPLES, catalog.CONTEXT).value
        right = right + term.weight * alone.mean()
        assert output.metrics[f"loss/{type(term.loss).__name__}"].mean() == alone.mean()
    torch.testing.assert_close(ours, right, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, policy.token_logps), torch.autograd.grad(right, policy.token_logps)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def irpo(s: Tensor, r: Tensor, length: Tensor, beta: float = 0.1, alpha: float = 1.0) -> Tensor:
    """-log s(beta D) - alpha A_w (Pang et al. 2024), of pairs' sums (P, 2) under policy and reference."""
    return -logsigmoid(beta * ((s - r)[:, 0] - (s - r)[:, 1])) - alpha * s[:, 0] / length[:, 0]


def rpo(s: Tensor, r: Tensor, length: Tensor, beta: float = 0.01, eta: float = 0.005) -> Tensor:
    """-log s(beta D) - eta beta S_w (Liu et al. 2024), of pairs' sums (P, 2) under policy and reference."""
    return -logsigmoid(beta * ((s - r)[:, 0] - (s - r)[:, 1])) - eta * beta * s[:, 0]


@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize(("name", "formula"), [("dpo_nll", irpo), ("rpo", rpo)])
def test_two_papers_losses_are_sums(name: str, formula: Callable[..., Tensor], scale: float) -> None:
    """Value and gradient of the papers' formulas, in float64."""
    assert catalog.EXAMPLES.pair is not None
    token, reference = catalog.tokens(1, scale).requires_grad_(), catalog.tokens(2, scale)
    sums = [catalog.completions(x).sum()[catalog.EXAMPLES.pair] for x in (token, reference)]  # (P, 2) each
    right = formula(*sums, catalog.LENGTH[catalog.EXAMPLES.pair]).mean()
    loss = catalog.build(name)
    ours = catalog.value(loss, token, reference).sum() / loss.value_count(catalog.CONTEXT)
    torch.testing.assert_close(ours, right, rtol=1e-12, atol=0)
    for a, b in zip(torch.autograd.grad(ours, token), torch.autograd.grad(right, token)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_a_term_of_weight_0_changes_nothing() -> None:
    token, reference = catalog.tokens(1), catalog.tokens(2)
    loss = Sum([Term(DPO()), Term(SFT(), 0.0)])
    torch.testing.assert_close(
        catalog.gradient(loss, token, reference), catalog.gradient(DPO(), token, reference), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", ["DPONLL", "RPO"])
def test_former_classes_are_refused_with_the_yaml_of_their_sum(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a saved config of theirs names them."""
    config = tmp_path / "config.yaml"
    config.write_text(f"model:\n  loss:\n    class_path: lightning_bnf.losses.{name}\n    init_args: {{beta: 0.01}}\n")
    message = refused(capsys, "fit", "--config", str(config))
    (path,) = re.findall(r"--model.loss (configs/loss/\w+.yaml)", message)
    assert path.removeprefix("configs/loss/").removesuffix(".yaml") in catalog.FILES


def test_a_sum_needs_what_its_losses_need() -> None:
    loss = Sum([Term(SFT()), Term(KTO()), Term(BCO()), Term(LCPO(DPO()))])
    assert loss.needs_reference
    assert loss.needs_pairs
    assert loss.labels == (1, -1)
    assert loss.step_passes == ("mismatched",)
    assert set(loss.state) == {"bco/shift", "bco/seen", "lcpo/eta"}
    step = replace(catalog.CONTEXT, state=loss.state)
    means = {"bco/reward": 2.0, "lcpo/confidence": 0.5}
    assert loss.next_state(means, step) == {"bco/shift": 2.0, "bco/seen": 6.0, "lcpo/eta": pytest.approx(0.86)}
    assert not Sum([Term(SFT()), Term(NLLPLL())]).needs_reference


def test_a_value_around_one_that_says_nothing_says_nothing() -> None:
    """BNF's value does not fall while training goes well, so neither need a sum's with it."""
    assert not Sum([Term(DPO()), Term(BNF())]).value_falls
    assert Sum([Term(DPO()), Term(SFT())]).value_falls


def test_a_sum_takes_the_way_of_token_losses_only_if_all_are() -> None:
    policy, reference = both()
    fused = Sum([Term(BNF()), Term(SFT(), 0.5)])
    weigh = fused.weigher(reference, catalog.EXAMPLES, catalog.CONTEXT)
    assert weigh is not None
    value = fused(policy, reference, catalog.EXAMPLES, catalog.CONTEXT).value.sum()
    (grad,) = torch.autograd.grad(value, policy.token_logps)
    torch.testing.assert_close(-weigh(policy.token_logps.detach(), slice(0, 13)), grad, rtol=1e-12, atol=0)
    apart = Sum([Term(BNF()), Term(DPO())])
    assert apart.weigher(reference, catalog.EXAMPLES, catalog.CONTEXT) is None
    assert (fused.fused, apart.fused) == (True, False)


def test_a_term_without_examples_in_a_step_is_left_out() -> None:
    loss = Sum([Term(SFT()), Term(NLLPLL())])
    step = StepContext(pairs=0, preferred=0, dispreferred=2, preferred_tokens=0, smallest_length=1)
    policy = Completions(torch.tensor([-1.0, -2.0]), torch.arange(2), torch.ones(2, dtype=torch.long))
    output = loss(policy, None, Examples(torch.tensor([-1, -1])), step)
    assert output.value.sum().item() / loss.value_count(step) == pytest.approx(-1.5)
    assert "loss/SFT" not in output.metrics


def test_bad_arguments_are_refused() -> None:
    for make, message in (
        (lambda: Sum([]), "terms must be one or more losses, every class once, got []"),
        (lambda: Sum([Term(DPO()), Term(DPO(0.5))]), "every class once, got ['DPO', 'DPO']"),
        (lambda: Term(DPO(), -0.1), "weight must be >= 0, got -0.1"),
        (lambda: LCPO(LCPO(DPO())), "base must be a pairwise loss without state, such as DPO, got LCPO"),
        (lambda: LCPO(DPO(), eta=1.0), "eta must be in (0, 1), got 1.0"),
        (lambda: LCPO(DPO(), rate=0.0), "rate must be in (0, 1], got 0.0"),
        (lambda: LDDPO(alpha=1.5), "alpha must be in [0, 1], got 1.5"),
        (lambda: D2O(alpha=0.0), "alpha must be > 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            make()
