"""What one of several processes makes of some records."""

import pickle
import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest
from support.rows import assistant, user

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.datamodules.tokens.load import Tally
from lightning_bnf.datamodules.tokens.tokenizing import Tokenizing

PAIR = {"prompt": [user("1 + 1?")], "chosen": [assistant("2")], "rejected": [assistant("3!")]}
ROWS = [PAIR, {**PAIR, "chosen": 7}, {**PAIR, "chosen": [assistant("word " * 200)]}, {**PAIR, "chosen": None}, PAIR]
RECORDS = [RawRecord(f"rows:{number}", values) for number, values in enumerate(ROWS, 1)]


def test_what_becomes_of_each_record(tokenizer: Any) -> None:
    """Of five two are kept, one has a fault, one is too long, and one lacks an answer."""
    work = Tokenizing("rows", PAIR, tokenizer, DataOptions(max_length=100), ())
    work, found = pickle.loads(pickle.dumps((work, work(RECORDS))))  # noqa: S301 - as between processes
    assert found.records == 5
    assert found.batch.column("source").to_pylist() == ["rows:1", "rows:5"]
    assert found.sources == ("rows:1", "rows:3", "rows:5")
    assert found.ids[0] == found.ids[2] != found.ids[1]
    assert [(place, reason.rule) for place, reason in found.tally.unfit] == [
        ("rows:4", "an empty or blank text"),
        ("rows:3", "longer than max_length"),
    ]
    assert (found.tally.kept, len(found.tally.prompts), len(found.tally.completions)) == (2, 2, 4)
    with pytest.raises(DataError, match=r"^rows:2: "):
        found.tally.faults.raise_if_any()
    again = work(RECORDS)
    assert again.batch == found.batch
    assert (again.labels, again.keys) == (found.labels, found.keys), "a reader of its own for each"


def test_tallies_of_parts_add_up_to_that_of_the_whole(tokenizer: Any) -> None:
    work = Tokenizing("rows", PAIR, tokenizer, DataOptions(max_length=100), ())
    whole, sums = work(RECORDS).tally, Tally()
    for record in [*RECORDS[:2], RECORDS[3], RECORDS[2], RECORDS[4]]:  # readers' faults come before renderers'
        sums.add(work([record]).tally)
    for field in fields(Tally):
        one, other = getattr(whole, field.name), getattr(sums, field.name)
        if field.name == "unfit":
            one, other = ([(place, str(reason)) for place, reason in held] for held in (one, other))
        assert vars(one) == vars(other) if field.name == "faults" else one == other, field.name


def test_it_needs_no_torch() -> None:
    """Which would take 0.2 GB and two seconds in each process."""
    words = "import sys, lightning_bnf.datamodules.tokens.tokenizing; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0
