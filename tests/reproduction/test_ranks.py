"""Ranks as the paper makes them: recomputed from its scores they are the printed ones."""

import numpy as np
import pandas as pd
import pytest

from lightning_bnf.reproduction.printed import BASE_MODELS, METRICS, PrintedScores, table4, table6
from lightning_bnf.reproduction.ranks import average_rank, average_rank_intervals, beside_paper, ranks, shown

TABLES = {**{name: table4(name) for name in BASE_MODELS}, "pairing ratio": table6()}
DIFFERING: list[tuple[str, str, str]] = []
"""(table, line, column) of every rank and average rank that the paper prints otherwise: there is none."""


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_scores_give_the_papers_ranks(name: str) -> None:
    """All 200 ranks and 25 average ranks, ties sharing the better rank and halves rounded up."""
    paper = TABLES[name]
    ours = ranks(paper.scores)
    differing = [(name, line, column) for line in ours.index for column in ours if
                 ours.loc[line, column] != paper.ranks.loc[line, column]]  # fmt: skip
    average = average_rank(ours)
    differing += [(name, line, "average_rank") for line in average.index if average[line] != paper.average_rank[line]]
    assert differing == [entry for entry in DIFFERING if entry[0] == name]


def test_the_test_above_would_see_a_difference() -> None:
    """The paper's ties do share the better rank: any other way to rank them gives other numbers."""
    scores = TABLES[BASE_MODELS[0]].scores
    dense = scores.rank(method="dense", ascending=False).astype(int)
    assert not dense.equals(ranks(scores))


def test_ranks_by_hand() -> None:
    """3, 1, 3, 2: two firsts, then the third and the fourth; where lower is better, 1 is first."""
    scores = pd.DataFrame({"up": [3.0, 1.0, 3.0, 2.0], "down": [3.0, 1.0, 3.0, 2.0]}, index=list("abcd"))
    found = ranks(scores, lower_is_better=["down"])
    assert found["up"].tolist() == [1, 4, 1, 3]
    assert found["down"].tolist() == [3, 1, 3, 2]
    assert average_rank(found).tolist() == [2.0, 2.5, 2.0, 2.5]
    assert average_rank(pd.DataFrame([[4] * 7 + [5]])).tolist() == [4.13], "4.125 is rounded up"
    with pytest.raises(ValueError, match="lower_is_better must be of up, down, got 'length'"):
        ranks(scores, lower_is_better=["length"])
    with pytest.raises(ValueError, match="scores must be a number for every line and column, got none of up"):
        ranks(scores.replace({"up": {1.0: np.nan}}))


def test_the_papers_numbers_as_it_prints_them() -> None:
    table = shown(TABLES["Gemma-2-9b-it"])
    assert table.loc["BNF"].tolist() == [
        "1186 (1)", "53.2 (2)", "77.5 (1)", "80.8 (2)", "88.0 (2)", "21.8 (1)", "45.3 (1)", "72.7 (2)", "1.50",
    ]  # fmt: skip


def test_average_rank_intervals() -> None:
    """a is best in every sample of both metrics; b and c take turns, so each is second or third. With b and c changed
    over in a second metric each is second once and third once in every sample."""
    sure = pd.DataFrame({"a": [1.0] * 40, "b": [0.5, 0.0] * 20, "c": [0.0, 0.5] * 20})
    found = average_rank_intervals({"one": sure, "two": sure})
    assert found.loc["a"].tolist() == [1.0, 1.0]
    assert found.loc["b"].tolist() == [2.0, 3.0]
    opposed = average_rank_intervals({"one": sure, "two": sure.rename(columns={"b": "c", "c": "b"})})
    assert opposed.loc["b"].tolist() == [2.5, 2.5]
    turned = average_rank_intervals({"one": sure, "two": sure}, lower_is_better=["one", "two"])
    assert turned.loc["a"].tolist() == [3.0, 3.0]
    with pytest.raises(
        ValueError, match=r"means must be of the same methods in all metrics \(a, b, c\), got others in 'two'"
    ):
        average_rank_intervals({"one": sure, "two": sure[["a"]]})
    with pytest.raises(ValueError, match="metric 'two': samples must be 40, as the first has, got 39"):
        average_rank_intervals({"one": sure, "two": sure.iloc[1:]})


def test_equal_methods_share_a_rank_in_every_draw() -> None:
    """0.1 added up in two orders differs in the last bit: that is no difference in rank."""
    rng = np.random.default_rng(0)
    values = rng.uniform(size=101)
    twins = pd.DataFrame({"a": values, "b": values})
    assert average_rank_intervals({"m": twins}).to_numpy().tolist() == [[1.0, 1.0], [1.0, 1.0]]


OURS = pd.DataFrame(
    [
        ("Base", "verified", 0.40, 0.30, 0.50),
        ("BNF", "verified", 0.70, 0.60, 0.80),
        ("NLL+PLL", "verified", 0.10, 0.05, 0.20),
        ("Base", "length", 30.0, 28.0, 32.0),
        ("BNF", "length", 25.0, 24.0, 26.0),
        ("NLL+PLL", "length", 25.0, 20.0, 30.0),
    ],
    columns=["method", "metric", "score", "low", "high"],
)


def test_ours_beside_the_papers() -> None:
    paper: PrintedScores = TABLES["Gemma-2-9b-it"]
    intervals = pd.DataFrame({"low": [2.0, 1.0, 2.0], "high": [3.0, 1.0, 3.0]}, index=["Base", "BNF", "NLL+PLL"])
    table = beside_paper(OURS, paper, lower_is_better=["length"], rank_intervals=intervals)
    assert list(table.index) == ["Base", "DPO", "SimPO", "BNF", "NLL+PLL"]
    assert table.loc["BNF", "ours"].tolist() == [
        "0.70 [0.60, 0.80] (1)",
        "25.00 [24.00, 26.00] (1)",
        "1.00 [1.00, 1.00]",
    ]
    assert table.loc["NLL+PLL", ("ours", "Average rank")] == "2.00 [2.00, 3.00]", "third and first"
    assert table.loc["BNF", ("paper", METRICS["wildbench_elo"])] == "1186 (1)"
    assert set(table.loc["DPO", "ours"]) == {"-"}
    assert set(table.loc["NLL+PLL", "paper"]) == {"-"}
    assert beside_paper(OURS, paper).loc["Base", ("ours", "Average rank")] == "1.50"
    with pytest.raises(ValueError, match="ours must be one score of each metric, got verified of Base twice"):
        beside_paper(pd.concat([OURS, OURS.head(1)]), paper)
    with pytest.raises(ValueError, match="scores must be a number for every line and column, got none of length"):
        beside_paper(OURS.iloc[:-1], paper)
