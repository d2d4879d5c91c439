"""The data module: what it takes from files and arguments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel
from support.training import train

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, DPO, SFT, Loss, Sum, Term
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.training import fitting

pytestmark = pytest.mark.slow


def test_only_training_rows_lose_a_side(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    path = write_pairs(rows=8)
    data = PreferenceData(path, path, examples_per_step=4, pairing_ratio=0.25)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=2)
    assert sorted(len(found.completions) for found in data.rows["train"]) == [1] * 6 + [2] * 2
    assert {len(found.completions) for found in data.rows["validation"]} == {2}
    assert "[train] pairing_ratio 0.25: 2 of 8 rows are pairs" in (tmp_path / "data_report.txt").read_text()


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


def test_layout_is_decided_once_a_split_and_the_budget_once(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a fit that fills a cache, finds its budget, and validates: two splits, so two decisions; in a run after it the
    same data decide anew, as the model may be another."""
    decided: list[int] = []
    budgets: list[bool] = []
    choose_layout = fitting.choose_layout

    def counts(name: Any, policy: Any, rows: Any, labels: Any) -> Any:
        decided.append(len(rows))
        return choose_layout(name, policy, rows, labels)

    def budget(policy: Any, rows: Any, layout: Any, labels: Any, fused: bool, *_: Any) -> int:
        budgets.append(fused)
        return 300

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


def test_data_refuse_a_module_that_tells_them_nothing(tmp_path: Path, write_pairs: Callable[..., str]) -> None:
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match="the module of PreferenceData must be a PreferenceModule, got BoringModel"):
        trainer.fit(BoringModel(), PreferenceData(write_pairs()))
    with pytest.raises(RuntimeError, match="its splits are read for a module, and none has set it up yet"):
        PreferenceData(write_pairs()).split("train")
