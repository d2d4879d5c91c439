"""Which figures runs beside each other have."""

from pathlib import Path

from support.page_runs import write_run

from lightning_bnf.pages.compare_charts import NamedRun, compare_charts
from lightning_bnf.pages.run_folder import read_run

TITLES = (
    "Margin gained",
    "Chosen moved",
    "Rejected moved",
    "Accuracy in training",
    "Gained against chosen lost",
    "Gained against how far it moved",
)


def titles(runs: list[NamedRun]) -> list[str]:
    text = "".join(compare_charts(runs))
    return [title for title in TITLES if f">{title}</text>" in text]


def test_every_run_is_in_every_figure(tmp_path: Path) -> None:
    runs = [NamedRun.of(loss, read_run(write_run(tmp_path / loss, loss=loss))) for loss in ("BNF", "DPO")]
    assert titles(runs) == list(TITLES)
    for chart in compare_charts(runs):
        assert "var(--run-0)" in chart
        assert "var(--run-1)" in chart
        assert ">DPO</text>" in chart


def test_without_scores_there_are_curves_of_the_metrics_alone(tmp_path: Path) -> None:
    runs = [NamedRun.of(name, read_run(write_run(tmp_path / name), rows=0)) for name in "ab"]
    assert titles(runs) == ["Accuracy in training"]
    assert runs[0].last is None
