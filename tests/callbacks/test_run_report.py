"""The page's callback: what it keeps is what the policy gives, and training does not notice it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training import FAST, Write, train
from support.two_processes import Cell

from lightning_bnf.callbacks import RunReport
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, SFT, Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.pages.run_folder import read_run
from lightning_bnf.pages.scores import Snapshot, read_about, read_rows, read_snapshot, read_steps
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal

pytestmark = [pytest.mark.slow, pytest.mark.drawing]


def fit(
    root: Path,
    folder: str,
    train_file: str,
    validation: str | None,
    report: RunReport | None,
    loss: Loss | None = None,
    policy: type = LoRAPolicy,
    **more: Any,
) -> Any:
    torch.manual_seed(1)
    root.mkdir(exist_ok=True)
    module = PreferenceModule(policy(folder), loss or BNF(), optimization=FAST)
    data = PreferenceData(train_file, validation, examples_per_step=5, max_tokens=200)
    return train(root, module, data, callbacks=[report] if report else [], **more)


def shot(run: Path, moment: str) -> Snapshot:
    found = read_snapshot(run, moment)
    assert found is not None
    return found


def test_what_it_keeps_is_what_the_policy_gives(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    run = tmp_path / "run"
    files = write_pairs(rows=10), write_pairs("validation.jsonl", rows=7)
    trainer = fit(run, tiny_folder, *files, RunReport(rows=3), max_epochs=4, check_val_every_n_epoch=2)
    rows = read_rows(run)
    assert [shot(run, moment).step for moment in ("start", "middle", "end")] == [0, 4, 8]
    module, split = trainer.lightning_module, trainer.datamodule.split("validation")
    looked_at = [split[i] for i in (0, 2, 4)]  # of 7, evenly apart
    assert [row.prompt for row in rows] == [row.prompt[0]["content"] for row in looked_at]
    assert "".join(rows[0].answers[0].pieces) == "7<|im_end|>\n"[: len("".join(rows[0].answers[0].pieces))]
    means = module.mean_logps(looked_at, 10_000)
    kept = [[sum(logps) / len(logps) for logps in row] for row in shot(run, "end").logps]
    for mine, theirs in zip(kept, means):
        assert mine == pytest.approx(theirs, rel=1e-4)
    assert shot(run, "start").logps != shot(run, "end").logps
    steps = read_steps(run)
    assert steps["step"] == list(range(1, 9))
    assert min(steps["seconds"]) > 0
    assert (run / "report.html").read_text().count("BNF") > 3


@pytest.mark.parametrize(("validated", "precision"), [(True, "32-true"), (False, "bf16-mixed")])
def test_training_does_not_notice_it(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, validated: bool, precision: str
) -> None:
    files = write_pairs(rows=10), write_pairs("validation.jsonl") if validated else None
    weights = []
    for name, report in (("with", RunReport(rows=4)), ("without", None)):
        trainer = fit(tmp_path / name, tiny_folder, *files, report, max_epochs=3, precision=precision)
        trained = trainer.lightning_module.policy.trainable()
        weights.append({key: value.detach().clone() for key, value in trained.items()})
        weights[-1]["drawn next"] = torch.rand(3)
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


def test_without_validation_it_scores_training_rows_itself(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    run = tmp_path / "run"
    fit(run, tiny_folder, write_pairs(rows=10), None, RunReport(rows=2), max_epochs=3)
    assert [shot(run, moment).step for moment in ("start", "middle", "end")] == [0, 4, 6]
    assert read_about(run)["split"] == "train"


def test_validation_passes_are_taken_where_they_go_over_the_rows(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored: list[int] = []
    own = RunReport._score

    def counted(self: RunReport, trainer: Any, module: Any) -> Snapshot:
        scored.append(trainer.global_step)
        return own(self, trainer, module)

    monkeypatch.setattr(RunReport, "_score", counted)
    files = write_pairs(rows=10), write_pairs("validation.jsonl", rows=7)
    fit(tmp_path / "run", tiny_folder, *files, RunReport(rows=7), max_epochs=2)
    assert scored == [0]
    assert [shot(tmp_path / "run", moment).step for moment in ("middle", "end")] == [2, 4]


def test_no_rows_leave_no_data_and_nothing_is_scored(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    fit(tmp_path / "run", tiny_folder, write_pairs(), None, RunReport(rows=0), max_epochs=1)
    assert {path.name for path in (tmp_path / "run/report").iterdir()} == {"run.json", "steps.json"}
    assert "colour" not in (tmp_path / "run/report.html").read_text().split("<h2>Settings")[0].split("</style>")[1]


def test_a_loss_without_a_reference_is_measured_against_its_start(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    run = tmp_path / "run"
    fit(run, tiny_folder, write_pairs(), None, RunReport(rows=2), loss=SFT(), policy=FullPolicy, max_epochs=2)
    html = (run / "report.html").read_text()
    assert "Margin gained since the start" in html
    assert "This run minimised SFT" in html


@pytest.mark.parametrize("policy", [LoRAPolicy, FullPolicy])
def test_a_resumed_run_keeps_the_start(tmp_path: Path, tiny_folder: str, write_pairs: Write, policy: type) -> None:
    files = write_pairs(rows=10), write_pairs("validation.jsonl", rows=4)
    whole = tmp_path / "whole"
    fit(whole, tiny_folder, *files, RunReport(rows=3), policy=policy, max_epochs=4)
    run = tmp_path / "run"
    trainer = fit(run, tiny_folder, *files, RunReport(rows=3), policy=policy, max_epochs=4, max_steps=4)
    trainer.save_checkpoint(run / "stopped.ckpt")
    torch.manual_seed(1)
    module = PreferenceModule(policy(tiny_folder), BNF(), optimization=FAST)
    data = PreferenceData(*files, examples_per_step=5, max_tokens=200)
    resumed(run, module, data, RunReport(rows=3))
    assert shot(run, "start") == shot(whole, "start")
    assert read_steps(run)["step"] == list(range(1, 9))
    if policy is LoRAPolicy:  # the start is the adapters' off state, also where the run folder has lost it
        (run / "report/start.json").unlink()
        module = PreferenceModule(policy(tiny_folder), BNF(), optimization=FAST)
        data = PreferenceData(*files, examples_per_step=5, max_tokens=200)
        resumed(run, module, data, RunReport(rows=3))
        for mine, theirs in zip(shot(run, "start").logps, shot(whole, "start").logps):
            for one, other in zip(mine, theirs):
                assert one == pytest.approx(other, abs=1e-4)


def resumed(run: Path, module: PreferenceModule, data: PreferenceData, report: RunReport) -> None:
    from lightning.pytorch import Trainer

    Trainer(
        accelerator="cpu",
        default_root_dir=run,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        max_epochs=4,
        callbacks=[report],
    ).fit(module, data, ckpt_path=run / "stopped.ckpt", weights_only=True)


def test_auto_takes_fewer_rows_in_a_short_run(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    files = write_pairs(rows=10), write_pairs("validation.jsonl", rows=40)
    fit(tmp_path / "run", tiny_folder, *files, RunReport(), max_epochs=1)
    assert len(read_rows(tmp_path / "run")) == 8
    about = json.loads((tmp_path / "run/report/run.json").read_text())
    assert (about["rows"], about["validation_rows"], about["train_rows"], about["step"]) == (8, 40, 10, 2)


def test_all_that_a_validation_pass_goes_over_may_be_shown(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """Steps of four rows in training are of 128 in validation: one pass goes over all 12 rows."""
    module = PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=FAST)
    data = PreferenceData(write_pairs(rows=8), write_pairs("validation.jsonl", rows=12), max_tokens=200)
    train(tmp_path, module, data, callbacks=[RunReport(12)], max_epochs=1)
    assert data.examples_per_step == 4
    assert len(read_rows(tmp_path)) == 12


def test_a_full_disk_ends_no_run_that_has_begun(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lightning_bnf.callbacks import run_report

    written, own = [], run_report.write_report

    def full(run: Path) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(own(run))

    monkeypatch.setattr(run_report, "write_report", full)
    with pytest.warns(UserWarning, match=r"report.html was not written: OSError\(28, .*\). `report .*` writes it"):
        trainer = fit(tmp_path / "run", tiny_folder, write_pairs(), None, RunReport(rows=2), max_epochs=2)
    assert trainer.global_step == 2


def test_a_page_of_somebody_else_is_refused_before_the_first_step(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/report.html").write_text("mine")
    with pytest.raises(Refusal, match=r"run must be a folder whose report.html is a page of lightning_bnf, got"):
        fit(tmp_path / "run", tiny_folder, write_pairs(), None, RunReport(rows=2), max_epochs=1)
    assert (tmp_path / "run/report.html").read_text() == "mine"


def test_two_processes_score_what_one_does(two: Any, one: Any, tmp_path: Path) -> None:
    """With fewer micro-batches than both ranks want, too; and what is trained stays the same."""
    cells = [
        Cell(policy, "BNF", strategy, steps=4, report=f"{policy}-{strategy}")
        for policy, strategy in (("FullPolicy", "fsdp2"), ("LoRAPolicy", "ddp"))
    ]
    for cell, found in zip(cells, two(cells)):
        alone = one(replace(cell, strategy="auto", report="alone"))
        mine, theirs = (read_run(tmp_path / str(folder)) for folder in (cell.report, "alone"))
        assert mine.rows == theirs.rows
        for moment in ("start", "middle", "end"):
            for row, other in zip(mine.snapshots[moment].logps, theirs.snapshots[moment].logps, strict=True):
                for logps, wanted in zip(row, other, strict=True):
                    assert logps == pytest.approx(wanted, abs=1e-4)
        assert mine.steps["tokens"] == theirs.steps["tokens"]
        assert found["losses"] == pytest.approx(alone["losses"], rel=1e-5)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(Refusal, match="rows must be >= 0, got -1"):
        RunReport(rows=-1)
