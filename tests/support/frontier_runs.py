"""Results of a frontier's runs, made by hand: few rows, known alignment."""

from typing import Any

from lightning_bnf.reproduction.frontier import TAXES


def record(method: str, seed: int, moments: dict[float, tuple[float, list[float]]], setting=1, rate=1e-4, rows="r"):
    """A result with, for each share, the alignment (of all of two pairs) and the tax's rows."""
    kept = [
        {"share": share, "step": 1, "values": {"passes": [aligned] * 2} | dict.fromkeys(TAXES, rows_)}
        for share, (aligned, rows_) in moments.items()
    ]
    return {
        "method": method,
        "setting": setting,
        "seed": seed,
        "config": {"model": {"optimization": {"learning_rate": rate}}},
        "results": {"likelihood": {"fingerprints": {"pairs": rows}, "points": kept}},
    }


BASE = record("Base", 1, {1.0: (0.5, [-1.0, -1.0, -4.0])}, setting=None)


def run(method: str, seed: int, half: float, end: float, loss: float, **more: Any):
    """Aligned `half` and `end`; the two rows that both moments have lose `loss` by half, and twice that at the end."""
    rows = [-1 - 2 * loss, -1 - 2 * loss]
    return record(method, seed, {0.5: (half, [-1 - loss, -1 - loss]), 1.0: (end, [*rows, -9.0])}, **more)
