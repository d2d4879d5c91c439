"""Losses of pairs: what the pairwise losses have in common."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, logratios
from lightning_bnf.losses.completions import Completions, log_odds
from lightning_bnf.losses.outputs import checked_output
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Side:
    """One side of P pairs, all (P,): summed and mean token log-probs of the policy in nats, tokens, the log-ratio of
    policy to reference (NaN without a reference), and the numbers that the data give (NaN where they give none)."""

    logps: Tensor
    mean_logps: Tensor
    length: Tensor
    logratios: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def mean_log_odds(self) -> Tensor:
        """log odds of the mean token's probability, (P,); clamped so that it and its gradient stay finite."""
        return log_odds(self.mean_logps.clamp(max=-1e-6))

    def column(self, name: str) -> Tensor:
        """Numbers that the data give for each completion, (P,)."""
        return self.columns.get(name, torch.full_like(self.logps, torch.nan))


@dataclass(frozen=True)
class Pairs:
    """P pairs, as the pairwise losses' papers speak of them."""

    chosen: Side
    rejected: Side

    @property
    def margin(self) -> Tensor:
        """Chosen minus rejected log-ratio, (P,)."""
        return self.chosen.logratios - self.rejected.logratios

    @property
    def mean_margin(self) -> Tensor:
        """Chosen minus rejected log-ratio a token, (P,)."""
        return self.chosen.logratios / self.chosen.length - self.rejected.logratios / self.rejected.length

    @property
    def reward_gap(self) -> Tensor:
        """Chosen minus rejected reward as the data give them, (P,); NaN where they give none."""
        return self.chosen.column("reward") - self.rejected.column("reward")


class PairLoss(Loss):
    """A loss of sequence log-probs of pairs: one value a pair."""

    needs_pairs = True

    @abstractmethod
    def pair_loss(self, pairs: Pairs) -> Tensor:
        """The value of each pair, (P,), differentiable."""

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        pairs = as_pairs(policy, reference, examples)
        output = checked_output(self, LossOutput(self.pair_loss(pairs)), examples)
        if pairs.chosen.logps.requires_grad and not output.value.requires_grad:
            without = (
                "" if self.needs_reference else ", nor of log-ratios, which are NaN where needs_reference is False"
            )
            raise Refusal(
                f"the value of {type(self).__name__} must be made of the policy's log-probs, got one without a "
                f"gradient: made of none of them, of detached ones{without}"
            )
        return output


def as_pairs(policy: Completions, reference: Completions | None, examples: Examples) -> Pairs:
    """A batch's completions as pairs."""
    logps = policy.sum()
    # Without a reference the log-ratios are not there to be used: NaN would show in every value that did.
    ratios = torch.full_like(logps, torch.nan) if reference is None else logratios(policy, reference)
    values = [examples.pairs(x) for x in (logps, policy.mean(), policy.length, ratios)]
    columns = {name: examples.pairs(values.to(logps.dtype)) for name, values in examples.columns.items()}

    def side(i: int) -> Side:
        summed, mean, length, ratio = (both[i] for both in values)
        return Side(summed, mean, length, ratio, {name: both[i] for name, both in columns.items()})

    return Pairs(chosen=side(0), rejected=side(1))
