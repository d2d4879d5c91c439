"""Verified completions in a run: at the end for the splits asked for, and some while it trains."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from lightning_bnf import callbacks
from lightning_bnf.callbacks import RunLogger, ScorePrompts
from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


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


def fit(
    root: Path,
    model: str,
    data: PreferenceData,
    callback: ScorePrompts | list[Callback],
    learning_rate: float = 1e-4,
    max_steps: int = 2,
    checkpoint: str | None = None,
    policy: Policy | None = None,
    logger: RunLogger | bool = False,
) -> Trainer:
    torch.manual_seed(1)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=root,
        max_steps=max_steps,
        logger=logger,
        log_every_n_steps=1,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=callback if isinstance(callback, list) else [callback],
    )
    optimization = Optimization(learning_rate=learning_rate)
    module = PreferenceModule(policy or LoRAPolicy(model), BNF(), optimization=optimization)
    trainer.fit(module, data, ckpt_path=checkpoint)
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


def test_a_pass_rate_stands_where_it_was_measured(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    """Of four steps every second; the rows of the others do not repeat the last one's."""
    data = PreferenceData(verified, verified, examples_per_step=5)
    callback = ScorePrompts([], every_n_steps=2, watched_prompts=2)
    fit(tmp_path, tiny_folder, data, callback, max_steps=4, logger=RunLogger(tmp_path))
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows if row["val/pass_rate"]] == ["1", "3"]
    assert [row["step"] for row in rows if row["train/loss"]] == ["0", "1", "2", "3"]


def test_only_what_is_asked_for(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    data = PreferenceData(verified, test=verified, examples_per_step=5)
    trainer = fit(tmp_path, tiny_folder, data, ScorePrompts(["test"], kept_out_prompts=0))
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {split: [one["decoding"] for one in records] for split, records in scores.items()} == {
        "test": ["greedy"] * 3
    }
    assert "val/pass_rate" not in trainer.callback_metrics


class Unloadable(LoRAPolicy):
    """Fails the test when its weights are loaded."""

    def load(self) -> None:
        raise AssertionError("the model was loaded before the verifier was refused")


@pytest.mark.parametrize("function", ["fit", "validate", "test", "predict"])
def test_a_verifier_that_does_not_exist_is_refused_before_the_weights_are_loaded(
    tmp_path: Path, tiny_folder: str, verified: str, function: str
) -> None:
    wrong = Path(verified).with_name("wrong.jsonl")
    wrong.write_text(Path(verified).read_text().replace("ends_with_question", "ends_with_nothing"))
    data = PreferenceData(verified, str(wrong), str(wrong), examples_per_step=5)
    trainer = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        use_distributed_sampler=False,
        callbacks=[ScorePrompts(["validation"])],
    )
    with pytest.raises(Refusal, match=r"wrong.jsonl:1: verifier"):
        getattr(trainer, function)(PreferenceModule(Unloadable(tiny_folder), BNF()), datamodule=data)


def test_nothing_to_watch_is_refused(tmp_path: Path, tiny_folder: str, verified: str) -> None:
    with pytest.raises(Refusal, match="every_n_steps must be null where no validation row of a trained family"):
        fit(tmp_path, tiny_folder, PreferenceData(verified), ScorePrompts(["test"], every_n_steps=1))


def test_what_training_changed_is_compared(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], verified: str
) -> None:
    """Trained on the very test pairs, chosen log-probs rise and rejected fall, row by row; the same prompt in two rows
    is one prompt, and a resumed run compares with the policy before the first step."""
    pairs = write_pairs()
    data = PreferenceData(pairs, test=[verified, pairs], examples_per_step=5)
    callback = ScorePrompts(["test"], compare=True, pairs=4, temperature=1.0)
    trainer = fit(tmp_path, tiny_folder, data, callback, learning_rate=1e-2)
    report = json.loads((tmp_path / "before_after.json").read_text())
    lines = {line["measure"]: line for line in report["lines"]}
    assert lines["mean log-prob of chosen (nats a token)"]["n"] == 4
    assert lines["mean log-prob of chosen (nats a token)"]["low"] > 0
    assert lines["mean log-prob of rejected (nats a token)"]["high"] < 0
    assert lines["pass rate, trained families, sampled"]["n"] == 3
    assert report["settings"]["steps"] == 2
    assert report["settings"]["minutes"] >= 0
    assert (tmp_path / "before_after.md").read_text().startswith("|  ")
    completions = [json.loads(line) for line in (tmp_path / "completions.jsonl").read_text().splitlines()]
    assert len(completions) == 2 * 5, "greedy and sampled"
    after = json.loads((tmp_path / "scores.json").read_text())["test"]
    assert [line["after"] for line in completions] == [record["text"] for record in after]

    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    callback = ScorePrompts(["test"], compare=True, pairs=4, temperature=1.0)
    fit(tmp_path, tiny_folder, data, callback, max_steps=3, checkpoint=str(tmp_path / "saved.ckpt"))
    resumed = json.loads((tmp_path / "before_after.json").read_text())
    assert [line["before"] for line in resumed["lines"]] == [line["before"] for line in report["lines"]]
    assert resumed["settings"]["steps"] == 3


