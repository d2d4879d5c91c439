"""Whether a CPU computes in bfloat16 at a bearable speed."""

import time

import torch

SLOW = 2.0
"""From how many times float32's time products in bfloat16 are called slow."""


def slow_products(device: str, dtype: str | None, precision: str | None = None) -> str | None:
    """A sentence where a CPU has no instructions for bfloat16, in which it is to compute: there all goes on many times
    more slowly, and nothing else would say why. None elsewhere.

    device: cpu or cuda. dtype: of the weights. precision: Lightning's, in training."""
    halves = (precision or "").startswith("bf16")
    if device != "cpu" or not (halves or dtype == "bfloat16") or (times := bfloat16_slowness()) < SLOW:
        return None
    faster = "dtype float32 is" if precision is None else "trainer.precision 32-true and dtype float32 are"
    return (
        f"{'precision' if halves else 'dtype'} {precision if halves else dtype}: this CPU takes about {times:.0f} "
        f"times as long for products in bfloat16 as in float32; {faster} faster here"
    )


@torch.inference_mode()
def bfloat16_slowness(rows: int = 128, width: int = 256) -> float:
    """How many times as long as in float32 this CPU takes for a linear layer's products in bfloat16, forward and
    backward. Of the shortest of five times, so that what else the machine does counts little; takes some 0.1 s."""

    def shortest(dtype: torch.dtype) -> float:
        given, weight, times = torch.ones(rows, width, dtype=dtype), torch.ones(width, width, dtype=dtype), []
        for _ in range(5):
            begun = time.perf_counter()
            given @ weight.T @ weight
            times.append(time.perf_counter() - begun)
        return min(times)

    return shortest(torch.bfloat16) / shortest(torch.float32)
