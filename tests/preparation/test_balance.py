"""Unpaired rows of a stated balance."""

import json
from collections import Counter
from pathlib import Path

import pytest

from lightning_bnf.datamodules.reading.streams import Opened
from lightning_bnf.preparation.balance import balanced
from lightning_bnf.runtime.refusal import Refusal

FOLDER = Path(__file__).parents[2] / "data/unpaired"


def row(prompt: int, family: str, label: bool) -> dict:
    return {"prompt_id": str(prompt), "family": family, "label": label}


def test_each_prompt_gives_one_row_and_each_family_its_share():
    """Eight prompts with both answers, six of them of a: of two preferred rows one and a half are a's."""
    rows = [row(i, "a" if i < 6 else "b", label) for i in range(8) for label in (True, False)]
    found = balanced(rows, 2, 4)
    assert Counter(one["label"] for one in found) == {True: 2, False: 4}
    assert len({one["prompt_id"] for one in found}) == 6
    assert 3 <= sum(one["family"] == "a" for one in found) <= 5
    with pytest.raises(Refusal, match="dispreferred must be at most 4 here, got 5"):
        balanced(rows, 4, 5)


@pytest.mark.parametrize(("name", "preferred"), [("1_to_1", 256), ("1_to_4", 102), ("4_to_1", 410)])
def test_the_stored_files_are_what_they_are_called(name, preferred):
    path = FOLDER / f"{name}.jsonl.gz"
    with Opened(str(path), path) as stream:
        rows = [json.loads(line) for line in stream]
    assert Counter(one["label"] for one in rows) == {True: preferred, False: 512 - preferred}
    assert len({one["prompt_id"] for one in rows}) == 512
