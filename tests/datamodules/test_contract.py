"""What module and data tell each other: rows are kept where a second module makes the same of the files, else made
anew; what a reference is asked for."""

import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lightning.pytorch import Callback
from support.rows import define
from support.templates import MISTRAL, with_template
from support.training import train
from transformers import PreTrainedTokenizerBase

from lightning_bnf.batch import Step
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.steps.layout import ToScore
from lightning_bnf.datamodules.steps.loader import StepLoader
from lightning_bnf.datamodules.tokens.columns import key_bytes
from lightning_bnf.datamodules.tokens.rows import RowView
from lightning_bnf.losses import BNF, DPO, KTO, SFT, SPO, Loss
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


def test_what_is_to_be_scored_has_the_keys_of_its_batches(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """8 pairs and 3 for validation, each with its partner's completions beside its own."""
    data = PreferenceData(write_pairs(rows=8), write_pairs("validation.jsonl", rows=3), max_tokens=300)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), KTO()), data, max_steps=1)
    asked = data.to_score({"train": None, "validation": None, "test": None})
    batches = asked.batches()
    assert len(batches) > 2
    assert len(asked.keys) == (8 + 3) * 4
    assert sorted(key_bytes(asked.keys)) == sorted(key for batch in batches for key in batch.content_keys())
    assert sorted(key_bytes(ToScore.of(batches).keys)) == sorted(key_bytes(asked.keys))
    assert (len(ToScore.of([]).keys), ToScore.of([]).batches()) == (0, [])


@pytest.mark.parametrize("loss", [BNF(), KTO()], ids=["bnf", "kto"])
@pytest.mark.parametrize("stratify", [False, True])
def test_of_the_first_steps_what_these_read_is_to_be_scored(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], loss: Loss, stratify: bool
) -> None:
    """Every completion that the training and the validation loader's steps hold, those of KTO's pass over mismatched
    ones too, and no other."""
    rows = [json.loads(line) for line in Path(write_pairs(rows=20)).read_text().splitlines()]
    path = tmp_path / "families.jsonl"
    path.write_text("".join(json.dumps(row | {"family": "ab"[i % 3 == 0]}) + "\n" for i, row in enumerate(rows)))
    data = PreferenceData(str(path), write_pairs("validation.jsonl", rows=3), examples_per_step=4, stratify=stratify)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), loss), data, max_steps=1)
    for split, loader, steps in (
        ("train", data.train_dataloader(), 2),
        ("train", data.train_dataloader(), 6),
        ("validation", data.val_dataloader(), 1),
    ):
        assert isinstance(loader, StepLoader)
        made = [loader.step(*divmod(number, len(loader))) for number in range(steps)]
        wanted = {key for step in made for batch in (*step.micro_batches, *step.mismatched) for key in batch.keys}
        asked = data.to_score({split: steps})
        assert set(key_bytes(asked.keys)) == wanted
        assert {key for batch in asked.batches() for key in batch.content_keys()} == wanted
    assert 2 * len(data.to_score({"train": 2}).keys) < len(data.to_score({"train": None}).keys)


def steps_of_fit(root: Path, folder: str, rows: str, reference: Any = "adapter_off", **options: Any) -> list[list[str]]:
    """The rows of each step that a fit has trained on, in its order; 5 steps are an epoch."""
    seen: list[list[str]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Step, index: int) -> None:
            seen.append(sorted({name for one in batch.micro_batches for name in one.row_ids}))

    module = PreferenceModule(LoRAPolicy(folder), BNF(), reference, reference_cache=str(root / "cache"))
    data = PreferenceData(rows, validation=rows, examples_per_step=2, max_tokens=300)
    train(root, module, data, callbacks=[Watch(), *options.pop("callbacks", [])], **options)
    return seen


@pytest.mark.parametrize("reference", ["adapter_off", "cache"])
@pytest.mark.parametrize("limit", [3, 0.5])
def test_an_epoch_takes_as_many_steps_as_the_trainer_is_limited_to(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], limit: int | float, reference: Any
) -> None:
    """Each epoch begins at its own first step, in an order of its own, and is validated at its end."""
    rows, count = write_pairs(rows=10), int(limit * 5) if isinstance(limit, float) else limit
    validated: list[int] = []

    class Watch(Callback):
        def on_validation_end(self, trainer: Any, module: Any) -> None:
            validated.append(trainer.global_step)

    policy = LoRAPolicy(tiny_folder)
    settings = {"reference": reference, "reference_cache": str(tmp_path / "cache")}
    data = PreferenceData(rows, validation=rows, examples_per_step=2, max_tokens=300)
    trainer = train(
        tmp_path,
        PreferenceModule(policy, BNF(), **settings),
        data,
        max_epochs=3,
        limit_train_batches=limit,
        callbacks=[Watch()],
    )
    assert validated == [count, 2 * count, 3 * count]
    assert trainer.global_step == trainer.estimated_stepping_batches == 3 * count
    seen = steps_of_fit(tmp_path, tiny_folder, rows, reference, max_epochs=3, limit_train_batches=limit)
    loader = data.train_dataloader()
    wanted = [loader.step(epoch, step) for epoch in range(3) for step in range(count)]
    assert seen == [sorted({name for one in step.micro_batches for name in one.row_ids}) for step in wanted]


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_limited_run_goes_on_where_it_was(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], stop: int
) -> None:
    """Within its first epoch of three steps, at its end, and within the second."""
    rows, checkpoint = write_pairs(rows=10), tmp_path / "stopped.ckpt"
    settings: dict[str, Any] = {"max_epochs": 3, "limit_train_batches": 3}

    class Save(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == stop:
                trainer.save_checkpoint(checkpoint)

    whole = steps_of_fit(tmp_path, tiny_folder, rows, **settings, callbacks=[Save()])
    rest = steps_of_fit(tmp_path, tiny_folder, rows, **settings, checkpoint=checkpoint)
    assert len(whole) == 9
    assert rest == whole[stop:]


def test_what_is_to_be_overfitted_is_the_same_in_every_epoch(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    rows = write_pairs(rows=10)
    seen = steps_of_fit(tmp_path, tiny_folder, rows, "cache", max_epochs=3, overfit_batches=2)
    assert len(seen) == 6
    assert seen[:2] == seen[2:4] == seen[4:]
    assert seen[0] != seen[1]


def test_a_loader_that_is_made_anew_goes_on_where_the_run_is(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    rows = write_pairs(rows=10)
    plain, again = (
        steps_of_fit(tmp_path, tiny_folder, rows, max_epochs=3, reload_dataloaders_every_n_epochs=every)
        for every in (0, 1)
    )
    assert again == plain
    assert plain[:5] != plain[5:10]
