"""Our Table 4 beside the printed one: which numbers stand where, with ranks only where all methods have them."""

import json
from pathlib import Path

import pytest

from lightning_bnf.reproduction.table4 import Row, Table4
from lightning_bnf.reproduction.table4_results import JUDGED, MEASURED, write_table

GEMMA = "Gemma-2-9b-it"


def scored(model: str, benchmark: str, measure: str, value: float) -> dict[str, object]:
    held = {"benchmark": benchmark, "model": f"{GEMMA}/{model}", "measure": measure, "value": value}
    return held | {"low": value - 2, "high": value + 2, "n": 9, "missing": 1, "judge": "j", "prompt": "own"}


def test_cells_ranks_and_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Base and BNF have all columns but MMLU-redux, of which Base has none: no rank there, and no average rank."""
    lines = [
        scored(model, *key, value + (model == "BNF"))
        for value, key in enumerate(JUDGED, start=50)
        for model in ("Base", "BNF")
    ]
    other = scored("BNF", "arena_hard_v0.1", "LC (%), at equal lengths", 99.0)
    (tmp_path / "scores.json").write_text(json.dumps({"scores": [*lines, other]}))
    measured = {}
    for method, names in (("Base", list(MEASURED)[:3]), ("BNF", list(MEASURED))):
        measured[GEMMA, method] = folder = tmp_path / method
        folder.mkdir()
        rows = [{"name": name, "n": 100, "value": 0.5, "stderr": 0.05} for name in names]
        (folder / "scores.json").write_text(json.dumps(rows))
    table = Table4({GEMMA: {"Base": Row("x"), "BNF": Row("y")}})
    found = write_table(table, tmp_path, tmp_path / "scores.json", measured)
    assert len(found) == 2 * 4 + 3 + 4
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]]
        for line in (tmp_path / "table4.md").read_text().splitlines()
        if line.startswith("|")
    }
    assert cells["BNF, ours"] == [
        *("51 [49, 53] (1)", "52.0 [50.0, 54.0] (1)", "53.0 [51.0, 55.0] (1)", "54.0 [52.0, 56.0] (1)"),
        *["50.0 [40.2, 59.8] (1)"] * 3,
        "50.0 [40.2, 59.8]",
        "-",
    ]
    assert (cells["Base, ours"][0], cells["Base, ours"][-2:]) == ("50 [48, 52] (2)", ["-", "-"])
    assert cells["BNF, printed"][0] == "1186 (1)"
    assert cells["SimPO, ours"] == ["-"] * 9
    shown = capsys.readouterr().out
    assert "- Arena-Hard LC (%): judged by j, prompt own" in shown
    assert "- Wild-Bench Elo: n 9, 2 missing; 2 models" in shown


def test_the_average_rank_of_whole_columns(tmp_path: Path) -> None:
    """BNF is first in the four judged columns and ties in the other four: 1.00; Base 1.50. Another base model than the
    paper's has no printed lines."""
    lines = [
        scored(model, *key, value + (model == "BNF"))
        for value, key in enumerate(JUDGED, start=50)
        for model in ("Base", "BNF")
    ]
    (tmp_path / "scores.json").write_text(json.dumps({"scores": lines}).replace(GEMMA, "Mine"))
    measured = {}
    for method in ("Base", "BNF"):
        measured["Mine", method] = folder = tmp_path / method
        folder.mkdir()
        rows = [{"name": name, "n": 100, "value": 0.5, "stderr": None} for name in MEASURED]
        (folder / "scores.json").write_text(json.dumps(rows))
    write_table(Table4({"Mine": {"Base": Row("x"), "BNF": Row("y")}}), tmp_path, tmp_path / "scores.json", measured)
    lines = [line for line in (tmp_path / "table4.md").read_text().splitlines() if ", ours" in line]
    assert [line.split("|")[-2].strip() for line in lines] == ["1.50", "1.00"]
    assert "50.0 (1)" in lines[0]
