"""What is read from a run folder, also from one that is half written."""

import json
from pathlib import Path

import pytest
from support.page_runs import write_run

from lightning_bnf.pages.run_folder import flattened, read_run
from lightning_bnf.pages.scores import Snapshot, write_snapshot
from lightning_bnf.runtime.refusal import Refusal


def test_everything_is_read(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"))
    assert (run.loss, run.model, len(run.rows), sorted(run.snapshots)) == (
        "BNF",
        "some/model",
        2,
        ["end", "middle", "start"],
    )
    assert run.series("train", "rewards/margins") == ([1, 2], [0.0, 1.0])
    assert run.series("val", "loss") == ([2], [0.75])
    assert run.completions[0]["after"] == "Hello there, Ann."
    assert run.data_report == "mine.jsonl: 8 rows\n"


def test_fewer_rows_keep_their_own_scores(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    whole, first = read_run(folder), read_run(folder, rows=1)
    assert [row.id for row in first.rows] == ["first"]
    assert first.snapshots["end"].logps == whole.snapshots["end"].logps[:1]
    assert len(first.completions) == 1


def test_no_rows_is_no_data_at_all(tmp_path: Path) -> None:
    run = read_run(write_run(tmp_path / "run"), rows=0)
    assert (run.rows, run.snapshots, run.completions, run.data_report) == ([], {}, [], "")
    about = tmp_path / "run/report/run.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"rows": 0}))
    assert read_run(tmp_path / "run").completions == []  # what the run was told holds for a page written later


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("model:\n  loss:\n    class_path: lightning_bnf.losses.DPO\n")
    (tmp_path / "metrics.csv").write_text("")
    (tmp_path / "completions.jsonl").write_text('{"before": "a", "after": "b"}\n{"before": "a", "af')
    run = read_run(tmp_path)
    assert (run.loss, run.rows, run.series("train", "loss"), len(run.completions)) == ("DPO", [], ([], []), 1)


def test_scores_of_other_rows_are_not_shown(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    write_snapshot(folder, "end", Snapshot(2, [[[-1.0]]]))
    assert sorted(read_run(folder).snapshots) == ["middle", "start"]


def test_a_folder_of_no_run_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(Refusal, match=r"run must be a run folder, got .*, which holds no config.yaml"):
            read_run(folder)


def test_settings_by_their_dotted_names() -> None:
    settings = {"a": {"b": 1, "c": None, "d": []}, "e": [{"f": True}, {"f": "x"}], "g": [0.5, 2]}
    assert flattened(settings) == [("a.b", "1"), ("e.0.f", "true"), ("e.1.f", "x"), ("g", "0.5, 2")]
