"""A small cache of reference log-probs."""

from pathlib import Path

import torch

from lightning_bnf.policies.reference.store import LogpsCache

A, B, C = (bytes([i]) * 16 for i in range(3))


MANIFEST = {"weights": "w", "dtype": "float32"}


def filled(folder: Path, rank: int = 0) -> LogpsCache:
    cache = LogpsCache(folder, MANIFEST, rank)
    cache.add([A, B], [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])])
    cache.reload()
    return cache
