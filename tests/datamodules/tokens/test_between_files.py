"""Rows of several files: which of them are there twice, and which with another label."""

import numpy as np
import pytest

from lightning_bnf.datamodules.tokens import between_files as module
from lightning_bnf.datamodules.tokens.between_files import between_files, contradicted_rows, repeated_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow


def row(number: int) -> TokenizedRow:
    return TokenizedRow(str(number), f"file:{number}", "prompt", [7])


def answer(place: str, label: int, ids: list[int], prompt: list[int] | None = None) -> TokenizedRow:
    completion = TokenizedCompletion(ids, [True] * len(ids), label)
    return TokenizedRow(place, place, "unpaired", prompt or [7], (completion,))


def pair(place: str, chosen: list[int], rejected: list[int]) -> TokenizedRow:
    completions = (TokenizedCompletion(chosen, [True], 1), TokenizedCompletion(rejected, [True], -1))
    return TokenizedRow(place, place, "paired", [7], completions)


def test_rows_that_repeat_those_of_earlier_files_are_named() -> None:
    first, second = [row(1), row(2), row(2)], [row(3), row(2)]
    assert repeated_rows([first, second]) == ["file:2"]
    assert repeated_rows([first, first]) == ["file:1", "file:2", "file:2"]
    assert repeated_rows([first]) == [], "those within a file are in its own report"


def test_answers_with_the_other_label_in_an_earlier_file_are_named() -> None:
    good = [answer("good:1", 1, [3, 4]), answer("good:2", 1, [5])]
    bad = [answer("bad:1", -1, [6]), answer("bad:2", -1, [5]), answer("bad:3", -1, [3, 4], prompt=[8])]
    assert contradicted_rows([good, bad]) == ["bad:2"], "the same answer after another prompt is another row"
    assert contradicted_rows([bad, good]) == ["good:2"]
    assert contradicted_rows([good, bad, [answer("more:1", 1, [6]), answer("more:2", 1, [5])]]) == [
        "bad:2",
        "more:1",
        "more:2",
    ]
    assert contradicted_rows([good + bad]) == [], "those within a file are in its own report"
    assert contradicted_rows([good, []]) == []
    assert contradicted_rows([good, [pair("pairs:1", [9], [5])]]) == [], "the sides of pairs are relative"


def test_rows_are_not_hashed_where_all_have_one_label(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "content_keys", None)
    assert contradicted_rows([[answer("a:1", 1, [3])], [answer("b:1", 1, [3])]]) == []


def test_contradictions_are_those_that_a_search_finds() -> None:
    draw = np.random.default_rng(5)
    parts = [
        [
            answer(f"{part}:{i}", int(draw.choice([-1, 1])), draw.integers(3, 6, 2).tolist(), [int(draw.integers(2))])
            for i in range(30)
        ]
        for part in range(3)
    ]
    searched = [
        row.source
        for part, rows in enumerate(parts)
        for row in rows
        if any(
            (row.prompt_ids, row.completions[0].ids) == (other.prompt_ids, other.completions[0].ids)
            and row.completions[0].label != other.completions[0].label
            for before in parts[:part]
            for other in before
        )
    ]
    assert len(searched) > 20
    assert contradicted_rows(parts) == searched


def test_sentences_name_what_is_between_files() -> None:
    good, bad = [answer("good:1", 1, [5])], [answer("bad:1", -1, [5])]
    assert between_files([good, bad], [{}, {"-1": "bad:1"}]) == [
        "WARNING: 1 rows hold an answer that has the other label in an earlier file (kept): bad:1"
    ]
    votes: list[dict[str, str]] = [{"0": "a:3"}, {}, {"-1": "c:2"}, {"0": "d:1"}]
    (told,) = between_files([good], votes)
    assert "0 in one file (first at a:3) and -1 in another (first at c:2)" in told
    assert between_files([good, good], [{"0": "a:1"}, {"0": "b:1"}]) == [
        "1 rows repeat one of an earlier file (kept): good:1"
    ]
