"""Losses that weigh each token by a number that is known once its own log-probability is."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepContext, Weigher
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Tokens:
    """Some of a batch's completion tokens, all (n,): log-probs of policy and reference, label and length of their
    completions, and the policy's entropy in nats where the head gives it."""

    policy: Tensor
    reference: Tensor | None
    label: Tensor
    length: Tensor
    entropy: Tensor | None = None


class TokenLoss(Loss):
    """A loss -sum_t sg[weight_t] log pi(y_t): each token's weight is known once its own log-probability is.

    So the head can make the gradient while it still holds the token's logits (three matrix products instead of four).
    """

    fused = True

    @abstractmethod
    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        """The weight of each token, (n,), elementwise; the sign is the label's. No gradient flows through it."""

    def token_metrics(self, tokens: Tokens, step: StepContext) -> dict[str, Tensor]:
        """Detached per-token metrics, by name."""
        return {}

    def token_sums(self, tokens: Tokens, step: StepContext) -> dict[str, Tensor]:
        """Detached per-token values, by name, whose sums over the completions are metrics."""
        return {}

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        tokens = _by_token(policy.detached(), reference, examples)
        with torch.no_grad():
            weight = self._weight(tokens, step)
            metrics = self.token_metrics(tokens, step)
            metrics |= {name: policy.sum_of(values) for name, values in self.token_sums(tokens, step).items()}
        value = -policy.sum_of(weight * policy.token_logps)  # (B,)
        if len(self.labels) == 1:  # of the batch's completions it learns from these alone
            preferred, dispreferred = examples.sides()
            value = value[preferred if 1 in self.labels else dispreferred]
        return LossOutput(value, metrics)

    def _weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        weight = self.token_weight(tokens, step)
        if weight.shape != tokens.policy.shape:
            raise Refusal(
                f"the weights of {type(self).__name__} must have the shape {tuple(tokens.policy.shape)}, one a token, "
                f"got {tuple(weight.shape)}"
            )
        return weight

    def weigher(self, completions: Completions, examples: Examples, step: StepContext) -> Weigher | None:
        every = _by_token(completions, completions, examples)

        def weigh(token: Tensor, where: slice) -> Tensor:
            assert every.reference is not None
            others = (every.reference[where], every.label[where], every.length[where])
            return self._weight(Tokens(token, *(other.to(token.dtype) for other in others)), step)

        return weigh


def _by_token(policy: Completions, reference: Completions | None, examples: Examples) -> Tokens:
    """Lay everything that a token loss reads out by token."""
    return Tokens(
        policy=policy.token_logps,
        reference=None if reference is None else reference.token_logps,
        label=policy.per_token(examples.label).to(policy.token_logps.dtype),
        length=policy.per_token(policy.length).to(policy.token_logps.dtype),
        entropy=policy.entropy,
    )
