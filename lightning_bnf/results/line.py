"""A straight line through times."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Line:
    """seconds = fixed + tokens * per_token; misses: by how much, as a share of what was measured, at most."""

    fixed: float
    per_token: float
    misses: float

    @classmethod
    def through(cls, tokens: Sequence[float], seconds: Sequence[float]) -> "Line":
        """The line of least squared relative errors. Raises ValueError for fewer than three points, which show nothing,
        and for times that are not positive."""
        if len(tokens) != len(seconds) or len(tokens) < 3 or min(seconds) <= 0:
            raise Refusal(f"tokens {tokens}, seconds {seconds}: accepted are three points or more, of times > 0")
        x, y = np.asarray(tokens, dtype=float), np.asarray(seconds, dtype=float)
        columns = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
        (fixed, per_token), *_ = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)
        return cls(float(fixed), float(per_token), float(np.abs((fixed + per_token * x) / y - 1).max()))

    def __str__(self) -> str:
        return (
            f"{self.fixed:.2f} s + {1000 * self.per_token:.2f} ms a token (misses by {100 * self.misses:.1f} % at most)"
        )
