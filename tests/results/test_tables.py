"""Run folders as tables, and the figures drawn of them."""

import json
from pathlib import Path

import pandas as pd
import pytest
from support.run_folders import CSV, collapse_records

from lightning_bnf.results.tables import (
    bench_table,
    displacement,
    displacement_table,
    read_bench,
    read_metrics,
    side_by_side,
)


def test_metrics_become_a_tidy_table(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CSV)
    table = read_metrics(tmp_path)
    assert list(table.columns) == ["step", "split", "metric", "value"]
    assert [tuple(row) for row in table.itertuples(index=False)] == [
        (0, "train", "logps_mean/chosen", -1.0),
        (1, "train", "logps_mean/chosen", -0.5),
        (1, "val", "logps_mean/chosen", -0.75),
        (0, "train", "loss", 2.5),
        (1, "train", "loss", 1.5),
        (1, "val", "loss", 2.0),
    ]


def test_a_folder_without_metrics_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no metrics\.csv"):
        read_metrics(tmp_path)


def test_displacement_is_the_change_since_the_start() -> None:
    changes = displacement(collapse_records())
    assert set(changes.columns) == {"method", "seed", "step", "kind", "change"}
    last = changes[(changes["step"] == 2) & (changes["kind"] == "chosen")].set_index(["method", "seed"])["change"]
    assert last.to_dict() == {("a", 1): -1.0, ("a", 2): -3.0, ("b", 1): 0.0, ("b", 2): 0.0}
    assert (changes[changes["step"] == 0]["change"] == 0).all()


def test_the_table_of_displacement_gives_means_seeds_and_alarms() -> None:
    table = displacement_table(collapse_records())
    assert table.loc["a", "chosen"] == -2.0
    assert table.loc["a", "chosen, each seed"] == "-1.00, -3.00"
    assert table.loc["a", "alarm: held-out (steps)"] == "2, -"
    assert table.loc["b", "alarm: both fall (steps)"] == "-, -"


def test_bench_results_become_a_table(tmp_path: Path) -> None:
    """Medians 2 and 3 seconds: the second variant takes 1.5 times the first of its case."""
    rows = [
        {"suite": "step", "case": "c", "variant": name, "seconds": seconds, "peak_bytes": 2_500_000_000}
        for name, seconds in (("sft", [1.0, 2.0, 9.0]), ("bnf", [3.0, 3.0, 1.0]))
    ]
    (tmp_path / "step.json").write_text(json.dumps({"machine": "two cores", "rows": rows}))
    (tmp_path / "head.json").write_text(json.dumps({"machine": "m", "rows": [rows[0] | {"suite": "head"}]}))
    table = bench_table(read_bench(tmp_path, ["step"]))
    assert table.loc[("step", "c", "bnf")].to_dict() == {
        "turns": 3,
        "median (s)": 3.0,
        "ratio": 1.5,
        "peak (GB)": 2.5,
        "machine": "two cores",
    }
    assert len(table) == 2
    assert len(read_bench(tmp_path)) == 3
    with pytest.raises(ValueError, match=r"suites must be of those measured in .*: head, step, got 'peers'"):
        read_bench(tmp_path, ["peers"])


def test_a_notebook_shows_texts_whole_and_as_text() -> None:
    long = "word " * 40
    html = side_by_side(pd.DataFrame({"prompt": ["<script>x</script>"], "after": [long]}))._repr_html_()  # type: ignore[operator]
    assert long.strip() in html
    assert "&lt;script&gt;" in html
    assert "<script>" not in html
