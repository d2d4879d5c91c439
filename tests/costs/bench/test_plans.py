"""Planned and measured peaks."""

from pathlib import Path

import pytest
from support.turns import Few

from lightning_bnf.costs.bench import plans
from lightning_bnf.costs.bench.workers import Over

pytestmark = pytest.mark.slow


def test_a_case_is_planned_and_measured(tmp_path: Path, tiny_folder: str) -> None:
    """Of a tiny model the process itself is nearly all: the two peaks are of one size."""
    case = plans.cases(tiny_folder, "cpu")["full, cached reference, DPO, 1024 tokens"]
    peaks = []
    for contest in (plans.planned, plans.measured):
        turns = Few(1)
        with pytest.raises(Over):
            contest(turns, case, str(tmp_path))
        peaks.append(turns.told[0]["peak_bytes"])
        if contest is plans.planned:
            assert {"weights (float32)", "activations", "beside_tensors"} < set(turns.told[0])
    assert 0.5 < peaks[0] / peaks[1] < 2
