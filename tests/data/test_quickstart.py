"""The committed data: what the card says, what the verifiers say, and splits that share nothing."""

import json
import re
from pathlib import Path

import pytest
import yaml

from lightning_bnf.evaluation.verify import check_verifier, verify
from lightning_bnf.preparation.prepare import draw_splits
from lightning_bnf.preparation.tasks import FAMILIES
from lightning_bnf.runtime.fingerprints import content_hash

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "data" / "quickstart"
SPLITS = ("train", "validation", "test")
CONFIG = yaml.safe_load((ROOT / "configs/prepare/quickstart.yaml").read_text())


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in (FOLDER / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


PAIRS = {split: rows(f"{split}_pairs") for split in SPLITS}
UNPAIRED = {split: rows(f"{split}_unpaired") for split in SPLITS}
PROMPTS = {split: rows(f"{split}_prompts") for split in ("validation", "test")}


def test_there_is_as_much_as_promised():
    assert len(PAIRS["train"]) >= 600
    assert len({row["family"] for row in PAIRS["train"]}) >= 8
    assert sum(not row["kept_out"] for row in PROMPTS["test"]) >= 200
    assert sum(row["kept_out"] for row in PROMPTS["test"]) >= 100
    assert len({row["family"] for row in PROMPTS["test"] if row["kept_out"]}) >= 4
    assert 60 <= len(PROMPTS["validation"]) <= 100
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 3_000_000


@pytest.mark.parametrize("split", SPLITS)
def test_chosen_passes_and_rejected_fails(split):
    for row in PAIRS[split]:
        chosen, rejected = (row[side][0]["content"] for side in ("chosen", "rejected"))
        assert verify(chosen, row["verifier"]) == row["score_chosen"] == 1.0
        assert round(verify(rejected, row["verifier"]), 4) == row["score_rejected"] < 1.0
        assert chosen.strip()
        assert rejected.strip()
        assert chosen.strip() != rejected.strip()
    for row in UNPAIRED[split]:
        score = verify(row["completion"][0]["content"], row["verifier"])
        assert round(score, 4) == row["score"]
        assert (score == 1.0) is row["label"]


def test_rows_are_conversations_with_their_own_id():
    for row in [row for split in SPLITS for row in [*PAIRS[split], *UNPAIRED[split]]] + PROMPTS["test"]:
        assert [message["role"] for message in row["prompt"]] == ["user"]
        assert row["prompt_id"] == content_hash(row["prompt"])
        assert row["max_new_tokens"] == FAMILIES[row["family"]].max_new_tokens
        check_verifier(row["verifier"])
        for side in ("chosen", "rejected", "completion"):
            assert [message["role"] for message in row.get(side, [])] in ([], ["assistant"])


def test_no_completion_is_longer_than_its_limit():
    for split in SPLITS:
        lengths = [(row[side], row) for row in PAIRS[split] for side in ("length_chosen", "length_rejected")]
        for length, row in [*lengths, *((row["length"], row) for row in UNPAIRED[split])]:
            assert 0 < length <= row["max_new_tokens"]


def test_splits_share_no_prompt():
    found = {split: {row["prompt_id"] for row in [*PAIRS[split], *UNPAIRED[split]]} for split in SPLITS}
    for split in ("validation", "test"):
        prompts = {row["prompt_id"] for row in PROMPTS[split]}
        assert len(prompts) == len(PROMPTS[split])
        assert found[split] <= prompts
        found[split] = prompts
    assert not found["train"] & found["validation"]
    assert not found["train"] & found["test"]
    assert not found["validation"] & found["test"]


def test_kept_out_families_are_in_the_test_split_only():
    kept_out = {row["family"] for row in PROMPTS["test"] if row["kept_out"]}
    trained = {row["family"] for split in ("train", "validation") for row in [*PAIRS[split], *UNPAIRED[split]]}
    assert kept_out == set(CONFIG["kept_out"])
    assert trained == set(CONFIG["families"])
    assert not any(row["kept_out"] for row in PROMPTS["validation"])


def test_unpaired_rows_are_more_than_the_pairs_exploded():
    paired = {row["prompt_id"] for row in PAIRS["train"]}
    alone = [row for row in UNPAIRED["train"] if row["prompt_id"] not in paired]
    assert len(UNPAIRED["train"]) == 2 * len(paired) + len(alone)
    assert {row["label"] for row in alone} == {True, False}


def test_the_config_still_asks_these_questions():
    """The prompts are a function of the config: a changed word list or phrasing means new data."""
    names = ("families", "kept_out", "train_prompts", "validation_prompts", "test_prompts", "kept_out_prompts", "seed")
    placed = draw_splits(*(CONFIG[name] for name in names))
    for split in ("validation", "test"):
        asked = {question.prompt_id for _, found, _, question in placed if found == split}
        assert asked == {row["prompt_id"] for row in PROMPTS[split]}
    asked = {question.prompt_id for _, found, _, question in placed if found == "train"}
    assert {row["prompt_id"] for row in [*PAIRS["train"], *UNPAIRED["train"]]} <= asked


def test_the_cards_counts_are_the_files():
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    kept_out = {row["prompt_id"] for row in PROMPTS["test"] if row["kept_out"]}
    for split in SPLITS:
        for name, inside in ((split, False), (f"{split}, kept-out families", True)):
            if inside and split != "test":
                continue
            pairs, unpaired = (
                sum((row["prompt_id"] in kept_out) is inside for row in table[split]) for table in (PAIRS, UNPAIRED)
            )
            line = re.search(rf"^\| {name} \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$", card, re.MULTILINE)
            assert line, name
            assert [int(number) for number in line.groups()[2:]] == [pairs, unpaired]
            if split != "train":
                assert int(line.group(2)) == sum(row["kept_out"] is inside for row in PROMPTS[split])
    for family in CONFIG["families"]:
        count = sum(row["family"] == family for row in PAIRS["train"])
        assert re.search(rf"^\| {family} \|.* {count} \|$", card, re.MULTILINE), family
    assert "Apache-2.0" in card
    assert "python -m lightning_bnf prepare --config configs/prepare/quickstart.yaml" in card
