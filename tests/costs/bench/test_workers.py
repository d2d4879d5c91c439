"""Turns of variants in processes of their own, and their failures."""

from pathlib import Path

import pytest
from support import turns

from lightning_bnf.costs.bench.results import table
from lightning_bnf.costs.bench.workers import Variant, compete

pytestmark = pytest.mark.slow


def test_a_contest_takes_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    group = [
        Variant("s", "c", name, turns.sleeper, {"seconds": seconds, "log": log})
        for name, seconds in (("quick", 0.01), ("slow", 0.1))
    ]
    compete(group, repeats=2, warmups=1, threads=1)
    assert (tmp_path / "log").read_text().split() == ["0.01", "0.1"] * 3
    assert [len(variant.seconds) for variant in group] == [2, 2]
    assert min(group[1].seconds) >= 0.1
    assert min(group[0].seconds) >= 0.01
    assert all(variant.peak_bytes >= variant.resting_bytes > 10**7 for variant in group)
    assert "slow" in table(group)


def test_rounds_start_everybody_anew_in_another_order(tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    group = [
        Variant("s", "c", str(seconds), turns.sleeper, {"seconds": seconds, "log": log}) for seconds in (0.01, 0.02)
    ]
    compete(group, repeats=1, warmups=1, threads=1, rounds=2)
    assert (tmp_path / "log").read_text().split() == ["0.01", "0.02"] * 2 + ["0.02", "0.01"] * 2
    assert [len(variant.seconds) for variant in group] == [2, 2]
    assert [variant.row()["rounds"] for variant in group] == [2, 2]


def test_a_variant_that_fails_has_its_traceback_and_the_others_go_on(tmp_path: Path) -> None:
    """Alone, so that the broken one has ended before the next begins; once, so that the other has one turn of five."""
    other = Variant("s", "c", "other", turns.sleeper, {"seconds": 0.01, "log": str(tmp_path / "log")}, once=True)
    broken = Variant("s", "c", "broken", turns.fails, alone=True)
    compete([broken, other], repeats=5, threads=1)
    assert broken.error.startswith("Traceback")
    assert broken.error.strip().endswith("ValueError: no luck")
    assert not broken.seconds
    assert (len(other.seconds), other.error) == (1, "")
    assert "broken  failed: ValueError: no luck" in table([broken, other])
