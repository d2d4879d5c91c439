"""The data module: what it takes from files and arguments."""

from collections.abc import Callable
from pathlib import Path

import pytest
from support.training import train

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, DPO, Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy


def test_only_training_rows_lose_a_side(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    path = write_pairs(rows=8)
    data = PreferenceData(path, path, examples_per_step=4, pairing_ratio=0.25)
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF()), data, max_steps=2)
    assert sorted(len(found.completions) for found in data.rows["train"]) == [1] * 6 + [2] * 2
    assert {len(found.completions) for found in data.rows["validation"]} == {2}
    assert "[train] pairing_ratio 0.25: 2 of 8 rows are pairs" in (tmp_path / "data_report.txt").read_text()


@pytest.mark.parametrize(
    ("loss", "ratio", "message"),
    [(BNF(), 1.5, "pairing_ratio 1.5"), (DPO(), 0.5, "ratio 0.5: DPO needs whole pairs")],
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
