"""The pairwise losses of sums and means on hand-made numbers, and what each promises.

Every case has one pair. Chosen: two tokens with log-probs (-1, -1), so S_w = -2, A_w = -1, n_w = 2; rejected: one token
with log-prob -3, so S_l = A_l = -3, n_l = 1. References are chosen so that R_w and R_l come out as stated.
"""

import math
import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_bnf.losses import (
    ASFT,
    CPO,
    DPO,
    DPOP,
    EXO,
    IPO,
    NCA,
    ORPO,
    RDPO,
    APODown,
    APOZero,
    CalDPO,
    DiscoPOP,
    Examples,
    PairLoss,
    RobustDPO,
    RSOHinge,
    SigmoidNorm,
    SimPER,
    SimPO,
    SLiC,
    StepContext,
)
from lightning_bnf.losses.completions import Completions

CONTEXT = StepContext(pairs=1, preferred=1, dispreferred=1, preferred_tokens=2, smallest_length=1)
PAIR = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))
ROW, LENGTH = torch.tensor([0, 0, 1]), torch.tensor([2, 1])


def completions(*token: float, dtype: torch.dtype = torch.float64) -> Completions:
    return Completions(torch.tensor(token, dtype=dtype, requires_grad=True), ROW, LENGTH)


POLICY = (-1.0, -1.0, -3.0)


def reference(r_w: float, r_l: float) -> Completions:
    """The reference under which the policy's summed log-ratios are r_w and r_l."""
    return completions(POLICY[0] - r_w, POLICY[1], POLICY[2] - r_l).detached()


def value(loss: PairLoss, r_w: float = 0.0, r_l: float = 0.0) -> float:
    return loss(completions(*POLICY), reference(r_w, r_l), PAIR, CONTEXT).value.item()


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
    (RobustDPO(beta=0.5, label_smoothing=0.25), 2.0, 0.0, (-0.75 * ln_s(1) + 0.25 * ln_s(-1)) / 0.5),
    (DPOP(beta=0.5, penalty=3.0), -1.0, -3.0, -ln_s(0.5 * (2 - 3 * 1))),  # R_w = -1: fallen by 1
    (DPOP(beta=0.5, penalty=3.0), 2.0, 0.0, -ln_s(1)),  # not fallen: DPO
    (RSOHinge(gamma=0.5), 1.0, 0.0, 0.5),  # 1 - .5 * 1
    (RSOHinge(gamma=0.5), 3.0, 0.0, 0.0),
    (EXO(beta=1.0, label_smoothing=0.25), 0.0, 0.0, math.log(0.5) - 0.5 * (math.log(0.75) + math.log(0.25))),
    (NCA(beta=0.5), 2.0, 0.0, -ln_s(1) - 0.5 * ln_s(-1) - 0.5 * ln_s(0)),
    (APOZero(beta=0.5), 2.0, 0.0, 1 - math.exp(ln_s(1)) + 0.5),
    (APODown(beta=0.5), 2.0, 0.0, math.exp(ln_s(1)) + 1 - math.exp(ln_s(1))),
    (APODown(beta=0.5), 0.0, -2.0, 0.5 + 1 - math.exp(ln_s(1))),
    (DiscoPOP(beta=1.0, tau=1.0), 0.0, 0.0, 0.5 * math.log(2) + 0.5),  # m = 1/2
    (DiscoPOP(beta=0.5, tau=0.5), 2.0, 0.0, (1 - math.exp(ln_s(2))) * -ln_s(1) + math.exp(ln_s(2)) * math.exp(-1)),
    (SigmoidNorm(beta=0.5), 2.0, 1.0, math.log(2)),  # 2 / 2 - 1 / 1 = 0
    (SigmoidNorm(beta=0.5), 4.0, 0.0, -ln_s(1)),
    (CPO(beta=0.5, alpha=2.0), 0.0, 0.0, -ln_s(0.5 * 1) + 2 * 1),  # S_w - S_l = -2 + 3
    (SimPER(), 0.0, 0.0, -math.exp(-1) + math.exp(-3)),
    (CalDPO(beta=0.5, calibration=0.5), 1.0, -1.0, -ln_s(2)),  # both at their targets +-1
    (CalDPO(beta=0.25, calibration=0.5), 0.0, 0.0, math.log(2) + 0.5 * (4 + 4)),
    (ASFT(odds_weight=0.5), 0.0, 0.0, 1 - 0.5 * (ln_s(odds(-1.0)) + ln_s(-odds(-3.0)))),
]


@pytest.mark.parametrize(("loss", "r_w", "r_l", "expected"), BY_HAND, ids=lambda x: type(x).__name__)
def test_value_by_hand(loss: PairLoss, r_w: float, r_l: float, expected: float) -> None:
    assert value(loss, r_w, r_l) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def gradient(loss: PairLoss, policy: Completions, ref: Completions) -> Tensor:
    (grad,) = torch.autograd.grad(loss(policy, ref, PAIR, CONTEXT).value.sum(), policy.token_logps)
    return grad


def test_ipo_has_its_minimum_at_one_over_two_tau() -> None:
    policy = completions(*POLICY)
    assert gradient(IPO(tau=0.25, length_normalize=False), policy, reference(2.0, 0.0)).abs().max() == 0


def test_simpo_is_unchanged_by_the_length_of_a_repeated_token() -> None:
    once = Completions(torch.tensor([-1.0, -3.0]), torch.tensor([0, 1]), torch.tensor([1, 1]))
    twice = Completions(torch.tensor([-1.0, -1.0, -3.0]), ROW, LENGTH)
    assert SimPO()(once, None, PAIR, CONTEXT).value.item() == SimPO()(twice, None, PAIR, CONTEXT).value.item()


