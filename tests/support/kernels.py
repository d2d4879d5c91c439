"""Logits to put through a softmax, on the device that tests have."""

import torch

from lightning_bnf.policies.head.softmax import Logits

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def logits(bias: bool, scale: float, cap: float | None, rows: int = 5, vocabulary: int = 43) -> Logits:
    g = torch.Generator().manual_seed(3)
    target = torch.randint(vocabulary, (rows,), generator=g)
    z = 4 * torch.randn(rows, vocabulary + 3, generator=g)[:, :vocabulary]  # rows that do not touch
    b = torch.randn(vocabulary, generator=g).to(DEVICE) if bias else None
    return Logits(z.to(DEVICE), target.to(DEVICE), b, scale, cap)
