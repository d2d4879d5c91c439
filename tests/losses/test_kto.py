"""KTO on hand-made numbers, its KL over the step, and BCO with the shift that it carries."""

import math

import pytest
import torch

from lightning_bnf.losses import BCO, KTO, Examples, StepContext, StepLogps
from lightning_bnf.losses.completions import Completions

# Preferred with R = 2, dispreferred with R = 1, preferred with R = 0; one token each.
RATIOS = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64)
EXAMPLES = Examples(torch.tensor([1, -1, 1]))
ROW, LENGTH = torch.arange(3), torch.ones(3, dtype=torch.long)


def context(kl: float | None = None, **state: float) -> StepContext:
    statistics = {} if kl is None else {"kto/kl": torch.tensor(kl, dtype=torch.float64)}
    return StepContext(0, 2, 1, 2, 1, state=state, statistics=statistics)


def both() -> tuple[Completions, Completions]:
    policy = Completions((RATIOS - 5).requires_grad_(), ROW, LENGTH)
    return policy, policy.replaced(torch.full_like(RATIOS, -5.0))


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_kto_by_hand() -> None:
    """beta .5, z0 = 1: 1 - s(.5 (2 - 1)), then U = 3: 3 (1 - s(.5 (1 - 1))), then 1 - s(.5 (0 - 1))."""
    output = KTO(beta=0.5, undesirable_weight=3.0)(*both(), EXAMPLES, context(1.0))
    assert output.value.tolist() == pytest.approx([1 - s(0.5), 1.5, 1 - s(-0.5)])
    assert output.metrics["kto/kl"].tolist() == [1.0] * 3


def test_kto_gradient_by_hand() -> None:
    """dL/dR = -lambda_D beta s' for preferred and +lambda_U beta s' for dispreferred; none through z0."""
    policy, reference = both()
    kl = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    step = StepContext(0, 2, 1, 2, 1, statistics={"kto/kl": kl})
    KTO(beta=0.5, desirable_weight=2.0)(policy, reference, EXAMPLES, step).value.sum().backward()
    slope = [0.5 * s(x) * (1 - s(x)) for x in (0.5, 0.0, -0.5)]
    assert policy.token_logps.grad is not None
    assert policy.token_logps.grad.tolist() == pytest.approx([-2 * slope[0], slope[1], -2 * slope[2]])
    assert kl.grad is None


@pytest.mark.parametrize(("ratios", "kl"), [([1.0, 3.0], 2.0), ([-4.0, 1.0], 0.0)])
def test_kl_is_the_mean_over_mismatched_completions_but_never_negative(ratios: list[float], kl: float) -> None:
    logps = StepLogps(torch.tensor(ratios) - 9, torch.full((2,), -9.0), Examples(torch.tensor([1, -1])))
    assert KTO().statistics({"mismatched": logps}, context())["kto/kl"].item() == kl


def test_without_an_estimate_there_is_no_second_pass_and_z0_is_0() -> None:
    assert KTO().step_passes == ("mismatched",)
    loss = KTO(beta=1.0, kl_estimate="none")
    assert loss.step_passes == ()
    assert loss(*both(), EXAMPLES, context()).value.tolist() == pytest.approx([1 - s(2), 1 - s(-1), 1 - s(0)])


def test_without_another_prompt_there_is_no_estimate() -> None:
    empty = StepLogps(torch.zeros(0), torch.zeros(0), Examples(torch.zeros(0, dtype=torch.long)))
    assert KTO().statistics({"mismatched": empty}, context()) == {}


def test_bco_by_hand() -> None:
    """beta .5, d = .25: -log s(.5 * 2 - .25), -log s(.25 - .5), -log s(0 - .25)."""
    output = BCO(beta=0.5)(*both(), EXAMPLES, context(**{"bco/shift": 0.25, "bco/seen": 3.0}))
    assert output.value.tolist() == pytest.approx([-math.log(s(x)) for x in (0.75, -0.25, -0.25)])
    assert output.metrics["bco/reward"].tolist() == [1.0, 0.5, 0.0]


def test_bco_carries_the_mean_reward_of_all_completions_so_far() -> None:
    """Step 1: 3 completions of mean 1; step 2: 3 of mean 2 -> 1.5; a step without completions changes nothing."""
    loss = BCO()
    first = loss.next_state({"bco/reward": 1.0}, context(**loss.state))
    assert first == {"bco/shift": 1.0, "bco/seen": 3.0}
    second = loss.next_state({"bco/reward": 2.0}, context(**first))
    assert second == {"bco/shift": 1.5, "bco/seen": 6.0}
    assert loss.next_state({}, StepContext(0, 0, 0, 0, 1, state=second)) == second


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="kl_estimate must be 'mismatched' or 'none', got 'batch'"):
        KTO(kl_estimate="batch")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"undesirable_weight must be > 0, got 0\.0"):
        KTO(undesirable_weight=0.0)
    with pytest.raises(ValueError, match=r"beta must be > 0, got -1"):
        BCO(beta=-1)