def test_before_is_kept_at_once_and_stays_the_starts(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], verified: str
) -> None:
    """A run that compared nothing is gone on with by one that does: what is compared with is the policy as it started,
    not as it was resumed; where the file of the start is there, it is believed."""
    pairs = write_pairs()
    data = PreferenceData(pairs, test=[verified, pairs], examples_per_step=5)

    def a_callback() -> ScorePrompts:
        return ScorePrompts(["test"], compare=True, pairs=4, temperature=1.0)

    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    fit(first, tiny_folder, data, a_callback(), learning_rate=1e-2)
    trainer = fit(second, tiny_folder, data, ScorePrompts(["test"]), learning_rate=1e-2)
    assert not (second / "before.json").exists()
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = str(tmp_path / "saved.ckpt")
    fit(second, tiny_folder, data, a_callback(), max_steps=3, checkpoint=saved)
    assert (second / "before.json").read_text() == (first / "before.json").read_text()
    held = json.loads((first / "before.json").read_text())
    held["before"]["chosen"] = [-7.0] * 4
    third.mkdir()
    (third / "before.json").write_text(json.dumps(held))
    fit(third, tiny_folder, data, a_callback(), max_steps=3, checkpoint=saved)
    lines = json.loads((third / "before_after.json").read_text())["lines"]
    assert [line["before"] for line in lines if line["measure"].startswith("mean log-prob of chosen")] == [-7.0]
    (third / "before.json").write_text(json.dumps(held | {"asked": "something else"}))
    fit(third, tiny_folder, data, a_callback(), max_steps=3, checkpoint=saved)
    assert (third / "before.json").read_text() == (first / "before.json").read_text()


def test_adapters_are_compared_with_their_start_at_the_end_and_whole_weights_before_the_first_step(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], verified: str
) -> None:
    """So that a run with adapters trains at once. Both give the same base's completions and log-probs."""

    class Looks(Callback):
        def on_train_start(self, trainer: Trainer, pl_module: object) -> None:
            there.append((Path(trainer.default_root_dir) / "before.json").is_file())

    there: list[bool] = []
    data = PreferenceData(write_pairs(), test=[verified, write_pairs("test.jsonl")], examples_per_step=5)
    for name, policy in {"lora": LoRAPolicy(tiny_folder), "full": FullPolicy(tiny_folder)}.items():
        compares = ScorePrompts(["test"], compare=True, pairs=4, temperature=1.0)
        fit(tmp_path / name, tiny_folder, data, [compares, Looks()], learning_rate=1e-2, policy=policy)
    assert there == [False, True]
    assert (tmp_path / "lora/before.json").read_text() == (tmp_path / "full/before.json").read_text()


def test_a_full_policy_whose_start_is_not_known_is_not_compared(
    tmp_path: Path, tiny_folder: str, verified: str
) -> None:
    data = PreferenceData(verified, test=verified, examples_per_step=5)
    trainer = fit(tmp_path, tiny_folder, data, ScorePrompts(["test"]), policy=FullPolicy(tiny_folder))
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    with pytest.warns(UserWarning, match=r"nothing is compared, as .*before.json holds no completions"):
        fit(
            tmp_path,
            tiny_folder,
            data,
            ScorePrompts(["test"], compare=True),
            max_steps=3,
            checkpoint=str(tmp_path / "saved.ckpt"),
            policy=FullPolicy(tiny_folder),
        )
    assert (tmp_path / "scores.json").exists()
    assert not (tmp_path / "before_after.md").exists()


def test_data_without_test_files_is_refused(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    with pytest.raises(Refusal, match=r"compare must be false where data\.test names no files, got true"):
        fit(tmp_path, tiny_folder, PreferenceData(write_pairs()), ScorePrompts(compare=True))


def test_a_saved_config_with_the_former_callback_is_told_what_to_write(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(AttributeError, match="BeforeAfter is part of ScorePrompts"):
        callbacks.BeforeAfter  # noqa: B018
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        callbacks.Nothing  # noqa: B018
    former = "[{class_path: lightning_bnf.callbacks.BeforeAfter, init_args: {pairs: 40}}]"
    with pytest.raises(SystemExit):
        main(["fit", "--config", "configs/quickstart.yaml", "--trainer.callbacks", former])
    assert "lightning_bnf.callbacks.ScorePrompts, init_args: {splits: [test], compare: true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"splits": ["train"]}, "splits must be of validation and test, got 'train'"),
        ({"splits": ["validation"], "compare": True}, r"splits must hold test .*, got \['validation'\]"),
        ({"every_n_steps": 0}, "every_n_steps must be >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(Refusal, match=sentence):
        ScorePrompts(**arguments)
