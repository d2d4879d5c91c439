"""The report printed before training: what a user reads of the data."""

import copy
import json
from typing import Any

import pytest

from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.report import Lengths, Report, ReportText, lengths, marked


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def test_lengths() -> None:
    # Quantiles are lengths that occur: of 1 ... 100, 51 and 96 are the first with more than 50 % and 95 % below them.
    assert lengths(list(range(1, 101))) == Lengths(p50=51, p95=96, max=100)
    assert lengths([7]) == Lengths(7, 7, 7)
    assert lengths([]) is None


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([1, 1, 1, 1], "⟦a b c d⟧"),
        ([0, 1, 1, 0], "a⟦ b c⟧ d"),
        ([1, 0, 0, 1], "⟦a⟧ b c⟦ d⟧"),
        ([0, 0, 0, 0], "a b c d"),
    ],
)
def test_trained_tokens_are_marked(tokenizer: Any, mask: list[int], expected: str) -> None:
    tokens = ids(tokenizer, "a b c d")
    assert len(tokens) == 4
    assert marked(TokenizedCompletion(tokens, [bool(m) for m in mask], 1), tokenizer) == expected


def test_text(tokenizer: Any) -> None:
    sample = TokenizedRow(
        id="0" * 16,
        source="train.jsonl:3",
        format="paired",
        prompt_ids=ids(tokenizer, "3 + 4 ="),
        completions=tuple(
            TokenizedCompletion(ids(tokenizer, text), [True] * len(ids(tokenizer, text)), label)
            for text, label in ((" 7<|im_end|>", 1), (" 8<|im_end|>", -1))
        ),
    )
    report = Report(
        path="train.jsonl",
        format="paired",
        conversational=False,
        read=1200,
        kept=1190,
        dropped={"longer than max_length": 9, "end-of-turn token inside an answer": 1},
        trimmed=2,
        ignored=("length", "a\x1bb"),
        repeated=tuple(f"train.jsonl:{line}" for line in (5, 6, 8, 9)),
        contradicted=("train.jsonl:7",),
        labels={("'up'", True): 1000, ("'down'", False): 190},
        dropped_at=("train.jsonl:4", "train.jsonl:7"),
        notes=("a note",),
        prompt_lengths=Lengths(5, 20, 100),
        completion_lengths=Lengths(50, 200, 1000),
        row_lengths=Lengths(60, 220, 1010),
        samples=(sample,),
    )
    assert report.texts(tokenizer).full.splitlines() == [
        "train.jsonl: 1,190 rows, format paired (plain strings)",
        "  labels: 'up' +1 (1,000), 'down' -1 (190)",
        "  a note",
        "  dropped 10 of 1,200 rows (longer than max_length: 9, end-of-turn token inside an answer: 1): train.jsonl:4,"
        " train.jsonl:7",
        "  trimmed 2 of 1,200 rows to the length limits",
        "  4 rows repeat an earlier one (kept): train.jsonl:5, train.jsonl:6, train.jsonl:8 and 1 more",
        "  1 answers are labelled both +1 and -1 (kept): train.jsonl:7",
        "  columns not used: length, a\\x1bb",
        "  prompt tokens:     p50     5  p95    20  max   100",
        "  completion tokens: p50    50  p95   200  max  1000",
        "  together tokens:   p50    60  p95   220  max  1010",
        "  a sample (trained tokens between ⟦ and ⟧):",
        "  train.jsonl:3",
        "    prompt    '3 + 4 ='",
        "    label +1  '⟦ 7<|im_end|>⟧'",
        "    label -1  '⟦ 8<|im_end|>⟧'",
    ]
    assert "sample" not in report.head()


def test_what_is_not_there_is_not_reported() -> None:
    report = Report(path="p.jsonl", format="prompt", read=2, kept=2, prompt_lengths=Lengths(1, 2, 3))
    assert report.head().splitlines() == [
        "p.jsonl: 2 rows, format prompt (messages)",
        "  prompt tokens:     p50     1  p95     2  max     3",
    ]


def test_long_samples_show_both_ends(tokenizer: Any) -> None:
    sample = TokenizedRow("0" * 16, "x:1", "prompt", ids(tokenizer, "start" + " word" * 500 + " end"))
    text = Report(path="x", format="prompt", read=1, kept=1, samples=(sample,)).texts(tokenizer).full
    assert "'start word" in text
    assert "[...]" in text
    assert "word end'" in text
    assert len(text) < 500


def test_what_is_printed_fits_a_screen(tokenizer: Any) -> None:
    """Everything that a file can have said of it, with long texts and many answers: 25 lines of 80 characters."""
    long = ids(tokenizer, "start" + " word" * 500 + " end")
    completions = tuple(TokenizedCompletion(long, [True] * len(long), 1) for _ in range(9))
    row = TokenizedRow("0" * 16, "x:1", "grouped", long, completions)
    some = Lengths(1, 2, 3)
    report = Report(
        path="x",
        format="grouped",
        read=9,
        kept=4,
        strings="as they are",
        dropped={"longer than max_length": 5},
        trimmed=1,
        ignored=("a", "b"),
        repeated=("x:2",),
        contradicted=("x:3",),
        prompt_lengths=some,
        completion_lengths=some,
        row_lengths=some,
        samples=(row, row, row),
    )
    texts = report.texts(tokenizer)
    assert sum(-(-len(line) // 80) for line in texts.short.splitlines()) <= 25
    assert "    and 6 more" in texts.short
    assert (texts.short.count("label +1"), texts.full.count("label +1")) == (3, 27)


def test_reports_can_be_copied_and_stored() -> None:
    """Of a data module that is copied; the store of rows writes them as JSON."""
    text = ReportText("head", votes={"0": "rows.jsonl:1"})
    for one in (text, ReportText("head")):
        assert copy.deepcopy(one) == one
        assert ReportText(**json.loads(json.dumps(one._asdict()))) == one
