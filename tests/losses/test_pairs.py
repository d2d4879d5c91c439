"""The pairwise losses on hand-made numbers, and what they all promise.

Every case has one pair. Chosen: two tokens with log-probs (-1, -1), so S_w = -2, A_w = -1, n_w = 2; rejected: one token
with log-prob -3, so S_l = A_l = -3, n_l = 1. References are chosen so that R_w and R_l come out as stated.
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_bnf.logps import Completions
from lightning_bnf.losses import DPO, IPO, ORPO, RDPO, Examples, PairLoss, SimPO, SLiC, StepFacts

FACTS = StepFacts(pairs=1, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=1)
PAIR = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))
ROW, LENGTH = torch.tensor([0, 0, 1]), torch.tensor([2, 1])


def completions(*token: float, dtype: torch.dtype = torch.float64) -> Completions:
    return Completions(torch.tensor(token, dtype=dtype, requires_grad=True), ROW, LENGTH)


POLICY = (-1.0, -1.0, -3.0)


def reference(r_w: float, r_l: float) -> Completions:
    """The reference under which the policy's summed log-ratios are r_w and r_l."""
    return completions(POLICY[0] - r_w, POLICY[1], POLICY[2] - r_l).detached()


def value(loss: PairLoss, r_w: float = 0.0, r_l: float = 0.0) -> float:
    return loss(completions(*POLICY), reference(r_w, r_l), PAIR, FACTS).value.item()


def ln_s(x: float) -> float:
    return -math.log1p(math.exp(-x))


def odds(mean: float) -> float:
    return mean - math.log1p(-math.exp(mean))


BY_HAND = [
    (IPO(tau=0.5, length_normalize=False), 2.0, 1.0, 0.0),  # D = 1 = 1 / (2 * .5): at the minimum
    (IPO(tau=0.5, length_normalize=False), 0.0, 0.0, 1.0),  # (0 - 1)^2
    (IPO(tau=0.25), 2.0, 1.0, 4.0),  # means: 2/2 - 1/1 = 0; (0 - 2)^2
    (SLiC(delta=2.0, regularization=0.5), 0.0, 0.0, 2.0),  # max(0, 2 + 2 - 3) + .5 * 2
    (SLiC(delta=0.5, regularization=0.0), 0.0, 0.0, 0.0),  # the hinge is met: .5 + 2 - 3 < 0
    (ORPO(odds_weight=0.5), 0.0, 0.0, 1.0 - 0.5 * ln_s(odds(-1.0) - odds(-3.0))),
    (ORPO(odds_weight=0.0), 0.0, 0.0, 1.0),  # the chosen completion's mean NLL alone
    (RDPO(beta=0.5, alpha=0.25), 2.0, 0.0, -ln_s(0.5 * 2 + 0.25 * 1)),
    (RDPO(beta=0.5, alpha=0.25, sign=-1), 2.0, 0.0, -ln_s(0.5 * 2 - 0.25 * 1)),
    (RDPO(beta=0.5, alpha=0.0), 2.0, 1.0, -ln_s(0.5)),  # DPO
    (SimPO(beta=2.0, gamma_beta_ratio=0.25), 0.0, 0.0, -ln_s(2 * (2 - 0.25))),  # A_w - A_l = -1 + 3
]


@pytest.mark.parametrize(("loss", "r_w", "r_l", "expected"), BY_HAND, ids=lambda x: type(x).__name__)
def test_value_by_hand(loss: PairLoss, r_w: float, r_l: float, expected: float) -> None:
    assert value(loss, r_w, r_l) == pytest.approx(expected, rel=1e-12, abs=1e-12)


LOSSES = [DPO(), DPO(label_smoothing=0.2), IPO(), IPO(length_normalize=False), SLiC(delta=5.0), ORPO(), RDPO(), SimPO()]


