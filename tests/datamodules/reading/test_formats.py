"""A file's format, told from its columns; and a new one, which is one class of which nothing else is told."""

import importlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.rows import FORMAT_MODULE, GOOD, answers, assistant, define, only, refused, system, user
from support.training import Write, train

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.answers import as_completion, as_text
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.formats import FORMATS, Content, Format, codes_of, format_of, only_here
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import read_file
from lightning_bnf.datamodules.tokens import stored as store
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.runtime.class_paths import source_of_module


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
    with pytest.raises(DataError, match=r"match no format.* must be .*chosen and rejected \(paired\)"):
        read_file(path)


def test_names_and_class_paths_give_one_format_each() -> None:
    assert [format_of(known.name) for known in FORMATS] == list(FORMATS)
    assert format_of(GoodBad.name) is format_of(GoodBad.name)
    for name in ("pairs", "no.such.Module", f"{__name__}.path"):
        with pytest.raises(
            ValueError, match=f"format must be 'auto', .*'paired', .* class path of a Format, got '{name}'"
        ):
            format_of(name)


def test_a_class_that_is_defined_anew_is_the_one_that_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a notebook's cell that is run again."""
    path = GoodBad.name

    class Again(GoodBad):
        pairs = False

    assert DataOptions(format=path).kind is format_of(path)
    monkeypatch.setattr(sys.modules[__name__], "GoodBad", Again)
    assert type(format_of(path)) is Again
    assert format_of(path) is format_of(path)


def test_a_format_whose_file_has_changed_is_known_to_this_process_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "format_that_changes.py"
    file.write_text(FORMAT_MODULE.format(added=""))
    monkeypatch.syspath_prepend(tmp_path)
    first = format_of("format_that_changes.Asked")
    assert codes_of(first) == [file.read_text()]
    assert (only_here(first), only_here(FORMATS[0]), codes_of(FORMATS[0])) == (False, False, [])
    file.write_text(FORMAT_MODULE.format(added=" more"))
    assert only_here(first)
    assert codes_of(first) == [FORMAT_MODULE.format(added="")], "that of the class, which is the old one"
    importlib.reload(sys.modules["format_that_changes"])
    second = format_of("format_that_changes.Asked")
    assert codes_of(second) == [file.read_text()]
    assert not only_here(second)


def test_a_format_of_a_session_has_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    session = ModuleType("a_session")
    monkeypatch.setitem(sys.modules, "a_session", session)
    define(session, "")
    assert codes_of(format_of("a_session.Asked")) is None
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    assert source_of_module("__main__") is None, "whatever file the session was begun with"


def test_what_a_file_must_have_is_said_in_words() -> None:
    assert [known.sentence() for known in FORMATS] == [
        "instruction, chosen and rejected or question, chosen and rejected",
        "conversations, chosen and rejected",
        "chosen and rejected",
        "prompt, samples and rejected",
        "prompt, completion and label or messages and label",
        "prompt and completion or messages",
        "conversations and label",
        "conversations",
        "instruction and output",
        "prompt",
    ]


def test_more_demanding_formats_come_first_and_the_other_columns_are_ignored(write: Write) -> None:
    found = read_file(write(GOOD | {"messages": [user("Q"), assistant("A")], "source": "web"}))
    assert (found.format, found.ignored) == ("paired", ("messages", "source"))


def test_a_format_can_be_asked_for(write: Write) -> None:
    path = write(GOOD)
    assert only(path, format="prompt").completions == ()
    refused(path, "train.jsonl", "format 'unpaired'", "prompt, completion and label", format="unpaired")


def test_alpacas_columns_are_demonstrations(write: Write) -> None:
    rows = read_file(
        write(
            {"instruction": "Translate.", "input": "Hund", "output": "dog"},
            {"instruction": "Say hi.", "input": "", "output": "hi"},
        )
    )
    assert (rows.format, rows.ignored) == ("instruction", ())
    assert [row.prompt for row in rows.rows] == ["Translate.\n\nHund", "Say hi."]
    assert [answers(row) for row in rows.rows] == [[("dog", 1)], [("hi", 1)]]


def test_a_label_is_never_read_past(write: Write) -> None:
    """Alpaca's columns with a label might be bad answers: they are no demonstrations."""
    path = write({"instruction": "Say hi.", "output": "go away", "label": False})
    refused(path, "match no format", "--data.options.column_map '{instruction: prompt, output: completion}'")


@pytest.mark.parametrize("column", ["instruction", "question"])
def test_pairs_of_an_instruction_or_a_question(write: Write, column: str) -> None:
    pair = {column: "3 + 4?", "chosen": "7", "rejected": "8", "score_chosen": 2, "score_rejected": 1}
    row, other = read_file(write(pair, pair | {"system": "Be brief."})).rows
    assert (row.format, row.prompt, answers(row)) == ("instruction_paired", "3 + 4?", [("7", 1), ("8", -1)])
    assert [completion.numbers for completion in row.completions] == [{"reward": 2}, {"reward": 1}]
    assert other.prompt == (system("Be brief."), user("3 + 4?"))
    assert answers(other) == [([assistant("7")], 1), ([assistant("8")], -1)]


def test_our_own_columns_come_first(write: Write) -> None:
    found = read_file(write(GOOD | {"question": "not this", "input": "nor this"}))
    assert (found.format, found.ignored) == ("paired", ("question", "input"))
