"""Verified completions in a run: at the end for the splits asked for, and some while it trains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from lightning_bnf.callbacks import ScorePrompts
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy


@pytest.fixture
def verified(tmp_path: Path, write_pairs: Callable[..., str]) -> str:
    """Five pairs with verifiers; the second and the fourth are of a kept-out family."""
    rows = [json.loads(line) for line in Path(write_pairs("plain.jsonl")).read_text().splitlines()]
    path = tmp_path / "verified.jsonl"
    extra = {"verifier": {"name": "ends_with_question"}, "max_new_tokens": 4}
    with path.open("w") as file:
        for i, row in enumerate(rows):
            more = {"prompt_id": f"p{i}", "family": f"f{i % 2}", "kept_out": i % 2 == 1}
            file.write(json.dumps(row | extra | more) + "\n")
    return str(path)


def fit(root: Path, model: str, data: PreferenceData, callback: ScorePrompts) -> Trainer:
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=root,
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[callback],
    )
    trainer.fit(PreferenceModule(LoRAPolicy(model), BNF()), data)
    return trainer


def test_scores_of_the_prompts_asked_for(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    """Of each split two of the three trained prompts and one of the two kept-out ones, greedy and sampled."""
    data = PreferenceData(verified, verified, verified, examples_per_step=5)
    callback = ScorePrompts(trained_prompts=2, kept_out_prompts=1, every_n_steps=1, watched_prompts=2, temperature=1.0)
    trainer = fit(tmp_path, tiny_folder, data, callback)
    scores: dict[str, list[dict[str, Any]]] = json.loads((tmp_path / "scores.json").read_text())
    for split in ("validation", "test"):
        found = [(one["prompt_id"], one["decoding"], one["groups"][0]) for one in scores[split]]
        prompts = [("p0", "trained"), ("p2", "trained"), ("p1", "kept-out")]
        assert found == [(name, how, group) for how in ("greedy", "sampled") for name, group in prompts]
        assert all(one["length"] <= 4 for one in scores[split])
    assert 0 <= float(trainer.callback_metrics["val/pass_rate"]) <= 1


def test_only_what_is_asked_for(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    data = PreferenceData(verified, test=verified, examples_per_step=5)
    trainer = fit(tmp_path, tiny_folder, data, ScorePrompts(["test"], kept_out_prompts=0))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {split: [one["decoding"] for one in records] for split, records in scores.items()} == {
        "test": ["greedy"] * 3
    }
    assert "val/pass_rate" not in trainer.callback_metrics


def test_nothing_to_watch_is_refused(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    with pytest.raises(ValueError, match="no validation row of a trained family carries a verifier"):
        fit(tmp_path, tiny_folder, PreferenceData(verified), ScorePrompts(["test"], every_n_steps=1))


@pytest.mark.parametrize("arguments", [{"splits": ["train"]}, {"every_n_steps": 0}])
def test_bad_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="accepted are"):
        ScorePrompts(**arguments)
