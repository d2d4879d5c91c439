"""Bidirectional Negative Feedback."""

from typing import Literal

import torch
from torch import Tensor

from lightning_bnf.losses.base import StepContext
from lightning_bnf.losses.completions import log_odds
from lightning_bnf.losses.tokens import TokenLoss, Tokens
from lightning_bnf.runtime.arguments import NonNegativeFloat


class BNF(TokenLoss):
    """Bidirectional Negative Feedback loss ("As Simple as Fine-tuning", ICLR 2025, Eq. 4-9).

        L = -E[ label/|y| * sum_t sg[w_t] * log pi(y_t) ]
        w_t = min(1, odds(pi_t) / odds(ref_t))^alpha,    odds(p) = p / (1 - p)

    The paper writes a cross-entropy against a target distribution f over the whole vocabulary:

        f(y_t) = min(pi_t / ref_t, 1),    f(k) = (1 - f(y_t)) / (1 - pi_t) * pi(k)   for k != y_t       (Eq. 6)
        dL/dz_k = label/|y| * (pi_k - f_k)                                                            (Eq. 8)

    Since pi_k - f_k = w_t * (pi_k - [k = y_t]) for every k, with w_t = (f(y_t) - pi_t) / (1 - pi_t) which is the
    clipped odds ratio above, both have the same gradient, and no tensor of tokens x vocabulary is needed. The values
    differ, by label/|y| sum_t (1 - w_t) H_t with the policy's entropy H_t: the metric `bnf/eq4` adds it where the head
    gives the entropy. The loss listed in the paper's appendix has its sign
    flipped, no shift and no mask; this follows Eq. 4.

        symbol   argument     meaning
        |y|      normalizer   "response": tokens of the completion (Eq. 4); "step_min": of the step's shortest one
        alpha    alpha        >= 0; 1 in the paper, and 0 is NLL + PLL
        -        restore      whether preferred tokens have w = 1 wherever they are (BNF-restore)
        label    (data)       +1 preferred, -1 dispreferred; pairs are not needed

    At the start policy == reference and w = 1: the first step is length-normalised NLL + PLL. A token far below the
    reference has w -> 0 and is left alone, a preferred one too: what dispreferred completions dragged down is pulled
    back under `restore` alone. `alpha` and `restore` are ours, not the paper's. The logit z of an unlikely dispreferred
    token flows as dz/dt = -w, so z(t) = z(0) - ln(1 + alpha t) / alpha: without bound, and the slower the larger alpha.
    Takes completions (B), returns a value for each, (B,), in nats.
    Raises Refusal for another `normalizer`, and an `alpha` below 0.
    """

    needs_reference = True
    value_falls = False  # preferred and dispreferred log-probs enter with opposite signs, whatever they are worth
    metric_names = ("bnf/weight", "bnf/clipped", "bnf/eq4")

    def __init__(
        self,
        normalizer: Literal["response", "step_min"] = "response",
        alpha: NonNegativeFloat = 1.0,
        restore: bool = False,
    ):
        """
        Args:
            normalizer: What the sum over a completion's tokens is divided by: its own length, or the step's smallest.
            alpha: Power of the weight: 1 is BNF, 0 is NLL + PLL.
            restore: Whether preferred tokens below the reference keep the weight 1.
        """
        self.normalizer = normalizer
        self.alpha = alpha
        self.restore = restore

    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        return tokens.label * self._clipped(tokens) / self._length(tokens, step)

    def _clipped(self, tokens: Tokens) -> Tensor:
        w = clipped_odds_ratio(tokens.policy, tokens.reference)
        if self.alpha != 1:
            w = w**self.alpha
        return torch.where(tokens.label > 0, 1.0, w) if self.restore else w

    def _length(self, tokens: Tokens, step: StepContext) -> Tensor | int:
        return tokens.length if self.normalizer == "response" else step.smallest_length

    def token_metrics(self, tokens: Tokens, step: StepContext) -> dict[str, Tensor]:
        assert tokens.reference is not None
        w = self._clipped(tokens)
        below = tokens.policy < tokens.reference - step.reference_tolerance
        return {"bnf/weight": w, "bnf/clipped": below.to(w.dtype)}

    def token_sums(self, tokens: Tokens, step: StepContext) -> dict[str, Tensor]:
        if tokens.entropy is None:
            return {}
        w = self._clipped(tokens)
        # sum_k f_k log pi_k = w log pi(y_t) - (1 - w) H, since f_k = (1 - w) pi_k + w [k = y_t]
        return {"bnf/eq4": tokens.label * ((1 - w) * tokens.entropy - w * tokens.policy) / self._length(tokens, step)}


def clipped_odds_ratio(policy: Tensor, reference: Tensor | None) -> Tensor:
    """min(1, odds(pi) / odds(ref)) from log-probabilities: in [0, 1], finite for all inputs, 1 where pi >= ref."""
    assert reference is not None, "BNF needs a reference; settings without one were to be refused earlier"
    policy, reference = policy.clamp(max=0.0), reference.clamp(max=0.0)
    # In logs: as p -> 1 the odds are 0/0, and for very unlikely tokens exp(policy) / exp(reference) is.
    log_ratio = log_odds(policy) - log_odds(reference)
    return torch.where(policy >= reference, 1.0, log_ratio.clamp(max=0.0).exp())