def gradient(loss: PairLoss, policy: Completions, ref: Completions) -> Tensor:
    (grad,) = torch.autograd.grad(loss(policy, ref, PAIR, FACTS).value.sum(), policy.token)
    return grad


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
class TestEveryPairLoss:
    def test_gradcheck(self, loss: PairLoss) -> None:
        ref = reference(0.3, -0.2)
        token = completions(*POLICY).token
        assert torch.autograd.gradcheck(lambda t: loss(ref.replaced(t), ref, PAIR, FACTS).value, token)

    def test_it_raises_chosen_and_lowers_rejected_at_the_reference(self, loss: PairLoss) -> None:
        policy = completions(*POLICY)
        grad = gradient(loss, policy, policy.detached())
        assert (grad[:2] < 0).all()
        assert grad[2] > 0

    @pytest.mark.parametrize("extreme", [0.0, -1e-7, -1e-3, -120.0, -300.0])
    def test_finite_at_extremes_in_float32(self, loss: PairLoss, extreme: float) -> None:
        for tokens in ((extreme, extreme, -1.0), (-1.0, -1.0, extreme)):
            policy = completions(*tokens, dtype=torch.float32)
            for ref in (policy.detached(), completions(-1.0, extreme, extreme, dtype=torch.float32).detached()):
                assert loss(policy, ref, PAIR, FACTS).value.isfinite().all()
                assert gradient(loss, policy, ref).isfinite().all()

    def test_the_reference_counts_exactly_where_it_is_needed(self, loss: PairLoss) -> None:
        """Another reference changes a loss that declares one; without one, nothing may become NaN."""
        policy = completions(*POLICY)
        if loss.needs_reference:
            assert value(loss, 1.0, 0.0) != value(loss, 0.0, 0.0)
        else:
            assert value(loss, 1.0, 0.0) == loss(policy, None, PAIR, FACTS).value.item()

    def test_order_of_completions_does_not_matter(self, loss: PairLoss) -> None:
        token = torch.tensor([POLICY[2], POLICY[0], POLICY[1]], dtype=torch.float64)
        turned = Completions(token, torch.tensor([0, 1, 1]), torch.tensor([1, 2]))
        ref = reference(0.5, -0.5)
        ref_turned = turned.replaced(ref.token[[2, 0, 1]])
        examples = Examples(torch.tensor([-1, 1]), torch.tensor([[1, 0]]))
        assert loss(turned, ref_turned, examples, FACTS).value.item() == pytest.approx(value(loss, 0.5, -0.5))


def test_ipo_has_its_minimum_at_one_over_two_tau() -> None:
    policy = completions(*POLICY)
    assert gradient(IPO(tau=0.25, length_normalize=False), policy, reference(2.0, 0.0)).abs().max() == 0


def test_simpo_is_unchanged_by_the_length_of_a_repeated_token() -> None:
    once = Completions(torch.tensor([-1.0, -3.0]), torch.tensor([0, 1]), torch.tensor([1, 1]))
    twice = Completions(torch.tensor([-1.0, -1.0, -3.0]), ROW, LENGTH)
    assert SimPO()(once, None, PAIR, FACTS).value.item() == SimPO()(twice, None, PAIR, FACTS).value.item()


def test_without_smoothing_cdpo_and_without_price_rdpo_are_dpo() -> None:
    for r_w, r_l in ((0.0, 0.0), (1.0, -2.0), (-3.0, 0.5)):
        assert value(DPO(label_smoothing=0.0), r_w, r_l) == value(RDPO(alpha=0.0), r_w, r_l)


REFUSED: list[tuple[Callable[[], PairLoss], str]] = [
    (lambda: IPO(tau=0.0), "tau 0.0: accepted are numbers > 0"),
    (lambda: SLiC(delta=-1.0), "delta -1.0: accepted are numbers > 0"),
    (lambda: SLiC(regularization=-1.0), "regularization -1.0: accepted are numbers >= 0"),
    (lambda: ORPO(odds_weight=-0.1), "odds_weight -0.1: accepted are numbers >= 0"),
    (lambda: RDPO(sign=0), "sign 0: accepted are 1 and -1"),  # type: ignore[arg-type]
    (lambda: RDPO(beta=-1.0), "beta -1.0: accepted are numbers > 0"),
    (lambda: SimPO(beta=0.0), "beta 0.0: accepted are numbers > 0"),
    (lambda: SimPO(gamma_beta_ratio=-0.1), "gamma_beta_ratio -0.1: accepted are numbers >= 0"),
    (lambda: DPO(label_smoothing=0.5), "label_smoothing 0.5: accepted are numbers from 0 to below 0.5"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message.split(":")[0] for _, message in REFUSED])
def test_arguments_out_of_range_are_refused(make: Callable[[], PairLoss], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
