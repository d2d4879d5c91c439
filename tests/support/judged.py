"""Games and scores for statistics of judged benchmarks: by hand, and drawn from a seed."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_bnf.evaluation.judged.games import Games


def games(verdicts: Sequence[tuple[str, bool, float]], model: str = "m", style: Any = None, base: Any = None) -> Games:
    """Of (question, shown first, verdict); styles of zeros where none are given."""
    n = len(verdicts)
    return Games(
        np.array([question for question, _, _ in verdicts]),
        np.array([model] * n),
        np.array([first for _, first, _ in verdicts]),
        np.array([verdict for _, _, verdict in verdicts], dtype=float),
        np.zeros((n, 4)) if style is None else np.asarray(style, dtype=float),
        np.zeros((n, 4)) if base is None else np.asarray(base, dtype=float),
    )


def drawn_pool(models: int = 3, questions: int = 40, seed: int = 0) -> Games:
    """A pool of models of rising strength, longer and longer, judged in both orders."""
    rng = np.random.default_rng(seed)
    n = models * questions * 2
    model = np.repeat(np.arange(models), questions * 2)
    question = np.tile(np.repeat(np.arange(questions), 2), models)
    length = rng.integers(50, 400, n // 2).repeat(2) + 60 * model
    base = rng.integers(50, 400, questions).repeat(2)[question * 2]
    latent = 0.4 * model + 0.002 * (length - base) + rng.normal(size=n)
    verdict = np.select([latent > 1, latent > 0.1, latent > -0.1, latent > -1], [2, 1, 0, -1], -2).astype(float)
    marks = rng.integers(0, 9, (2, n, 3))
    return Games(
        question.astype(str),
        np.array([f"m{i}" for i in model]),
        np.tile([False, True], n // 2),
        verdict,
        np.column_stack([length, marks[0]]).astype(float),
        np.column_stack([base, marks[1]]).astype(float),
    )
