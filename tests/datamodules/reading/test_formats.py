"""A file's format, told from its columns; and a new one, which is one class of which nothing else is told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.rows import GOOD, answers, assistant, only, refused, user
from support.training import Write, train

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.answers import as_completion, as_text
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.formats import FORMATS, Content, Format, format_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import read_file
from lightning_bnf.datamodules.tokens import stored as store
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy


class GoodBad(Format):
    """Columns question, good and bad."""

    needs = (("question", "good", "bad"),)
    pairs = True

    def read(self, values: Mapping[str, Any]) -> Content:
        prompt = as_text("question", values["question"])
        sides = (("good", +1), ("bad", -1))
        return Content(
            prompt, tuple(as_completion(name, prompt, values[name], label, {}, "question") for name, label in sides)
        )


@pytest.fixture
def path(tmp_path: Path) -> str:
    rows = [{"question": f"{n} + 1 =", "good": f" {n + 1}", "bad": f" {n}"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "rows.jsonl")


@pytest.mark.parametrize("stored_from", [1, 1000])
def test_one_class_makes_a_format_that_a_pairwise_loss_trains_on(
    tmp_path: Path, tiny_folder: str, path: str, monkeypatch: pytest.MonkeyPatch, stored_from: int
) -> None:
    """By its class path alone, also where rows are stored and read back."""
    monkeypatch.setattr(store, "STORED_FROM", stored_from)
    monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "user")
    data = PreferenceData(path, examples_per_step=3, options=DataOptions(format=GoodBad.name))
    trainer = train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), DPO()), data, max_epochs=1)
    assert trainer.global_step == 2
    assert [(row.format, row.pairs, row.groups) for row in data.rows["train"]] == [(GoodBad.name, True, False)] * 6
    assert trainer.callback_metrics["train/rewards/margins"].isfinite()


def test_its_columns_are_checked_as_those_of_every_format(tmp_path: Path, path: str) -> None:
    assert GoodBad.name == f"{__name__}.GoodBad"
    (tmp_path / "typo.jsonl").write_text('{"quesion": "a", "good": "b", "bad": "c"}\n')
    with pytest.raises(DataError, match="unknown column 'quesion'; did you mean 'question'"):
        read_file(str(tmp_path / "typo.jsonl"), format=GoodBad.name)
    mapped = read_file(path, format=GoodBad.name, column_map={"good": "bad", "bad": "good"})
    assert mapped.rows[1].completions[0].text == " 1"
    with pytest.raises(DataError, match=r"match no format.* must be chosen and rejected \(paired\)"):
        read_file(path)


def test_names_and_class_paths_give_one_format_each() -> None:
    assert [format_of(known.name) for known in FORMATS] == list(FORMATS)
    assert format_of(GoodBad.name) is format_of(GoodBad.name)
    for name in ("pairs", "no.such.Module", f"{__name__}.path"):
        with pytest.raises(
            ValueError, match=f"format must be 'auto', 'paired', .* class path of a Format, got '{name}'"
        ):
            format_of(name)


def test_what_a_file_must_have_is_said_in_words() -> None:
    assert [known.sentence() for known in FORMATS] == [
        "chosen and rejected",
        "prompt, samples and rejected",
        "prompt, completion and label or messages and label",
        "prompt and completion or messages",
        "prompt",
    ]


def test_more_demanding_formats_come_first_and_the_other_columns_are_ignored(write: Write) -> None:
    found = read_file(write(GOOD | {"messages": [user("Q"), assistant("A")], "source": "web"}))
    assert (found.format, found.ignored) == ("paired", ("messages", "source"))


def test_a_format_can_be_asked_for(write: Write) -> None:
    path = write(GOOD)
    assert only(path, format="prompt").completions == ()
    refused(path, "train.jsonl", "format 'unpaired'", "prompt, completion and label", format="unpaired")


def test_column_map(write: Write) -> None:
    row = only(
        write({"question": "Q", "better": "A", "worse": "B", "prompt": "not this"}),
        column_map={"prompt": "question", "chosen": "better", "rejected": "worse"},
    )
    assert (row.prompt, answers(row)) == ("Q", [("A", 1), ("B", -1)])


@pytest.mark.parametrize(
    ("columns", "wrong", "right"),
    [
        (("prompt", "choosen", "rejected"), "'choosen'", "'chosen'"),
        (("promt", "chosen", "rejected"), "'promt'", "'prompt'"),
        (("prompt", "completion", "labels"), "'labels'", "'label'"),
        (("prompt", "Chosen", "rejected"), "'Chosen'", "'chosen'"),
        (("prompt", "completion", "label", "verifer"), "'verifer'", "'verifier'"),
    ],
)
def test_misspelled_columns(write: Write, columns: tuple[str, ...], wrong: str, right: str) -> None:
    refused(write(dict.fromkeys(columns, "x")), "train.jsonl", f"unknown column {wrong}", f"did you mean {right}")


def test_a_resembling_column_can_be_ignored_by_name(write: Write) -> None:
    path = write(GOOD | {"scores": [1, 2]})
    refused(path, "'scores'", "ignore_columns")
    assert only(path, ignore_columns=["scores"]).format == "paired"


def test_columns_that_match_no_format(write: Write) -> None:
    refused(
        write({"question": "Q", "answer": "A"}), "train.jsonl", "question", "answer", "no format", "chosen and rejected"
    )


def test_column_map_errors(write: Write) -> None:
    path = write({"prompt": "Q", "better": "A", "rejected": "B"})
    refused(path, "'choosen'", "did you mean 'chosen'", column_map={"choosen": "better"})
    refused(path, "'beter'", "did you mean 'better'", column_map={"chosen": "beter"})
