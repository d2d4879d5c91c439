"""Tables and rates of measurements."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_bnf.costs.bench.results import Results, figures, markdown, table
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.runtime.refusal import Refusal

ABOUT: dict[str, Any] = {
    "date": "2026-01-02", "machine": "NVIDIA H100 80GB HBM3", "threads": 4, "versions": {"torch": "2.9"},
    "commit": "abc", "source": "x", "settings": {"repeats": 2, "rehearse": False},
}  # fmt: skip


def nothing(turns: Turns) -> None:
    """Takes no turn."""


def measured() -> list[Variant]:
    """2 s for 3,000 tokens and 400 TFLOP; one that failed."""
    good = Variant("gpu", "step", "good", nothing, seconds=[1.0, 2.0, 3.0], peak_bytes=5 * 10**9, rounds=1)
    good.more = {"tokens": [3000.0] * 3, "flops": [989.4e12] * 3, "planned_bytes": [6e9] * 3, "places": [["a:1"]] * 3}
    return [good, Variant("gpu", "step", "bad", nothing, error="Traceback\n  x\nOutOfMemoryError: too much")]


def test_rates_are_of_the_medians() -> None:
    """989.4 TFLOP in 2 s are half of an H100's 989.4 TFLOP/s."""
    row = measured()[0].row()
    assert figures(row, ABOUT["machine"]) == {
        "tokens/s": "1,500", "TFLOP/s": "495", "of the peak": "50%", "planned GB": "6.00",
    }  # fmt: skip
    assert "of the peak" not in figures(row, "some CPU")


def test_the_table_says_what_failed_and_on_what_it_was_measured() -> None:
    group = measured()
    text = markdown(ABOUT, [variant.row() for variant in group])
    assert text.startswith("NVIDIA H100 80GB HBM3, 2026-01-02, commit abc; torch 2.9. Medians.\n")
    assert "| step | good | 2 | 5.00 | tokens/s 1,500; TFLOP/s 495; of the peak 50%; planned GB 6.00 |" in text
    assert "| step | bad | failed |  | OutOfMemoryError: too much |" in text
    assert "the numbers mean nothing" in markdown(ABOUT | {"settings": {"rehearse": True}}, [])
    shown = table(group)
    assert "bad   failed: OutOfMemoryError: too much" in shown


def test_what_was_measured_is_held_and_what_failed_is_not(tmp_path: Path) -> None:
    file = tmp_path / "new/gpu.json"
    Results(ABOUT, file, None).add(measured())
    good, bad = (Variant("gpu", "step", name, nothing) for name in ("good", "bad"))
    again = Results(ABOUT | {"date": "2026-01-03"}, file, None)
    assert again.hold([good])
    assert good.row() == measured()[0].row()
    assert not again.hold([bad])
    assert not again.hold([good, bad])
    again.add([good])
    assert {row["variant"] for row in json.loads(file.read_text())["rows"]} == {"good", "bad"}, "kept until made anew"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"rows": []}'])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, content: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(content)
    with pytest.raises(Refusal, match="json_file must be a new file, or measurements of this machine"):
        Results(ABOUT, file, None)
    assert file.read_text() == content
