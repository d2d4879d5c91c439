"""BNF: its weight, its gradient against the paper's equations, and the traps of the paper's listing."""

import itertools
import math

import pytest
import torch
from support import oracles
from torch import Tensor

from lightning_bnf.losses import BNF, NLLPLL, Examples, StepContext
from lightning_bnf.losses.bnf import clipped_odds_ratio
from lightning_bnf.losses.completions import Completions

CONTEXT = StepContext(pairs=0, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=1)


def logit(p: float) -> float:
    return math.log(p / (1 - p))


@pytest.mark.parametrize(
    ("policy", "reference", "weight"),
    [
        (0.5, 0.5, 1.0),  # odds 1 : 1
        (0.2, 0.5, 0.25),  # odds 1/4 : 1
        (0.25, 0.75, 1 / 9),  # odds 1/3 : 3
        (0.8, 0.5, 1.0),  # odds 4 : 1, clipped
        (0.5, 1.0, 0.0),  # odds 1 : infinity
    ],
)
def test_weight_is_the_clipped_ratio_of_odds(policy: float, reference: float, weight: float) -> None:
    logps = torch.tensor([policy, reference], dtype=torch.float64).log()
    assert clipped_odds_ratio(logps[:1], logps[1:]).item() == pytest.approx(weight, abs=1e-15)


