"""Label-confidence preference optimization."""

import math
from collections.abc import Mapping

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext
from lightning_bnf.losses.completions import Completions
from lightning_bnf.losses.outputs import check_declared, checked_output
from lightning_bnf.losses.pairs import PairLoss
from lightning_bnf.runtime.arguments import AboveZeroToOne, OpenUnitInterval
from lightning_bnf.runtime.refusal import Refusal


class LCPO(Loss):
    """LCPO, also called RE-PO (Cao et al. 2025, arXiv 2509.24159): a pairwise loss under labels of which some are
    wrong, weighed as in EM.

        L = E[ q l(w > l) + (1 - q) l(l > w) ]
        q = sg[ eta e^(-l(w > l)) / (eta e^(-l(w > l)) + (1 - eta) e^(-l(l > w))) ]

        symbol     argument     meaning
        l          base         a pairwise loss; l(l > w) is the same with chosen and rejected exchanged
        q          (computed)   probability that the pair's label is right
        eta        eta          share of right labels at the start, in (0, 1); then what q was in the steps before
        (update)   rate         eta <- (1 - rate) eta + rate (mean q of the step), in (0, 1]; the 0.1 is ours

    eta is kept in checkpoints. The base's own metrics are those of the pairs as labelled. Takes pairs (P), returns a
    value for each, (P,). Raises Refusal for arguments out of range and for a base that needs a pass over the step or
    state of its own.
    """

    needs_pairs = True
    metric_names: tuple[str, ...] = ("lcpo/confidence", "lcpo/eta")

    def __init__(self, base: PairLoss, eta: OpenUnitInterval = 0.9, rate: AboveZeroToOne = 0.1):
        """
        Args:
            base: The pairwise loss, such as DPO.
            eta: Share of right labels assumed at the start (above 0, below 1).
            rate: How fast it follows the labels' confidence (above 0, at most 1).
        """
        if not isinstance(base, PairLoss) or base.step_passes or base.state:
            raise Refusal(f"base must be a pairwise loss without state, such as DPO, got {type(base).__name__}")
        self.base = check_declared(base)
        self.rate = rate
        self.eta = eta
        self.state: Mapping[str, float] = {"lcpo/eta": eta}
        self.metric_names = (*LCPO.metric_names, *base.metric_names)
        self.needs_reference = base.needs_reference
        self.logratios_only = base.logratios_only
        self.raises_preferred = base.raises_preferred
        self.lowers_dispreferred = base.lowers_dispreferred
        self.value_falls = base.value_falls
        self.needs_columns = base.needs_columns
        self.needs_ordered_rewards = base.needs_ordered_rewards

    @property
    def implicit_reward_scale(self) -> float:
        return self.base.implicit_reward_scale

    def next_state(self, means: Mapping[str, float], step: StepContext) -> dict[str, float]:
        eta = step.state["lcpo/eta"]
        return {"lcpo/eta": (1 - self.rate) * eta + self.rate * means.get("lcpo/confidence", eta)}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        eta = step.state["lcpo/eta"]
        labelled = checked_output(self.base, self.base(policy, reference, examples, step), examples)
        swapped = self.base(policy, reference, examples.swapped(), step).value
        log_odds = (swapped - labelled.value).detach() + math.log(eta / (1 - eta))
        q = log_odds.sigmoid()
        metrics = {**labelled.metrics, "lcpo/confidence": q, "lcpo/eta": q.new_full(q.shape, eta)}
        return LossOutput(q * labelled.value + (1 - q) * swapped, metrics)
