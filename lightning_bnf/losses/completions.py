"""Log-probabilities of completions: what a loss sees of a model, and nothing else.

A batch holds B completions with N completion tokens in all. Their log-probabilities lie in one flat tensor, without
padding; `completion` says which completion each token belongs to.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Completions:
    """Token log-probabilities of a batch of completions.

    token_logps: (N,) natural log-probability of each completion token, float32 or wider, prompt and padding excluded
    completion: (N,) index in 0..B-1 of the completion that each token belongs to
    length: (B,) number of tokens of each completion, at least 1
    entropy: (N,) nats, of the distribution that each token was scored by; None where it was not asked for

    Tokens stand in order, completion after completion.
    """

    token_logps: Tensor
    completion: Tensor
    length: Tensor
    entropy: Tensor | None = None

    @property
    def position(self) -> Tensor:
        """Which token of its completion each token is: (N,), from 0."""
        first = self.length.cumsum(0) - self.length  # (B,)
        return torch.arange(len(self.token_logps), device=self.completion.device) - first[self.completion]

    def sum(self) -> Tensor:
        """Log-probability of each whole completion: (B,) nats."""
        return self.sum_of(self.token_logps)

    def mean(self) -> Tensor:
        """Mean token log-probability of each completion: (B,) nats a token."""
        return self.sum() / self.length

    def sum_of(self, values: Tensor) -> Tensor:
        """Sum any per-token values (N,) over each completion: (B,)."""
        return values.new_zeros(len(self.length)).index_add(0, self.completion, values)

    def per_token(self, values: Tensor) -> Tensor:
        """Give each token its completion's value: (B,) -> (N,)."""
        return values[self.completion]

    def replaced(self, token_logps: Tensor) -> "Completions":
        """The same completions with other token log-probabilities (N,), such as the reference's."""
        return replace(self, token_logps=token_logps)

    def detached(self) -> "Completions":
        """The same numbers, cut from the graph."""
        return self.replaced(self.token_logps.detach())


def log1mexp(x: Tensor) -> Tensor:
    """log(1 - e^x) for x <= 0, accurate at both ends (Maechler 2012); -inf at x = 0. Shape of `x`."""
    near_zero = x > -0.6931471805599453  # -log 2: beyond it e^x is the small number, before it 1 - e^x is
    return torch.where(
        near_zero,
        torch.log(-torch.expm1(torch.where(near_zero, x, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_zero, -1.0, x))),
    )


def log_odds(logp: Tensor) -> Tensor:
    """log(p / (1 - p)) of a probability given as its logarithm (nats, clamped to <= 0); +inf at p = 1."""
    logp = logp.clamp(max=0.0)
    return logp - log1mexp(logp)
