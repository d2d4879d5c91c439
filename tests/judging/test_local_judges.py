"""Judges in process: a scorer's ties by margin, and a tiny model's verdict by two tokens in both orders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from support.judges import judge, stored

from lightning_bnf.judging.command import judge as verb
from lightning_bnf.judging.local_judges import TokenJudge
from lightning_bnf.preparation.scoring import Candidates, Scorer

pytestmark = pytest.mark.slow


class Lengths(Scorer):
    """Scores an answer by its length; none of those over 20 characters."""

    def __repr__(self) -> str:
        return "Lengths()"

    def score(self, groups: Sequence[Candidates], work_file: Path) -> list[list[float | None]]:
        return [[float(len(text)) if len(text) <= 20 else None for text in one.completions] for one in groups]


def test_a_scorer_is_asked_once_a_pair_and_ties_by_margin(sides: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    """bad is shorter by ten than good and long, and is tied with it within ten."""
    verb("arena_hard_v0.1", sides[0], tmp_path / "out", sides[1], scorer=Lengths())
    held = {line["question"]: (line["verdict"], line["reason"]) for line in stored(tmp_path / "out")}
    assert (held["q0"], held["q1"]) == (("A>B", None), ("B>A", None)), "the baseline is A"
    assert held["q8"] == (None, "an answer too long for the scorer")
    assert len(held) == len(stored(tmp_path / "out")) == 12
    assert "8 verdicts; 4 without: an answer too long for the scorer" in capsys.readouterr().out
    verb("arena_hard_v0.1", sides[0], tmp_path / "tied", sides[1], scorer=Lengths(), tie_margin=10)
    assert {line["verdict"] for line in stored(tmp_path / "tied")} == {"A=B", None}


def test_a_model_gives_a_verdict_on_every_game_in_both_orders(
    sides: tuple[str, str], tmp_path: Path, tiny_folder: str
) -> None:
    judge(sides, tmp_path / "out", "--source", tiny_folder)
    found = stored(tmp_path / "out")
    assert len(found) == 24
    for line in found:
        p = float(line["text"].split()[1])
        assert line["verdict"] == ("A>B" if p > 0.5 else "B>A")
        assert line["preference"] == pytest.approx(1 + (p if line["first"] else 1 - p), abs=1e-6)
    judge(sides, tmp_path / "tied", "--source", tiny_folder, "--tie_margin", "0.5")
    assert {line["verdict"] for line in stored(tmp_path / "tied")} == {"A=B"}


def test_the_probability_is_the_softmax_of_both_logits(tiny_folder: str) -> None:
    found = TokenJudge(tiny_folder, ("A", "B"))
    messages = [{"role": "user", "content": "A or B?"}]
    ids = torch.tensor([found.renderer.prompt_ids(tuple(messages))])  # type: ignore[arg-type]
    a, b = found.model(input_ids=ids).logits[0, -1][found.ids].double().exp().tolist()

    assert found.probability(messages) == pytest.approx(a / (a + b), rel=1e-4)  # type: ignore[arg-type]
    assert found.probability([{"role": "user", "content": "A " * found.longest}]) is None
    with pytest.raises(ValueError, match="tokens must be two words of one token each"):
        TokenJudge(tiny_folder, ("A", "A"))
