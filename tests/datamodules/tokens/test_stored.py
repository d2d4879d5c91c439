"""Stored rows equal the rows they were written from, and are tokenized once."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from support.rows import FORMAT_MODULE, define
from support.training import Write, train
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens import stored as store
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.rows import RowView
from lightning_bnf.datamodules.tokens.stored import StoredRows, load_stored, store_key, write_rows
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

pytestmark = pytest.mark.slow


def test_rows_come_back_as_they_were(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, write_groups: Write
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        '{"prompt": "a", "verifier": {"name": "number", "answer": 3}, "family": "f", "max_new_tokens": 4, '
        '"kept_out": true, "prompt_id": "x"}\n'
    )
    for path in (write_pairs(rows=7, numbers=True), write_groups(), str(prompts)):
        rows, _ = load_rows(path, tokenizer)
        stored = write_rows(tmp_path / "rows.arrow", rows)
        assert list(stored) == rows
        assert [stored[i] for i in range(len(rows))] == rows
        assert [RowView([stored]).prompt(i) for i in range(len(rows))] == [row.prompt for row in rows]
        assert stored[-1] == rows[-1]
        assert stored[1:3] == rows[1:3]
        assert len(StoredRows(tmp_path / "rows.arrow")) == len(rows)
        with pytest.raises(IndexError):
            stored[len(rows)]
    assert not list(tmp_path.glob("*.tmp"))


def test_the_key_covers_content_tokenizer_template_and_options(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    import copy

    path = write_pairs()
    other_template = copy.deepcopy(tokenizer)
    other_template.chat_template = str(tokenizer.chat_template) + " "
    more_tokens, other_end, other_cut, normalized, padded = (copy.deepcopy(tokenizer) for _ in range(5))
    more_tokens.add_tokens(["<new>"])
    other_end.eos_token = "<|endoftext|>"
    other_cut.backend_tokenizer.pre_tokenizer = Whitespace()
    normalized.backend_tokenizer.normalizer = Lowercase()
    keys = [
        store_key(path, tokenizer, DataOptions(), [2]),
        store_key(path, tokenizer, DataOptions(max_length=99), [2]),
        store_key(path, tokenizer, DataOptions(), [2, 3]),
        store_key(path, other_template, DataOptions(), [2]),
        *(store_key(path, other, DataOptions(), [2]) for other in (more_tokens, other_end, other_cut, normalized)),
    ]
    assert store_key(path, tokenizer, DataOptions(), [2]) == keys[0]
    padded(["a", "a b"], padding=True, truncation=True, max_length=2)
    assert store_key(path, padded, DataOptions(), [2]) == keys[0], "how a call cut and padded is of no interest"
    write_pairs(rows=6)
    keys.append(store_key(path, tokenizer, DataOptions(), [2]))
    assert len(set(keys)) == 9
    assert store_key("owner/name", tokenizer, DataOptions(), [2]) is None, "a hub id may change"


def test_large_files_are_tokenized_once(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "user"))
    path = write_pairs(rows=10)
    rows, text = load_stored(path, tokenizer, DataOptions(), [])
    assert isinstance(rows, list), "small files are not worth a file"
    monkeypatch.setattr(store, "STORED_FROM", 10)
    first, first_text = load_stored(path, tokenizer, DataOptions(), [])
    assert isinstance(first, StoredRows)

    def refuse(*_: Any) -> None:
        raise AssertionError("tokenized again")

    monkeypatch.setattr(store, "load_rows", refuse)
    again, again_text = load_stored(path, tokenizer, DataOptions(), [])
    assert list(again) == list(first) == rows
    assert again_text == first_text == text
    assert (text.read, text.full.count("prompt    "), text.short.count("prompt    ")) == (10, 3, 1)


def test_the_key_holds_the_code_of_a_format_of_ones_own(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A module that is changed and run again reads anew; what has no code is not stored."""
    monkeypatch.setattr(store, "STORED_FROM", 1)
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "user"))
    monkeypatch.syspath_prepend(tmp_path)
    path, file = tmp_path / "rows.jsonl", tmp_path / "format_of_stored.py"
    path.write_text('{"question": "a?", "answer": "b"}\n')

    def answer(name: str = "format_of_stored.Asked") -> str:
        rows, _ = load_stored(str(path), tokenizer, DataOptions(format=name), [])
        return tokenizer.decode(rows[0].completions[0].ids, skip_special_tokens=True)

    file.write_text(FORMAT_MODULE.format(added=""))
    assert answer() == answer() == "b"
    file.write_text(FORMAT_MODULE.format(added=" more"))
    assert answer() == "b", "as long as the module is not run again"
    importlib.reload(sys.modules["format_of_stored"])
    assert answer() == "b more"
    assert len([*(tmp_path / "user/tokens").glob("*.arrow")]) == 2
    session = ModuleType("session_of_stored")
    monkeypatch.setitem(sys.modules, "session_of_stored", session)
    for added in ("", " again"):
        define(session, added)
        assert answer("session_of_stored.Asked") == f"b{added}"
    assert len([*(tmp_path / "user/tokens").glob("*.arrow")]) == 2


@pytest.mark.parametrize("broken", ["flipped", "truncated", "empty", "no companion", "companion cut", "companion else"])
def test_rows_that_are_not_as_they_were_written_are_tokenized_anew(
    tmp_path: Path,
    tokenizer: PreTrainedTokenizerBase,
    write_pairs: Write,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    broken: str,
) -> None:
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "user"))
    monkeypatch.setattr(store, "STORED_FROM", 1)
    path = write_pairs(rows=10)
    expected = list(load_stored(path, tokenizer, DataOptions(), [])[0])
    (arrow,) = (tmp_path / "user/tokens").glob("*.arrow")
    beside, content = arrow.with_suffix(".json"), arrow.read_bytes()
    at = content.index(bytes(memoryview(np.asarray(expected[0].prompt_ids, dtype=np.int32))))
    flipped = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
    arrow.unlink()  # mapped into memory still
    arrow.write_bytes({"flipped": flipped, "truncated": content[:-100], "empty": b""}.get(broken, content))
    if broken.startswith("companion"):
        beside.write_text(beside.read_text()[:-9] if broken == "companion cut" else "[1]")
    elif broken == "no companion":
        beside.unlink()
    capsys.readouterr()
    assert list(load_stored(path, tokenizer, DataOptions(), [])[0]) == expected
    assert ("the rows are tokenized anew" in capsys.readouterr().err) == (broken != "no companion")
    assert arrow.read_bytes() == content
    load_stored(path, tokenizer, DataOptions(), [])
    assert capsys.readouterr().err == "", "as they were written again"


def test_training_on_stored_rows_is_the_same(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    path, ends = write_pairs(rows=10), []
    for least in (1000, 1):
        monkeypatch.setattr(store, "STORED_FROM", least)
        monkeypatch.setattr(store, "cache_folder", lambda: tmp_path / "user")
        module = PreferenceModule(FullPolicy(tiny_folder), BNF())
        data = PreferenceData(path, examples_per_step=4)
        train(tmp_path, module, data, max_epochs=1)
        ends.append(module.policy.state_dict())
    assert list((tmp_path / "user/tokens").glob("*.arrow"))
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_view_joins_without_changing_the_order(tokenizer: PreTrainedTokenizerBase, write_pairs: Write) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)
    view = RowView([rows[:2], rows[2:]])
    assert list(view) == rows
    assert view[3] == rows[3]
    assert view[1:4] == rows[1:4]
    assert not RowView([])