def test_without_smoothing_cdpo_and_without_price_rdpo_are_dpo() -> None:
    for r_w, r_l in ((0.0, 0.0), (1.0, -2.0), (-3.0, 0.5)):
        assert value(DPO(label_smoothing=0.0), r_w, r_l) == value(RDPO(alpha=0.0), r_w, r_l)


def test_apo_down_lowers_both_and_the_rejected_more() -> None:
    """At R_w = R_l = 0 and beta = 1: dL/dR_w = s'(0) - s'(0) = 0 and dL/dR_l = s'(0) = 1/4; above, R_w falls too."""
    policy = completions(*POLICY)
    grad = gradient(APODown(beta=1.0), policy, reference(0.0, 0.0))
    assert grad.tolist() == pytest.approx([0.0, 0.0, 0.25])
    raised = gradient(APODown(beta=1.0), policy, reference(1.0, 0.5))
    assert (raised[2] > 0).all()
    assert raised[0] != 0


def test_without_noise_robust_dpo_is_dpo_and_without_penalties_the_sums_are() -> None:
    for r_w, r_l in ((0.0, 0.0), (1.0, -2.0), (-3.0, 0.5)):
        dpo = value(DPO(), r_w, r_l)
        for loss in (RobustDPO(label_smoothing=0.0), DPOP(0.1, 0.0)):
            assert value(loss, r_w, r_l) == pytest.approx(dpo, rel=1e-12)


def test_discopop_turns_around_near_the_reference() -> None:
    """At beta D = 0 the slope is m' (1 - ln 2) - (1 - s) / 2 - 1/2 = (1 - ln 2) / (4 tau) - 3/4 > 0 for tau = .05: the
    margin first falls. At D = +-20 (beta D = +-1) it rises, as in DPO."""
    policy = completions(*POLICY)
    at_zero = gradient(DiscoPOP(), policy, reference(0.0, 0.0))
    assert at_zero[0].item() == pytest.approx(0.05 * ((1 - math.log(2)) / 0.2 - 0.75))
    for far in (20.0, -20.0):
        assert gradient(DiscoPOP(), policy, reference(far, 0.0))[0] < 0


def test_cal_dpo_keeps_absolute_rewards() -> None:
    """With the margin given, it is lowest where the rewards lie symmetrically around 0; DPO cannot tell."""
    at = [value(CalDPO(beta=0.5), shift + 1.0, shift - 1.0) for shift in (-1.0, 0.0, 1.0)]
    assert at[1] < at[0] == pytest.approx(at[2])


REFUSED: list[tuple[Callable[[], PairLoss], str]] = [
    (lambda: IPO(tau=0.0), "tau must be > 0, got 0.0"),
    (lambda: SLiC(delta=-1.0), "delta must be > 0, got -1.0"),
    (lambda: SLiC(regularization=-1.0), "regularization must be >= 0, got -1.0"),
    (lambda: ORPO(odds_weight=-0.1), "odds_weight must be >= 0, got -0.1"),
    (lambda: RDPO(sign=0), "sign must be 1 or -1, got 0"),  # type: ignore[arg-type]
    (lambda: RDPO(beta=-1.0), "beta must be > 0, got -1.0"),
    (lambda: SimPO(beta=0.0), "beta must be > 0, got 0.0"),
    (lambda: SimPO(gamma_beta_ratio=-0.1), "gamma_beta_ratio must be >= 0, got -0.1"),
    (lambda: EXO(label_smoothing=0.0), "label_smoothing must be in (0, 0.5), got 0.0"),
    (lambda: RobustDPO(label_smoothing=0.5), "label_smoothing must be in [0, 0.5), got 0.5"),
    (lambda: DiscoPOP(tau=0.0), "tau must be > 0, got 0.0"),
    (lambda: CalDPO(calibration=-1.0), "calibration must be >= 0, got -1.0"),
    (lambda: CPO(alpha=-1.0), "alpha must be >= 0, got -1.0"),
    (lambda: DPOP(penalty=-1.0), "penalty must be >= 0, got -1.0"),
    (lambda: NCA(beta=0.0), "beta must be > 0, got 0.0"),
    (lambda: RSOHinge(gamma=0.0), "gamma must be > 0, got 0.0"),
    (lambda: DPO(label_smoothing=0.5), "label_smoothing must be in [0, 0.5), got 0.5"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED, ids=[message.split(":")[0] for _, message in REFUSED])
def test_arguments_out_of_range_are_refused(make: Callable[[], PairLoss], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_dpop_begins_as_dpo() -> None:
    """At R_w = R_l = 0 the chosen has not fallen: both gradients are beta / 2 = 1/4 a token, up and down. Fallen by 1,
    z = 0.5 (-1 - 3) = -2, and the chosen's is beta (1 + lambda) s(2) = 2 s(2)."""
    policy, loss = completions(*POLICY), DPOP(beta=0.5, penalty=3.0)
    assert gradient(loss, policy, reference(0.0, 0.0)).tolist() == pytest.approx([-0.25, -0.25, 0.25])
    fallen = gradient(loss, policy, reference(-1.0, 0.0)).tolist()
    assert fallen == pytest.approx([-2 / (1 + math.exp(-2)), -2 / (1 + math.exp(-2)), 0.5 / (1 + math.exp(-2))])
