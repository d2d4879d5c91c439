"""Data that meet a second module: rows are kept where it makes the same of the files, else made anew."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support.rows import define
from support.templates import MISTRAL, with_template
from support.training import train
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens.rows import RowView
from lightning_bnf.losses import BNF, DPO, SFT, SPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow


def test_rows_are_made_anew_where_a_second_run_makes_others(
    tiny_llama: Any, tokenizer: PreTrainedTokenizerBase, write_pairs: Callable[..., str]
) -> None:
    """For another template, other ids that end a turn, another vocabulary; the same are kept, and told once."""
    data = PreferenceData(write_pairs(rows=60), validation="auto")

    def rows(of: PreTrainedTokenizerBase, end_ids: tuple[int, ...] = ()) -> RowView:
        policy = LoRAPolicy.of(tiny_llama, of)
        policy._end_ids = end_ids
        data.meet(PreferenceModule(policy, BNF()))
        return data.split("train")

    first, meaning = rows(tokenizer), data.meaning()["data.train"]
    assert rows(copy.deepcopy(tokenizer)) is first
    others = with_template(tokenizer, MISTRAL)
    second = rows(others)
    assert others.decode(second[0].prompt_ids).startswith("[INST]")
    assert data.meaning()["data.train"] != meaning
    assert sum("rows: 60 read" in report.head for report in data.reports) == 1
    others.chat_template = tokenizer.chat_template
    assert list(rows(others)) == list(first), "as it is now, and not as it was"
    again = rows(tokenizer, (2,))
    assert rows(tokenizer, (2,)) is again
    assert again is not first
    others.add_tokens(["<new>"])
    assert rows(others, (2,)) is not again


def test_rows_are_made_anew_by_a_format_that_is_defined_anew(
    tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, path, said = ModuleType("session_of_data"), tmp_path / "rows.jsonl", []
    monkeypatch.setitem(sys.modules, "session_of_data", session)
    path.write_text('{"question": "a?", "answer": "b"}\n')
    define(session, "")
    data = PreferenceData(str(path), options=DataOptions(format="session_of_data.Asked"))
    for added in ("", " more"):
        define(session, added)
        data.meet(PreferenceModule(LoRAPolicy(tiny_folder), SFT()))
        said.append(tokenizer.decode(data.split("train")[0].completions[0].ids, skip_special_tokens=True))
    assert said == ["b", "b more"]


def test_rows_that_one_loss_drops_are_there_for_the_next(tmp_path: Path, tiny_folder: str) -> None:
    """Of four rows SPO leaves out the two whose scores do not order their answers; BNF and DPO take all."""
    scores = [(2, 1), (1, 1), (0, 3), (1, 0)]
    rows = [
        {"prompt": f"p{i}", "chosen": "b", "rejected": "c", "score_chosen": w, "score_rejected": lower}
        for i, (w, lower) in enumerate(scores)
    ]
    data, kept = PreferenceData(rows, options=DataOptions(allow_drop=0.5)), []
    for loss in (SPO(), BNF(), SPO()):
        train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), loss), data, max_steps=1, max_epochs=-1)
        kept.append(len(data.rows["train"]))
        told = "2 of 4 rows dropped: SPO needs" in (tmp_path / "data_report.txt").read_text()
        assert told == isinstance(loss, SPO)
    assert kept == [2, 4, 2]
    halves = PreferenceData(rows, pairing_ratio=0.5)
    halves.meet(PreferenceModule(LoRAPolicy(tiny_folder), BNF()))
    halves.split("train")
    halves.meet(PreferenceModule(LoRAPolicy(tiny_folder), DPO()))
    with pytest.raises(Refusal, match="pairing_ratio must be 1 with DPO"):
        halves.split("train")


def test_prompts_of_both_splits_are_told_once(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    path = write_pairs()
    data = PreferenceData(path, path)
    for _ in range(2):
        train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=1, max_epochs=-1)
        assert (tmp_path / "data_report.txt").read_text().count("have a prompt that is trained on too") == 1
