"""The plot has a panel a measure, and a row a model."""

from lightning_bnf.judging.lines import Line
from lightning_bnf.judging.plot import plot


def line(model: str, measure: str, value: float) -> Line:
    around = (value, value - 3, value + 3, 95, (value - 1, value + 1), 10, 0)
    return Line("arena_hard_v2", model, measure, *around, ("a", "b"), "base", "judge", "prompt", "rules")


def test_panels_and_rows() -> None:
    figure = plot([line("a", "score (%)", 40), line("b" * 50, "score (%)", 60), line("a", "LC", 1)])
    first, second = figure.axes
    assert [text.get_text() for text in first.get_yticklabels()] == ["a", "b" * 27 + "…"]
    assert first.get_title(loc="left") == "arena_hard_v2: score (%)"
    assert first.get_xlim() == (0, 100)
    assert len(second.get_yticklabels()) == 1
    assert figure.get_supxlabel() == "judged by judge"
