"""Products in bfloat16 against float32's, and the sentence where they are slow."""

from types import SimpleNamespace

import pytest

from lightning_bnf.runtime import slowness
from lightning_bnf.runtime.slowness import bfloat16_slowness, slow_products


def test_slowness_is_the_ratio_of_the_shortest_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock's pairs of times are 8, 6, 4, 6 and 9 s apart, then 3, 2, 5, 2 and 4."""
    clock = iter(
        [moment for i, passed in enumerate((8, 6, 4, 6, 9, 3, 2, 5, 2, 4)) for moment in (100 * i, 100 * i + passed)]
    )
    monkeypatch.setattr(slowness, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    assert bfloat16_slowness() == 2.0


@pytest.mark.parametrize(("device", "times", "said"), [("cpu", 8.4, True), ("cpu", 1.9, False), ("cuda", 8.4, False)])
def test_outside_training_the_type_of_the_weights_is_named(
    monkeypatch: pytest.MonkeyPatch, device: str, times: float, said: bool
) -> None:
    monkeypatch.setattr(slowness, "bfloat16_slowness", lambda: times)
    wanted = (
        "dtype bfloat16: this CPU takes about 8 times as long for products in bfloat16 as in float32; dtype float32 is "
        "faster here"
    )
    assert slow_products(device, "bfloat16") == (wanted if said else None)
    assert slow_products(device, "float32") is None
