"""The data module: what it takes from files and arguments."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from datasets import Dataset
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from support.training import train

from lightning_bnf.callbacks.fingerprints import Fingerprints
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import read_rows
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.steps.plan import Budget
from lightning_bnf.losses import BNF, DPO, KTO, SFT, Loss, Sum, Term
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training import fitting
from lightning_bnf.training.budget import DrySteps

pytestmark = pytest.mark.slow


def test_only_training_rows_lose_a_side(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    path = write_pairs(rows=8)
    data = PreferenceData(path, path, examples_per_step=4, pairing_ratio=0.25)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=2)
    assert sorted(len(found.completions) for found in data.rows["train"]) == [1] * 6 + [2] * 2
    assert {len(found.completions) for found in data.rows["validation"]} == {2}
    report = (tmp_path / "data_report.txt").read_text()
    assert "[train] pairing_ratio 0.25: 2 of 8 rows are pairs" in report
    assert "[validation] 8 of 8 rows have a prompt that is trained on too" in report


def test_sets_with_weights_are_mixed_and_repeats_are_told(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """8 rows at 3/4 and 5 at 1/4: an epoch is the 5 once, in 20 examples, of which 15 are of the 8."""
    sets = [{"path": write_pairs("a.jsonl", rows=8), "weight": 3}, {"path": write_pairs("b.jsonl"), "weight": 1}]
    parser = ArgumentParser()
    parser.add_class_arguments(PreferenceData, "data")
    config = parser.parse_object({"data": {"train": sets, "examples_per_step": 4}})
    data = parser.instantiate_classes(config).data
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=2)
    plan = data.train_dataloader().plan
    assert (len(plan), plan.examples) == (5, 20)
    sources = [
        [data.rows["train"][row].source.rpartition("/")[2][0] for row in plan.rows(0, step)] for step in range(5)
    ]
    assert [found.count("b") for found in sources] == [1] * 5
    report = (tmp_path / "data_report.txt").read_text()
    assert "13 trained, 0 held out for validation, 0 dropped; 4 rows a step, 5 steps an epoch" in report
    assert "a.jsonl (weight 3): 8 rows, 15 examples, each 1 to 2 times" in report
    assert data.meaning()["data.train weights"] == "[3.0, 1.0]"


def test_families_are_shared_out_over_the_steps(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """Six rows of one family, then two of another, in steps of four: one of the other in each. Without families it is
    refused."""
    path = Path(write_pairs(rows=8))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    with pytest.raises(ValueError, match=r"data\.stratify must be false where no training row has a family, got true"):
        train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), PreferenceData(str(path), stratify=True))
    path.write_text("".join(json.dumps(row | {"family": "ab"[i > 5]}) + "\n" for i, row in enumerate(rows)))
    data = PreferenceData(str(path), examples_per_step=4, stratify=True)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=2)
    plan = data.train_dataloader().plan
    families = [[data.rows["train"][row].family for row in plan.rows(0, step)] for step in (0, 1)]
    assert [found.count("b") for found in families] == [1, 1]
    assert plan.strata is not None
    assert [*plan.strata] == [0] * 6 + [1] * 2, "the places of the families' names"


@pytest.mark.parametrize(
    ("loss", "ratio", "message"),
    [
        (BNF(), 1.5, r"pairing_ratio must be in \[0, 1\], got 1.5"),
        (DPO(), 0.5, "pairing_ratio must be 1 with DPO, .* got 0.5"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path,
    tiny_folder: str,
    write_pairs: Callable[..., str],
    loss: Loss,
    ratio: float,
    message: str,
) -> None:
    module = PreferenceModule(LoRAPolicy(tiny_folder), loss)
    with pytest.raises(ValueError, match=message):
        train(tmp_path, module, PreferenceData(write_pairs(), pairing_ratio=ratio))


def test_rows_that_are_kept_out_are_not_trained_and_repeated_files_are_named(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    first, second = write_pairs(rows=5), tmp_path / "marked.jsonl"
    lines = [json.loads(line) for line in Path(first).read_text().splitlines()]
    lines[1]["kept_out"], lines[3]["kept_out"] = True, False
    second.write_text("".join(json.dumps(line) + "\n" for line in lines))
    data = PreferenceData([first, str(second)], str(second))
    data.meet(PreferenceModule(LoRAPolicy(tiny_folder), BNF()))
    assert [row.source for row in data.split("train")] == [
        *(f"{first}:{i}" for i in (1, 2, 3, 4, 5)),
        *(f"{second}:{i}" for i in (1, 3, 4, 5)),
    ]
    assert len(data.split("validation")) == 5
    report = [found.head for found in data.reports]
    assert f"[train] 1 rows of {second} are marked kept_out, and not trained" in report
    assert any(f"4 rows repeat one of an earlier file (kept): {second}:1, {second}:3" in head for head in report)


def test_a_module_that_was_met_is_enough_without_a_trainer(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    data = PreferenceData(write_pairs())
    with pytest.raises(Refusal, match="the module of PreferenceData must be a PreferenceModule, got NoneType"):
        data.setup("fit")
    data.meet(PreferenceModule(LoRAPolicy(tiny_folder), BNF()))
    data.setup("fit")
    assert len(data.rows["train"]) + len(data.rows["validation"]) == 5


def test_layout_is_decided_once_a_split_and_the_budget_once(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a fit that fills a cache, finds its budget, and validates: two splits, so two decisions; in a run after it the
    same data decide anew, as the model may be another."""
    decided: list[int] = []
    budgets: list[bool] = []
    choose_layout = fitting.choose_layout

    def counts(name: Any, policy: Any, rows: Any, *others: Any) -> Any:
        decided.append(len(rows))
        return choose_layout(name, policy, rows, *others)

    def budget(steps: DrySteps, *_: Any) -> Budget:
        budgets.append(steps.token_loss)
        return Budget(300, 64)

    monkeypatch.setattr(fitting, "choose_layout", counts)
    monkeypatch.setattr(fitting, "choose_budget", budget)
    data = PreferenceData(
        write_pairs(rows=8), write_pairs("validation.jsonl", rows=3), examples_per_step=4, max_tokens="auto"
    )

    def module() -> PreferenceModule:
        loss = Sum([Term(BNF()), Term(SFT())])
        return PreferenceModule(FullPolicy(tiny_folder), loss, "cache", reference_cache=str(tmp_path / "cache"))

    train(tmp_path, module(), data)
    assert sorted(decided) == [3, 8]
    assert budgets == [True], "a Sum of token losses is budgeted on the fused path"
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.validate(module(), data)
    assert sorted(decided) == [3, 3, 8]