def test_value_by_hand() -> None:
    """A preferred completion of two tokens, pi = (.2, .8), ref = .5: weights (1/4, 1); a dispreferred one of one token,
    pi = .5, ref = .75: odds 1 : 3, weight 1/3. L_1 = -(ln .2 / 4 + ln .8) / 2, L_2 = +ln .5 / 3."""
    policy = Completions(
        torch.tensor([0.2, 0.8, 0.5], dtype=torch.float64).log(), torch.tensor([0, 0, 1]), torch.tensor([2, 1])
    )
    reference = policy.replaced(torch.tensor([0.5, 0.5, 0.75], dtype=torch.float64).log())
    value = BNF()(policy, reference, Examples(torch.tensor([1, -1])), CONTEXT).value
    expected = [-(math.log(0.2) / 4 + math.log(0.8)) / 2, math.log(0.5) / 3]
    torch.testing.assert_close(value, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weight_is_finite_everywhere_and_one_at_or_above_the_reference(dtype: torch.dtype) -> None:
    logps = [0.0, -1e-7, -1e-3, -120.0, -300.0]
    for lp, lr in itertools.product(logps, logps):
        w = clipped_odds_ratio(torch.tensor([lp], dtype=dtype), torch.tensor([lr], dtype=dtype))
        assert w.isfinite().all(), (lp, lr)
        assert 0 <= w.item() <= 1, (lp, lr)
        if lp >= lr:
            assert w.item() == 1.0, (lp, lr)


def test_weight_takes_log_probabilities_that_rounding_put_above_zero() -> None:
    assert clipped_odds_ratio(torch.tensor([1e-6]), torch.tensor([0.0])).item() == 1.0
    assert clipped_odds_ratio(torch.tensor([-1.0]), torch.tensor([1e-6])).item() == 0.0


def random_case(seed: int, vocabulary: int = 13) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Four completions of 3, 1, 5 and 2 tokens, two of them dispreferred; policy above and below the reference."""
    g = torch.Generator().manual_seed(seed)
    length, label = torch.tensor([3, 1, 5, 2]), torch.tensor([1, -1, -1, 1])
    row = torch.repeat_interleave(torch.arange(4), length)
    shape = (int(length.sum()), vocabulary)
    logits = (3 * torch.randn(shape, generator=g, dtype=torch.float64)).requires_grad_()
    ref_logits = 3 * torch.randn(shape, generator=g, dtype=torch.float64)
    y = torch.randint(vocabulary, (shape[0],), generator=g)
    return logits, ref_logits, y, row, length, label


def token_form(logits: Tensor, ref_logits: Tensor, y: Tensor, row: Tensor, length: Tensor, label: Tensor) -> Tensor:
    def logps(z: Tensor) -> Tensor:
        return z.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1)

    policy = Completions(logps(logits), row, length)
    return BNF()(policy, policy.replaced(logps(ref_logits)), Examples(label), CONTEXT).value


@pytest.mark.parametrize("seed", range(20))
def test_gradient_equals_eq4_and_eq8_for_every_logit(seed: int) -> None:
    case = random_case(seed)
    logits, ref_logits, y, row, length, label = case
    (ours,) = torch.autograd.grad(token_form(*case).sum(), logits)
    (eq4,) = torch.autograd.grad(oracles.bnf_eq4(*case).sum(), logits)
    f = oracles.bnf_target(logits, ref_logits, y)
    eq8 = (label.double() / length)[row][:, None] * (logits.detach().softmax(-1) - f)
    below = logits.log_softmax(-1).gather(-1, y[:, None]) < ref_logits.log_softmax(-1).gather(-1, y[:, None])
    assert below.any(), "both branches of Eq. 6 are to be tried"
    assert not below.all(), "both branches of Eq. 6 are to be tried"
    torch.testing.assert_close(ours, eq4, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours, eq8, rtol=1e-10, atol=1e-12)


def test_gradient_of_eq9_rises_up_to_the_reference_and_falls_after_it() -> None:
    """Eq. 9: |dL/dz_y| * |y| is pi (1 - ref) / ref below the reference and 1 - pi above: largest at pi == ref."""
    ref = 0.4
    for pi in (0.1, 0.3, 0.4, 0.6, 0.9):
        logits = torch.tensor([[logit(pi), 0.0]], dtype=torch.float64, requires_grad=True)
        ref_logits = torch.tensor([[logit(ref), 0.0]], dtype=torch.float64)
        one = torch.tensor([1])
        value = token_form(logits, ref_logits, torch.tensor([0]), torch.tensor([0]), one, -one)
        (grad,) = torch.autograd.grad(value.sum(), logits)
        assert grad[0, 0].item() == pytest.approx(pi * (1 - ref) / ref if pi < ref else 1 - pi, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_with_the_entropy_the_value_of_eq4_is_a_metric(seed: int) -> None:
    case = random_case(seed)
    logits, ref_logits, y, row, length, label = case
    log_p = logits.detach().log_softmax(-1)
    policy = Completions(log_p.gather(-1, y[:, None]).squeeze(-1), row, length, -(log_p.exp() * log_p).sum(-1))
    reference = policy.replaced(ref_logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1))
    metrics = BNF()(policy, reference, Examples(label), CONTEXT).metrics
    torch.testing.assert_close(metrics["bnf/eq4"], oracles.bnf_eq4(*case).detach(), rtol=1e-12, atol=1e-14)


def test_equals_nll_plus_pll_where_policy_is_at_the_reference() -> None:
    logits, _, *rest = random_case(3)
    y, row, length, label = rest
    policy = Completions(logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1), row, length)
    nll_pll = NLLPLL()(policy, None, Examples(label), CONTEXT).value
    torch.testing.assert_close(token_form(logits, logits.detach(), *rest), nll_pll, rtol=0, atol=0)


def test_the_papers_listing_has_the_opposite_sign() -> None:
    """Appendix B returns +E[...] where Eq. 4 has -E[...]: minimising it would unlearn the preferred completions."""
    logits, ref_logits, y, *_ = random_case(5)
    length, label = torch.tensor([len(y)]), torch.tensor([1])
    row = torch.zeros(len(y), dtype=torch.long)
    listing = oracles.bnf_listing(logits[None], ref_logits[None], y[None], length, label)
    (theirs,) = torch.autograd.grad(listing, logits)
    (ours,) = torch.autograd.grad(token_form(logits, ref_logits, y, row, length, label).sum(), logits)
    torch.testing.assert_close(ours, -theirs, rtol=1e-9, atol=1e-12)


def test_no_gradient_flows_through_the_weight() -> None:
    logits, ref_logits, y, row, length, label = random_case(7)
    token = logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1).detach().requires_grad_()
    reference = ref_logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1)
    policy = Completions(token, row, length)
    (grad,) = torch.autograd.grad(
        BNF()(policy, policy.replaced(reference), Examples(label), CONTEXT).value.sum(), token
    )
    frozen = clipped_odds_ratio(token.detach(), reference)
    torch.testing.assert_close(grad, -(label.double() / length)[row] * frozen, rtol=1e-12, atol=0)


def test_step_min_divides_by_the_shortest_completion_of_the_step() -> None:
    policy = Completions(torch.full((4,), -1.0), torch.tensor([0, 0, 0, 1]), torch.tensor([3, 1]))
    context = StepContext(pairs=0, preferred=2, dispreferred=0, preferred_tokens=4, smallest_length=2)
    value = BNF("step_min")(policy, policy, Examples(torch.tensor([1, 1])), context).value
    torch.testing.assert_close(value, torch.tensor([3 / 2, 1 / 2]))


def test_metrics_count_tokens_below_the_reference_by_more_than_the_tolerance() -> None:
    policy = Completions(
        torch.tensor([-1.0, -1.00005, -2.0, -0.5]), torch.zeros(4, dtype=torch.long), torch.tensor([4])
    )
    reference = policy.replaced(torch.full((4,), -1.0))
    metrics = BNF()(policy, reference, Examples(torch.tensor([1])), CONTEXT).metrics
    assert metrics["bnf/clipped"].tolist() == [0, 0, 1, 0]
    assert metrics["bnf/weight"].tolist() == pytest.approx([1, 0.99992, 0.26895, 1], abs=1e-5)


def weights(loss: BNF, label: int) -> list[float]:
    """Of tokens with pi = .2, .5, .8 where the reference has .5: odds 1/4, 1 and 4 of it."""
    policy = Completions(
        torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64).log(), torch.zeros(3, dtype=int), torch.tensor([3])
    )
    policy = policy.replaced(policy.token_logps.requires_grad_())
    reference = policy.replaced(torch.full((3,), math.log(0.5), dtype=torch.float64))
    value = loss(policy, reference, Examples(torch.tensor([label])), CONTEXT).value
    (gradient,) = torch.autograd.grad(value.sum(), policy.token_logps)
    return (-3 * label * gradient).tolist()


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.25), (2.0, 1 / 16)])
def test_alpha_is_the_power_of_the_odds_ratio(alpha: float, weight: float) -> None:
    """(1/4)^alpha below the reference, 1 at it and above; the gradient by autograd is the weight, on both labels."""
    for label in (1, -1):
        assert weights(BNF(alpha=alpha), label) == pytest.approx([weight, 1.0, 1.0], rel=1e-12)
    assert weights(BNF(), 1) == weights(BNF(alpha=1.0), 1)


def test_alpha_0_is_nll_plus_pll_wherever_the_policy_is() -> None:
    logits, _, y, row, length, label = random_case(4)
    policy = Completions(logits.log_softmax(-1).gather(-1, y[:, None]).squeeze(-1), row, length)
    reference = policy.replaced(torch.zeros_like(policy.token_logps))  # certain, so that odds are 0 : infinity
    ours = BNF(alpha=0.0)(policy, reference, Examples(label), CONTEXT).value
    torch.testing.assert_close(ours, NLLPLL()(policy, None, Examples(label), CONTEXT).value)


def test_restore_pulls_preferred_tokens_back_and_leaves_dispreferred_ones_as_they_were() -> None:
    assert weights(BNF(restore=True), 1) == [1.0, 1.0, 1.0]
    assert weights(BNF(restore=True), -1) == pytest.approx([0.25, 1.0, 1.0], rel=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_the_logit_of_an_unlikely_token_flows_as_the_page_says(alpha: float) -> None:
    """dz/dt = -dL/dz from the reference, pi 1e-6, in small steps up to t = 20: z falls by ln(1 + 20 alpha) / alpha."""
    start = logit(1e-6)
    z, steps = start, 20_000
    for _ in range(steps):
        pi = 1 / (1 + math.exp(-z))
        z -= 20 / steps * (1 - pi) * math.exp(alpha * (z - start))
    assert start - z == pytest.approx(math.log(1 + 20 * alpha) / alpha, rel=1e-3)


def test_refuses_an_alpha_below_0() -> None:
    with pytest.raises(ValueError, match="alpha must be >= 0, got -1"):
        BNF(alpha=-1.0)


def test_refuses_another_normalizer() -> None:
    with pytest.raises(ValueError, match="normalizer must be 'response' or 'step_min', got 'mean'"):
        BNF("mean")  # type: ignore[arg-type]
