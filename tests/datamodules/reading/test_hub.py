"""Folders that `save_to_disk` wrote; hub ids and folders of files are in test_files.py."""

from pathlib import Path

from datasets import Dataset, DatasetDict
from support.rows import GOOD, refused, user

from lightning_bnf.datamodules.reading.records import read_rows

OTHER = GOOD | {"prompt": [user("R")]}


def test_a_saved_dataset(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    Dataset.from_list([GOOD, OTHER]).save_to_disk(folder)
    assert [(row.source, row.prompt) for row in read_rows(folder)] == [
        (f"{folder}:1", (user("What is 3 + 4?"),)),
        (f"{folder}:2", (user("R"),)),
    ]
    refused(folder, "split must be null for a folder that holds one dataset, got 'train'", split="train")


def test_of_saved_splits_one_is_named(tmp_path: Path) -> None:
    folder = str(tmp_path / "saved")
    DatasetDict({"train": Dataset.from_list([GOOD]), "held": Dataset.from_list([OTHER])}).save_to_disk(folder)
    refused(folder, f"{folder}: split must be one of train, held, got none; it stands behind the name: {folder}:train")
    refused(folder, "split must be one of train, held, got 'tset'", split="tset")
    (row,) = read_rows(folder, split="held")
    assert (row.source, row.prompt) == (f"{folder}[held]:1", (user("R"),))


def test_a_single_split_needs_no_name(tmp_path: Path) -> None:
    DatasetDict({"anything": Dataset.from_list([GOOD])}).save_to_disk(str(tmp_path / "saved"))
    assert len(read_rows(str(tmp_path / "saved"))) == 1


def test_a_broken_folder_is_refused(tmp_path: Path) -> None:
    Dataset.from_list([GOOD]).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved/state.json").write_text("{")
    refused(str(tmp_path / "saved"), "as a dataset folder it cannot be loaded", "it must be a .jsonl")
