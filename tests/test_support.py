"""The tiny model."""

import torch
from support.models import tiny_llama_model


def test_tiny_model_is_the_same_every_time() -> None:
    a, b = (tiny_llama_model(50).state_dict() for _ in range(2))
    assert all(torch.equal(a[name], b[name]) for name in a)
