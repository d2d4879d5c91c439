"""From a path or a hub id to raw records: every kind of file, and every broken one."""

import json
import os
from pathlib import Path

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from support.rows import GOOD, answers, assistant, refused, user
from support.training import Write

from lightning_bnf.datamodules.reading.records import read_rows


def test_sources_count_blank_lines_and_survive_byte_order_marks(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n\r\n  \n" + json.dumps(GOOD).encode())
    assert [row.source for row in read_rows(str(path))] == [f"{path}:1", f"{path}:4"]


def test_parquet_equals_jsonl(write: Write, tmp_path: Path) -> None:
    rows = [GOOD | {"verifier": json.dumps({"name": "number"}), "kept_out": False}, GOOD | {"prompt": [user("R")]}]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    here, there = read_rows(write(*rows)), read_rows(str(path))
    assert [(row.id, row.verifier) for row in here] == [(row.id, row.verifier) for row in there]
    assert [row.source for row in there] == [f"{path}:1", f"{path}:2"]


def test_parquet_objects_have_the_keys_they_were_written_with(tmp_path: Path) -> None:
    """In a table, every verifier has all verifiers' arguments, null where it has none."""
    verifiers = [{"name": "number", "answer": 7}, {"name": "keywords", "words": ["a"]}]
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([GOOD | {"verifier": v} for v in verifiers]), path)
    assert [row.verifier for row in read_rows(str(path))] == verifiers


def test_a_dataset_folder_is_read_as_hub_data_is(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "data"
    folder.mkdir()
    write(GOOD, GOOD, name="data/train.jsonl")
    write(GOOD, name="data/test.jsonl")
    rows = read_rows(str(folder), split="train")
    assert [row.source for row in rows] == [f"{folder}[train]:1", f"{folder}[train]:2"]
    assert answers(rows[0]) == [([assistant("7")], 1), ([assistant("8")], -1)]
    refused(str(folder), "split must be one of train, test, got none", f"behind the name: {folder}:train")
    refused(str(folder), "trian", "it must be a .jsonl, .json, .csv or .tsv file", split="trian")


def test_a_folder_of_several_kinds_of_files_is_refused_with_their_names(write: Write, tmp_path: Path) -> None:
    """`datasets` would read those of one kind alone."""
    (tmp_path / "data").mkdir()
    write(GOOD, name="data/a.jsonl")
    (tmp_path / "data/b.csv").write_text("prompt,chosen,rejected\nQ,A,B\n")
    (tmp_path / "data/README.md").write_text("")
    folder = str(tmp_path / "data")
    refused(folder, "must be a folder of data files of one kind, got several", f"{folder}/a.jsonl, {folder}/b.csv")


def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.jsonl")
    refused(str(tmp_path / "train.jsonl"), "got a named pipe, socket or device")


def test_whatever_goes_wrong_while_reading_is_a_refusal(tmp_path: Path) -> None:
    refused(f"{tmp_path}/{'x' * 300}.jsonl", "must be data that can be read, got OSError", "File name too long")


def test_hub_ids_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that answers, and does not have them."""
    monkeypatch.setattr("lightning_bnf.runtime.hub.unreachable", lambda endpoint: None)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    refused("nobody/has-this", "nobody/has-this", "as a hub id", "it must be a .jsonl, .json, .csv or .tsv file")


def test_a_misspelled_ending_is_no_hub_id(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    write(GOOD, name="train.jsonl")
    refused("train.jsnl", "no such file or folder", "did you mean 'train.jsonl'?")


def test_missing_file_names_the_nearest(write: Write, tmp_path: Path) -> None:
    write(GOOD, name="train_pairs.jsonl")
    refused(
        str(tmp_path / "trian_pairs.jsonl"), "trian_pairs.jsonl", "no such file", "did you mean", "train_pairs.jsonl"
    )
    refused(str(tmp_path / "nowhere" / "x.jsonl"), "no such file", "no folder")
    refused("./nothing-here", "./nothing-here", "no such file")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    for content in ("", "\n \n"):
        path.write_text(content)
        refused(str(path), "train.jsonl: must be at least one row, got an empty file")
    table = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pydict({"prompt": pyarrow.array([], pyarrow.string())}), table)
    refused(str(table), "train.parquet: must be at least one row, got an empty file")


def test_other_kinds_of_files(tmp_path: Path) -> None:
    for name, content, expected in (
        ("train.xlsx", b"PK", "'.xlsx'"),
        ("train.parquet.gz", b"PK", "'.parquet.gz'"),
        ("train.pkl", b"\x80\x04.", "'.pkl'"),
        ("train.parquet", b"PAR0", "must be a Parquet file that can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        refused(str(tmp_path / name), name, expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"prompt": "Q"', "broken JSON"),
        ("{'prompt': 'Q'}", "broken JSON"),
        ('{"prompt": -Infinity}', "-Infinity is not JSON"),
        ("[" * 100_000, "broken JSON"),
        ('["Q"]', "got a list"),
        ('"Q"', "got a string"),
        ("7", "got a number"),
        ("null", "got null"),
    ],
)
def test_lines_that_are_no_objects(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(json.dumps(GOOD) + "\n" + line + "\n")
    refused(str(path), "train.jsonl:2:", expected, "must be one JSON object on each line, got ")


def test_not_utf8_names_line_and_byte(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(b'{"prompt": "Q"}\n{"prompt": "caf\xe9"}\n')
    # 16 bytes before the line; the byte stands behind {"prompt": "caf, which are 15.
    refused(str(path), "train.jsonl:2:", "b'\\xe9'", "byte offset 31", "byte 15 of the line", "UTF-8")


@pytest.mark.parametrize("name", ["json", "csv", "parquet", "text", "imagefolder", "squad", "mine"])
def test_a_bare_word_is_no_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`json` is the name of a loader, which would read whatever JSON lies in the working folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "stray.json").write_text(json.dumps([GOOD]))
    refused(name, f"{name}: there is no such file or folder, and no owner/name of a hub id")


def test_a_folder_with_a_loaders_name_is_that_folder(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json").mkdir()
    (tmp_path / "stray.json").write_text(json.dumps({"no": "data"}))
    write(GOOD, name="json/train.jsonl")
    assert [row.source for row in read_rows("json")] == ["json[train]:1"]


def test_split_of_a_single_file(write: Write) -> None:
    refused(
        write(GOOD), "train.jsonl", "split must be null for a single file, which has none, got 'train'", split="train"
    )
