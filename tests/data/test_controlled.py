"""The controlled data: enough of it, verifiers that agree with the labels, and splits that share nothing."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_bnf.datamodules.reading.streams import Opened
from lightning_bnf.evaluation.verify import verify
from lightning_bnf.preparation.prepare import draw_splits

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data/controlled"
SPLITS = ("train", "validation", "test")
CONFIG = yaml.safe_load((ROOT / "configs/prepare/controlled.yaml").read_text())


def rows(name: str) -> list[dict]:
    path = FOLDER / f"{name}.jsonl.gz"
    with Opened(str(path), path) as stream:
        return [json.loads(line) for line in stream]


PAIRS = {split: rows(f"{split}_pairs") for split in SPLITS}
PROMPTS = {split: rows(f"{split}_prompts") for split in ("validation", "test")}


def test_there_is_as_much_as_promised():
    assert len(PAIRS["train"]) >= 2000
    families = set(CONFIG["families"])
    assert {row["family"] for row in PAIRS["train"]} == families
    assert len(PROMPTS["test"]) >= 300
    for split in ("validation", "test"):
        assert {row["family"] for row in PROMPTS[split]} == families | set(CONFIG["kept_out"])
        assert all(row["kept_out"] == (row["family"] in CONFIG["kept_out"]) for row in PROMPTS[split])
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


@pytest.mark.parametrize("split", SPLITS)
def test_chosen_passes_and_rejected_fails(split):
    for row in PAIRS[split]:
        chosen, rejected = (row[side][0]["content"] for side in ("chosen", "rejected"))
        assert verify(chosen, row["verifier"]) == 1.0 > verify(rejected, row["verifier"])


def test_splits_share_no_prompt():
    found = {split: {row["prompt_id"] for row in PROMPTS[split]} for split in PROMPTS}
    found["train"] = {row["prompt_id"] for row in [*PAIRS["train"], *rows("train_unpaired")]}
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_the_config_still_asks_these_questions():
    names = ("families", "kept_out", "train_prompts", "validation_prompts", "test_prompts", "kept_out_prompts", "seed")
    placed = draw_splits(*(CONFIG[name] for name in (*names, "kept_out_validation_prompts")))
    for split in PROMPTS:
        asked = {question.prompt_id for _, found, _, question in placed if found == split}
        assert asked == {row["prompt_id"] for row in PROMPTS[split]}
