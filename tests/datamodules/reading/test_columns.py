"""Columns beside the texts: what is optional, and null."""

import json

from support.rows import GOOD, only, refused
from support.training import Write


def test_optional_columns(write: Write) -> None:
    check = {"name": "number", "answer": 7, "unit": None}
    row = only(write(GOOD | {"verifier": check, "score_chosen": 1, "score_rejected": -0.5, "prompt_id": 3}))
    assert row.verifier == check  # as given, nulls and all
    assert [completion.numbers["reward"] for completion in row.completions] == [1.0, -0.5]
    assert row.prompt_id == "3"
    assert only(write(GOOD | {"verifier": json.dumps(check)})).verifier == check
    scored = {"prompt": "Q", "completion": "A", "label": True, "score": 0.25}
    assert only(write(scored)).completions[0].numbers == {"reward": 0.25}


def test_null_is_absent(write: Write) -> None:
    assert only(write(GOOD | {"family": None, "kept_out": None, "verifier": None})).kept_out is False


def test_whole_numbers_beyond_a_float_are_refused(write: Write) -> None:
    path = write(GOOD | {"score_chosen": 10**400})
    refused(path, "train.jsonl:1: column 'score_chosen' must be a finite number, got 1000")