def test_a_layout_is_tried_on_the_mismatched_rows_too(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KTO's estimate of the KL scores each prompt with another's completions, which may be longer than any row: here
    the longest prompt with the longest completions, of which no row has both."""
    texts = [("Hi", "word " * 30), ("why " * 30, "No.")]
    rows = [{"prompt": prompt, "chosen": text, "rejected": f"{text} Or not."} for prompt, text in texts]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tried: list[list[int]] = []
    choose_layout = fitting.choose_layout

    def lengths(name: Any, policy: Any, rows: Any, *others: Any) -> Any:
        tried.append([len(row.prompt_ids) + max(len(one.ids) for one in row.completions) for row in rows])
        return choose_layout(name, policy, rows, *others)

    monkeypatch.setattr(fitting, "choose_layout", lengths)
    data = PreferenceData(str(path), examples_per_step=2, max_tokens=300)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), KTO()), data, max_epochs=1)
    ((*own, first, second),) = tried
    assert len(own) == 2
    assert max(first, second) > max(own)


def test_data_refuse_a_module_that_tells_them_nothing(tmp_path: Path, write_pairs: Callable[..., str]) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="the module of PreferenceData must be a PreferenceModule, got BoringModel"):
        trainer.fit(BoringModel(), PreferenceData(write_pairs()))
    with pytest.raises(RuntimeError, match="its splits are read for a module, and none has set it up yet"):
        PreferenceData(write_pairs()).split("train")


def rows_in_order(data: PreferenceData) -> list[list[int]]:
    """The rows of each step of the first epoch, as the training loader plans them."""
    loader = data.train_dataloader()
    return [loader.plan.rows(0, step) for step in range(len(loader))]


def test_all_rows_are_trained_on_or_held_out_and_the_report_counts_them(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """100 rows: 16 are held out, and 84 in steps of 4 are 21 steps."""
    data = PreferenceData(write_pairs(rows=100), validation="auto")
    trainer = train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_epochs=1)
    assert trainer.global_step == 21
    assert sorted(i for step in rows_in_order(data) for i in step) == list(range(84))
    sides = [{row.source for row in data.rows[split]} for split in ("train", "validation")]
    assert [len(side) for side in sides] == [84, 16]
    assert len(sides[0] | sides[1]) == 100
    assert "val/rewards/margins" in trainer.callback_metrics
    report = (tmp_path / "data_report.txt").read_text()
    assert (
        "[train] rows: 100 read, 84 trained, 16 held out for validation, 0 dropped; 4 rows a step (examples_per_step: "
        "auto), 21 steps an epoch\n" in report
    )
    assert "[train] validation: 16 of the 100 rows held out" in report
    assert "is trained on too" not in report


def test_the_same_rows_are_held_out_in_every_layout_and_by_validate_alone(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    path, held = write_pairs(rows=60), []
    for layout in ("padded", "packed"):
        data = PreferenceData(path, validation="auto", layout=layout, max_tokens=100 if layout == "packed" else 8192)
        train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=1, max_epochs=-1)
        held.append([row.source for row in data.rows["validation"]])
        sizes = [data.train_dataloader().plan.examples_per_step, data.val_dataloader().plan.examples_per_step]
        assert sizes == [4, 128]
    data = PreferenceData(path, validation="auto")
    trainer = Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    trainer.validate(PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data)
    assert data.val_dataloader().plan.examples_per_step == 128, "as in the fit, whatever is trained on"
    held.append([row.source for row in data.rows["validation"]])
    assert held[0] == held[1] == held[2]
    assert len(held[0]) == 12, "a fifth"


def test_few_rows_are_all_trained_on(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    def data() -> PreferenceData:
        return PreferenceData(write_pairs(rows=30), validation="auto")

    trainer = train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data(), max_epochs=1)
    assert trainer.global_step == 8
    report = (tmp_path / "data_report.txt").read_text()
    assert "validation: none, as 30 training rows are under 40" in report
    assert "rows: 30 read, 30 trained, 0 held out for validation, 0 dropped; 4 rows a step" in report
    with pytest.raises(
        ValueError, match=r"data\.validation must be files, .* got 'auto' with 30 training rows, .* few"
    ):
        trainer.validate(PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data())


def test_dropped_rows_are_counted_too(tmp_path: Path, tiny_folder: str) -> None:
    """Of 50 rows every fifth is too long: 40 are left, and a fifth of these is held out."""
    words = [" word" * (200 if i % 5 == 0 else 2) for i in range(50)]
    rows = [
        {"prompt": [{"role": "user", "content": f"Say {i}."}], "chosen": word, "rejected": " no"}
        for i, word in enumerate(words)
    ]
    for row in rows:
        row |= {side: [{"role": "assistant", "content": row[side]}] for side in ("chosen", "rejected")}
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = PreferenceData(str(path), "auto", options=DataOptions(max_length=100, allow_drop=0.5))
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=1, max_epochs=-1)
    report = (tmp_path / "data_report.txt").read_text()
    assert "rows: 50 read, 32 trained, 8 held out for validation, 10 dropped" in report


@pytest.mark.parametrize("rows", [20, 2500])  # held, and stored
def test_labels_are_counted_also_where_they_are_booleans(tmp_path: Path, tiny_folder: str, rows: int) -> None:
    path = tmp_path / "answers.jsonl"
    said = [{"prompt": f"{i}?", "completion": "A", "label": i >= 5} for i in range(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), PreferenceData(str(path)), max_steps=1)
    report = (tmp_path / "data_report.txt").read_text()
    assert f"[train] labels of single answers: {rows - 5:,} +1, 5 -1\n[train] rows: " in report


def test_a_file_named_auto_is_reached_by_its_folder(tmp_path: Path) -> None:
    assert PreferenceData("a.jsonl", validation="auto").holds_out
    named = PreferenceData("a.jsonl", validation="./auto")
    assert (named.holds_out, named.paths["validation"]) == (False, ["./auto"])


def test_a_run_goes_on_with_steps_of_the_same_size_or_not_at_all(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]
) -> None:
    """300 rows are 8 a step, 200 are 4: step 2 would be other rows."""

    def module() -> PreferenceModule:
        return PreferenceModule(LoRAPolicy(tiny_folder), BNF())

    first = train(tmp_path, module(), PreferenceData(write_pairs(rows=300)), max_steps=2, max_epochs=-1)
    first.save_checkpoint(tmp_path / "at2.ckpt")

    def go_on(data: PreferenceData) -> None:
        trainer = Trainer(
            accelerator="cpu",
            max_steps=3,
            max_epochs=-1,
            logger=False,
            enable_checkpointing=False,
            use_distributed_sampler=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module(), data, ckpt_path=str(tmp_path / "at2.ckpt"), weights_only=True)
        assert trainer.global_step == 3

    go_on(PreferenceData(write_pairs(rows=300)))
    with pytest.raises(
        Refusal, match=r"data.train is 200 rows \(\w+\) and was 300 rows .* data.examples_per_step is 4 and was 8"
    ):
        go_on(PreferenceData(write_pairs(rows=200)))


@pytest.mark.parametrize("make", [list, pandas.DataFrame, Dataset.from_list], ids=["list", "DataFrame", "Dataset"])
def test_rows_in_memory_are_trained_on_as_a_file_is(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], make: Any
) -> None:
    path = write_pairs(rows=60)
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    ends = []
    for source in (path, make(rows)):
        data = PreferenceData(train=source, validation="auto")
        callbacks = [Fingerprints()]
        trainer = train(
            tmp_path, PreferenceModule(FullPolicy(tiny_folder), BNF()), data, max_steps=2, callbacks=callbacks
        )
        ends.append((float(trainer.callback_metrics["train/loss"]), [row.id for row in data.rows["validation"]]))
    assert ends[0] == ends[1]
    report = (tmp_path / "data_report.txt").read_text()
    assert report.startswith(
        f"[train] train ({make(rows).__class__.__name__} of 60 rows): 60 rows, format paired (messages)\n"
    )
    assert "  train[0]\n" in report
    fingerprints = json.loads((tmp_path / "fingerprints.json").read_text())
    assert fingerprints["train"] == Table("train", rows).fingerprint()


def test_the_command_line_takes_strings_alone(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_class_arguments(PreferenceData, "data")
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "(type: Union[str, list[str], null], default: null)" in text
    assert "(type: Union[int >= 1, Literal['auto']], default: auto)" in text


def test_files_of_either_label_are_held_against_each_other(tmp_path: Path, tiny_folder: str) -> None:
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    rows = [{"prompt": f"Say {i}.", "completion": f"{i}!", "label": 1} for i in range(4)]
    good.write_text("".join(json.dumps(row) + "\n" for row in rows))
    bad.write_text(
        json.dumps(rows[2] | {"label": -1}) + "\n" + json.dumps(rows[0] | {"completion": "No.", "label": 0}) + "\n"
    )
    with pytest.raises(DataError, match="must hold either 0 or -1"):
        read_rows(str(bad))
    zeros = tmp_path / "zeros.jsonl"
    zeros.write_text(bad.read_text().splitlines()[1] + "\n")
    bad.write_text(bad.read_text().splitlines()[0] + "\n")
    data = PreferenceData([str(good), str(bad), str(zeros)])
    data.meet(PreferenceModule(LoRAPolicy(tiny_folder), BNF()))
    data.split("train")
    told = "\n".join(report.head for report in data.reports)
    assert f"WARNING: 1 rows hold an answer that has the other label in an earlier file (kept): {bad}:1" in told
    assert f"0 in one file (first at {zeros}:1) and -1 in another (first at {bad}:1)" in told
