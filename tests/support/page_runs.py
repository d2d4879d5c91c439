"""Run folders with scored rows, as `RunReport` leaves them, without a model."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import yaml

from lightning_bnf.pages.scores import Answer, ShownRow, Snapshot, write_about, write_rows, write_snapshot, write_steps

HALF, QUARTER, FIFTH = math.log(1 / 2), math.log(1 / 4), math.log(1 / 5)
"""Log-probs whose odds are 1, 1/3 and 1/4."""


def row(name: str, prompt: str, chosen: Sequence[str], rejected: Sequence[str]) -> ShownRow:
    answers = [Answer(label, pieces, [True] * len(pieces)) for label, pieces in ((1, chosen), (-1, rejected))]
    return ShownRow(name.encode().hex(), name, prompt, answers)


ROWS = [
    row("first", "What is 3 + 4?", ["Se", "ven", "."], ["Eight", "."]),
    row("second", "Name a colour.", ["Blue"], ["A", " long", " answer", "\n", "of dogs"]),
]


def snapshot(rows: Sequence[ShownRow], step: int, chosen: float, rejected: float) -> Snapshot:
    """Every chosen and every rejected token has the same log-prob."""
    value = {1: chosen, -1: rejected}
    return Snapshot(step, [[[value[a.label]] * sum(a.scored) for a in one.answers] for one in rows])


def write_run(folder: Path, rows: Sequence[ShownRow] = ROWS, loss: str = "BNF", rejected: float = FIFTH) -> Path:
    """Two steps: chosen stay at 1/2, rejected go from 1/2 over 1/4 to `rejected`."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder, rows)
    for moment, step, end in (("start", 0, HALF), ("middle", 1, QUARTER), ("end", 2, rejected)):
        write_snapshot(folder, moment, snapshot(rows, step, HALF, end))
    write_steps(folder, {"step": [1, 2], "seconds": [2.0, 1.0], "tokens": [10, 12], "gigabytes": [0.5, 1.5]})
    about = {
        "model": "some/model",
        "policy": "LoRAPolicy",
        "loss": loss,
        "formula": f"{loss}()",
        "reference": "adapter_off",
        "device": "1 x cpu",
        "precision": "32-true",
        "examples_per_step": 4,
        "train_rows": 8,
        "validation_rows": 2,
        "step": 2,
        "steps": 2,
        "rows": len(rows),
        "split": "validation",
        "chosen": [["trainer.max_epochs", "1", "an epoch is what most take"]],
        "seconds": {"run": 100.0, "scoring": 2.0, "rendering": 1.0},
    }
    write_about(folder, about)
    settings = {"model": {"loss": {"class_path": f"lightning_bnf.losses.{loss}"}}, "data": {"train": "mine.jsonl"}}
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "metrics.csv").write_text(
        "epoch,step,train/loss,train/rewards/margins,train/rewards/accuracies,train/logratios_mean/chosen,"
        "train/logratios_mean/rejected,val/loss,val/rewards/margins\n"
        "0,0,0.5,0.0,0.0,0.0,0.0,,\n0,1,0.25,1.0,1.0,0.0,-0.5,,\n0,1,,,,,,0.75,0.5\n"
    )
    write_completions(folder, [("Say hello.", "Hello there, dog.", False, "Hello there, Ann.", True)])
    (folder / "data_report.txt").write_text("mine.jsonl: 8 rows\n")
    return folder


def write_completions(folder: Path, answers: Sequence[tuple[str, str, bool, str, bool]]) -> None:
    """(prompt, before, whether it passed, after, whether it passes)."""
    with (folder / "completions.jsonl").open("w") as file:
        for i, (prompt, before, before_passed, after, after_passed) in enumerate(answers):
            record = {
                "prompt_id": str(i),
                "family": "a",
                "decoding": "greedy",
                "prompt": prompt,
                "before": before,
                "before_passed": before_passed,
                "after": after,
                "after_passed": after_passed,
            }
            file.write(json.dumps(record) + "\n")
