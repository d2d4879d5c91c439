"""Large files, read row by row: the same rows and report as of all at once, and nothing is stored of faulty ones."""

import gzip
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from support import forked
from support.rows import assistant, user
from support.streamed_load import load_until_told

from lightning_bnf.datamodules.reading import files
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens import stored, streamed
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.stored import StoredRows, load_stored
from lightning_bnf.runtime import pools

ROWS = [
    {"prompt": [user(f"{i} + {i}?")], "chosen": [assistant(f"{2 * i}")], "rejected": [assistant(f"{2 * i + 1}!")]}
    for i in range(1300)
]
ROWS[700] = ROWS[3]
ROWS[1200] = {**ROWS[1200], "rejected": [assistant("word " * 200)], "late": 1}
OPTIONS = DataOptions(max_length=120, processes=1)


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "STREAMED_FROM", 0)
    monkeypatch.setattr(stored, "cache_folder", lambda: tmp_path / "cache")


@pytest.fixture
def forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that have imported everything, as in `support.forked`: what starts one in a run is tested of pools."""
    forked.serve()
    monkeypatch.setattr(pools, "START", "forkserver")


def lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.parquet"])
def test_rows_and_report_are_those_of_a_file_that_is_read_at_once(tmp_path: Path, tokenizer: Any, name: str) -> None:
    path = tmp_path / name
    if name.endswith("parquet"):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=300)
    else:
        path.write_bytes(gzip.compress(lines(ROWS)) if name.endswith("gz") else lines(ROWS))
    wanted, report = load_rows(str(path), tokenizer, OPTIONS)
    found, texts = load_stored(str(path), tokenizer, OPTIONS, ())
    assert isinstance(found, StoredRows)
    assert list(found) == wanted
    assert texts == report.texts(tokenizer)
    assert "dropped 1 of 1,300 rows" in texts.head
    assert "1 rows repeat an earlier one" in texts.head
    again, texts_again = load_stored(str(path), tokenizer, OPTIONS, ())
    assert (list(again), texts_again) == (wanted, texts), "and opened as any other"


def test_answers_with_both_labels_are_counted_over_all_parts(tmp_path: Path, tokenizer: Any) -> None:
    """10 of 800 answers come again some parts later with the other label."""
    rows = [{"prompt": f"Q{i % 800}", "completion": "A", "label": i < 800} for i in range(810)]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(rows))
    _, report = load_rows(str(path), tokenizer, OPTIONS)
    _, texts = load_stored(str(path), tokenizer, OPTIONS, ())
    assert texts == report.texts(tokenizer)
    assert f"  10 answers are labelled both +1 and -1 (kept): {path}:801, " in texts.head


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (lines(ROWS[:600]) + b'{"prompt": 7}\n', r"rows\.jsonl:601: column 'chosen' must be given in every row"),
        (lines(ROWS[:600]) + b'{"prompt"\n', r"rows\.jsonl:601: must be one JSON object on each line"),
        (
            lines([{"prompt": f"{i}", "completion": "A", "label": [1, 0, -1][i // 300]} for i in range(900)]),
            r"got both: 0 \(first at \S*rows\.jsonl:301\) and -1 \(first at \S*rows\.jsonl:601\)",
        ),
        (lines(ROWS[1200:1201]), "dropped rows must be at most allow_drop"),
        (b"", "must be at least one row, got an empty file"),
    ],
)
@pytest.mark.parametrize("processes", [1, 2])
def test_of_a_faulty_file_nothing_is_stored(
    tmp_path: Path, tokenizer: Any, content: bytes, sentence: str, processes: int, forks: None
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        load_stored(str(path), tokenizer, replace(OPTIONS, allow_drop=0, processes=processes), ())
    assert not [*(tmp_path / "cache").rglob("*.*")]


def test_however_many_processes_the_bytes_are_the_same(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch, forks: None
) -> None:
    monkeypatch.setattr(streamed, "AT_ONCE", 100)
    rows = [*ROWS, {"prompt": "one", "chosen": "two", "rejected": "three", "prompt_id": "<|im_end|>", "other": 1}]
    rows[40] = {**rows[40], "chosen": [{**assistant("<|im_start|> "), "name": "x"}]}
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines(rows))
    texts, stored = [], []
    for processes in (1, 2, 3):
        options = replace(OPTIONS, processes=processes)
        texts.append(load_stored(str(path), tokenizer, options, ())[1])
        (arrow,) = (tmp_path / "cache/tokens").glob("*.arrow")
        stored.append(arrow.read_bytes())
        arrow.unlink()
    assert stored[0] == stored[1] == stored[2]
    assert texts[0] == texts[1] == texts[2]
    for word in (
        "control tokens",
        "columns not used: late, other, chosen[].name",
        "repeat an earlier one",
        "dropped 1",
    ):
        assert word in texts[0].head


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_told_to_end_in_the_middle_it_leaves_nothing_that_counts(
    tmp_path: Path, tokenizer: Any, number: signal.Signals, forks: None
) -> None:
    path, cache = tmp_path / "rows.jsonl", tmp_path / "cache"
    path.write_bytes(lines(ROWS[:400]))
    process = forked.process(load_until_told, str(path), str(cache), tokenizer, OPTIONS)
    process.start()
    while not (cache / "middle").exists():
        assert process.is_alive()
        process.join(0.05)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == {signal.SIGKILL: -9, signal.SIGINT: 1, signal.SIGTERM: 143}[number]
    assert not [*cache.rglob("*.arrow"), *cache.rglob("*.json")]
    assert bool([*(cache / "tokens").iterdir()]) == (number == signal.SIGKILL), (
        "of which a hidden, unfinished file is left"
    )
    found, _ = load_stored(str(path), tokenizer, OPTIONS, ())
    assert list(found) == load_rows(str(path), tokenizer, OPTIONS)[0]
