"""The token view's numbers and texts, and how many of them a page takes."""

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from support.page_runs import FIFTH, HALF, QUARTER, ROWS, row, snapshot

from lightning_bnf.pages.scores import Answer, ShownRow
from lightning_bnf.pages.tokens import (
    MOST_OF_AN_ANSWER,
    MOST_TOKENS,
    NOT_SCORED,
    RunScores,
    fitting,
    log_odds,
    script_json,
    shorten,
    spread,
    token_data,
    weights,
)


def numbers(text: str, kind: str) -> list[int]:
    return np.frombuffer(base64.b64decode(text), kind).tolist()


def test_log_odds_by_hand() -> None:
    # odds(1/2) = 1, odds(1/4) = 1/3, odds(1/5) = 1/4
    assert log_odds([HALF, QUARTER, FIFTH]).tolist() == [0, -1099, -1386]
    assert log_odds([0.0, -1e9, None, 1e-7]).tolist() == [32767, -32767, NOT_SCORED, 32767]


def test_weights_by_hand() -> None:
    policy, reference = log_odds([FIFTH, HALF, HALF]), log_odds([HALF, FIFTH, HALF])
    assert weights(policy, reference) == pytest.approx([1 / 4, 1, 1], abs=1e-3)


def test_near_certainty_the_weight_is_still_right() -> None:
    # 0.999 against 0.9999: odds 999 against 9999
    policy, reference = log_odds([math.log(0.999)]), log_odds([math.log(0.9999)])
    assert weights(policy, reference) == pytest.approx([999 / 9999], rel=2e-3)


def test_tokens_that_are_not_trained_have_no_number() -> None:
    answer = Answer(1, ["a", "b", "c"], [False, True, True])
    assert spread(answer, [HALF, QUARTER]).tolist() == [NOT_SCORED, 0, -1099]


def test_the_data_of_a_page() -> None:
    snapshots = {"start": snapshot(ROWS, 0, HALF, HALF), "end": snapshot(ROWS, 2, HALF, FIFTH)}
    data = token_data(ROWS, [RunScores("run", "BNF", snapshots)], ("start", "middle", "end"))
    assert data["rows"][1]["prompt"] == "Name a colour."
    assert data["rows"][1]["answers"][1] == {
        "label": -1,
        "text": "A long answer\nof dogs",
        "tokens": 5,
        "left_out": 0,
    }
    assert numbers(data["lengths"], "<u2") == [2, 3, 1, 5, 1, 4, 1, 5, 7, 1, 7]
    (run,) = data["runs"]
    assert [(found["name"], found["step"]) for found in run["snapshots"]] == [("start", 0), ("end", 2)]
    assert numbers(run["snapshots"][1]["odds"], "<i2") == [0, 0, 0, -1386, -1386, 0, *[-1386] * 5]


def test_lengths_are_those_of_a_browser() -> None:
    data = token_data([row("a", "", ["\U0001f600", "\ud800", "é"], [])], [], ())
    assert numbers(data["lengths"], "<u2") == [2, 1, 1]


def test_a_long_answer_is_cut_and_says_so() -> None:
    data = token_data([row("a", "", ["x"] * (MOST_OF_AN_ANSWER + 7), ["y"])], [], ())
    assert data["rows"][0]["answers"][0]["tokens"] == MOST_OF_AN_ANSWER
    assert data["rows"][0]["answers"][0]["left_out"] == 7


def rows_of(count: int, tokens: int) -> list[ShownRow]:
    return [row(str(i), "p", ["word "] * (tokens // 2), ["word "] * (tokens // 2)) for i in range(count)]


def test_what_is_too_much_is_sampled_evenly() -> None:
    assert fitting(rows_of(3, 100)) == [0, 1, 2]
    rows = rows_of(300, 2000)  # 600,000 tokens
    kept = fitting(rows)
    assert 90 <= len(kept) <= MOST_TOKENS // 2000 == 110
    assert set(np.diff(kept)) <= {300 // len(kept), 300 // len(kept) + 1}
    assert len(fitting(rows, runs=4)) <= 27
    assert fitting([]) == []


def test_a_thousand_rows_of_a_hundred_tokens_a_side_are_all_shown_in_under_five_megabytes() -> None:
    generator = np.random.default_rng(1)
    rows = rows_of(1000, 200)
    values: Any = generator.normal(-1, 1, size=(1000, 2, 100)).clip(max=-1e-6).tolist()
    shot = snapshot(rows, 0, HALF, HALF)
    shots = {name: type(shot)(0, values) for name in ("start", "middle", "end")}
    assert len(fitting(rows)) == 1000
    text = script_json(token_data(rows, [RunScores("run", "BNF", shots)], ("start", "middle", "end")))
    assert len(text.encode()) < 4_500_000


def test_json_in_a_script_holds_no_markup_and_comes_back() -> None:
    value = {"a": "</script><img onerror=x>&<!--", "b": "\u2028\u2029\ud800\x00é"}
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text.encode()) == value


def test_long_texts_lose_their_middle() -> None:
    assert shorten("abc", 4) == "abc"
    assert shorten("a" * 10 + "b" * 10, 4) == "aa\n[... 16 characters ...]\nbb"
