"""Our side of Tables 1 and 3, by hand."""

from typing import Any

import pytest

from lightning_bnf.generation.questions import Question
from lightning_bnf.reproduction.tables_1_and_3 import VERIFIERS, question_statistics, verifiers_elo
from lightning_bnf.runtime.refusal import Refusal


def run(scores: list[float], names: str = "abcd") -> list[dict[str, Any]]:
    greedy = [
        {"prompt_id": name, "decoding": "greedy", "score": score, "text": "x" * 9}
        for name, score in zip(names, scores, strict=True)
    ]
    sampled = [{"prompt_id": "a", "decoding": "sampled", "score": 1.0, "text": ""}]
    return [{"results": {"scores": {"test": greedy + sampled}}}]


def test_elo_by_verifiers() -> None:
    """Good beats Base on each of four prompts, by about 4 (1 - 1/2) = 2 each; what is worse by less than 2 of 10 is a
    tie: 0.8 against 1 is 1.8."""
    found = verifiers_elo({"Base": run([0.0] * 4), "Good": run([1.0] * 4)})
    assert list(found.index) == ["Good", "Base"]
    assert found.loc["Good", "elo"] == pytest.approx(1008, abs=0.2)
    assert (found.loc["Good", "n"], found.loc["Good", "judge"]) == (4, VERIFIERS)
    tied = verifiers_elo({"Base": run([0.8] * 4), "Good": run([1.0] * 4)})
    assert tied["elo"].tolist() == [1000, 1000]
    with pytest.raises(Refusal, match="runs must be scored on the same prompts, got others of some methods"):
        verifiers_elo({"Base": run([0.0] * 4), "Good": run([1.0] * 4, "abce")})


def test_statistics_of_questions() -> None:
    """Queries of 2 and 4 characters; the second one's prompt has 3 and 5 more of the turns before."""

    def asked(*texts: str) -> Question:
        roles = ("user", "assistant", "user")[-len(texts) :] if len(texts) == 3 else ("user",)
        return Question("q", tuple({"role": role, "content": text} for role, text in zip(roles, texts)), {})  # type: ignore[misc]

    found = question_statistics({"one": [asked("ab")], "two": [asked("ab"), asked("abc", "abcde", "abcd")]})
    assert found.loc["one"].tolist() == [1, "1", "no", 2, 2]
    assert found.loc["two"].tolist() == [2, "<=2", "yes", 3, 7]
    with pytest.raises(Refusal, match="files must hold one question or more each, got none of three"):
        question_statistics({"three": []})
