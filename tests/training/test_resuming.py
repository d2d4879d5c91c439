"""A run that goes on from a checkpoint: what must be the same, and whose settings count."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from support.models import tiny_llama_model
from support.training import Write, train
from torch import nn
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.mixing import WeightedSet
from lightning_bnf.losses import BNF, SFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.reference.providers import ReferenceKind
from lightning_bnf.training.checkpoints import CheckpointError
from lightning_bnf.training.optimization import Optimization
from lightning_bnf.training.resuming import Resuming, check_meaning, meaning_of

HELD = {"data.train": "5 rows (ab)", "model.loss": "BNF()", "only there": "x"}


def test_only_what_both_runs_know_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    check_meaning(HELD, HELD | {"only here": "y"}, changed=False)
    check_meaning(HELD, {"model.loss": "BNF()"}, changed=False)
    assert capsys.readouterr().err == ""


def test_steps_that_mean_something_else_are_refused_unless_told(caplog: pytest.LogCaptureFixture) -> None:
    other = HELD | {"data.train": "4 rows (cd)", "model.loss": "SFT()"}
    differing = r"data.train is 4 rows \(cd\) and was 5 rows \(ab\); model.loss is SFT\(\) and was BNF\(\)"
    with pytest.raises(
        CheckpointError, match=rf"^ckpt_path must be .* or model.resume_changed true, got .*: {differing}$"
    ):
        check_meaning(HELD, other, changed=False)
    with caplog.at_level("INFO"):
        check_meaning(HELD, other, changed=True)
    assert "The checkpoint's steps meant something else: data.train is 4 rows (cd)" in caplog.text


def test_bases_that_are_loaded_otherwise_are_compared_by_their_names() -> None:
    """Those that are loaded alike by their weights alone: a folder may have moved. An earlier version kept no names."""
    name = "model.policy.source"
    as_float32, as_bfloat16 = ({f"{name} (weights of LoRAPolicy {dtype})": dtype} for dtype in ("float32", "bfloat16"))
    check_meaning(as_float32 | {name: "a"}, as_float32 | {name: "b"}, changed=False)
    check_meaning(as_float32 | {name: "a"}, as_bfloat16 | {name: "a"}, changed=False)
    check_meaning(as_float32, as_bfloat16 | {name: "a"}, changed=False)
    with pytest.raises(CheckpointError, match=r"model\.policy\.source is b and was a$"):
        check_meaning(as_float32 | {name: "a"}, as_bfloat16 | {name: "b"}, changed=False)


def refused_both_ways(first: dict[str, str], second: dict[str, str], sentence: str, reverse: str) -> None:
    check_meaning(first, first, changed=False)
    for held, now, differing in ((first, second, sentence), (second, first, reverse)):
        with pytest.raises(CheckpointError, match=rf"something else: {differing}$"):
            check_meaning(held, now, changed=False)


def test_an_adapter_that_one_run_alone_starts_from_is_another_start(tmp_path: Path) -> None:
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (tmp_path / name).write_text(json.dumps({"peft_type": "LORA"}))
    bare, started, held_to_base = (
        meaning_of(LoRAPolicy("x", **given), BNF(), None)  # type: ignore[arg-type]
        for given in ({}, {"adapter": str(tmp_path)}, {"adapter": str(tmp_path), "reference_of": "base"})
    )
    fingerprint, of = "model.policy.adapter_fingerprint", "model.policy.reference_of"
    refused_both_ways(
        bare,
        started,
        rf"{fingerprint} is \w{{16}} and was None; {of} is start and was None",
        rf"{fingerprint} is None and was \w{{16}}; {of} is None and was start",
    )
    refused_both_ways(started, held_to_base, f"{of} is base and was start", f"{of} is start and was base")


def test_weights_that_one_run_alone_names_are_another_mix(tiny_folder: str, write_pairs: Write) -> None:
    """The rows are the same, their order is not."""
    path = write_pairs(rows=6)
    policy = LoRAPolicy(tiny_folder)
    plain, weighted = (PreferenceData(given, examples_per_step=3) for given in (path, [WeightedSet(path, 2.0)]))
    for data in (plain, weighted):
        data.meet(PreferenceModule(policy, BNF()))
    refused_both_ways(
        meaning_of(policy, BNF(), plain),
        meaning_of(policy, BNF(), weighted),
        r"data.train weights is \[2.0\] and was None",
        r"data.train weights is None and was \[2.0\]",
    )


def optimizer(
    optimization: Optimization, steps: int, kind: type[torch.optim.Optimizer] = torch.optim.AdamW
) -> dict[str, Any]:
    made = kind([{"params": [nn.Parameter(torch.ones(1))], "weight_decay": 0.5}], lr=optimization.learning_rate)  # type: ignore[call-arg]
    schedule = torch.optim.lr_scheduler.LambdaLR(made, lambda step: optimization.factor(step, steps))
    return {"optimizer": made, "lr_scheduler": schedule}


def saved(optimization: Optimization, steps: int, done: int) -> dict[str, Any]:
    """A run's optimizer, schedule and settings after so many steps."""
    resuming, made = Resuming(), optimizer(optimization, steps)
    resuming.keeping(made, optimization, "32-true", steps)
    for _ in range(done):
        made["optimizer"].step()
        made["lr_scheduler"].step()
    states = {name: part.state_dict() for name, part in made.items()}
    return states | {"settings": resuming._settings}


def test_this_runs_settings_count(caplog: pytest.LogCaptureFixture) -> None:
    """Linear from 1 to 0 over 10 steps, 5 of them done: 0.5. From there by 0.8 to 0 over 20 steps: 0.8 x 15/20 = 0.6;
    then 0.8 x 14/20. With the same settings the rate is what it was, and nothing is said."""
    first = Optimization(learning_rate=1.0, schedule="linear", warmup_ratio=0.0)
    held = saved(first, 10, done=5)
    for optimization, steps, rates in (
        (first, 10, (0.5, 0.4)),
        (Optimization(0.8, "linear", warmup_ratio=0.0, max_grad_norm=2.0), 20, (0.6, 0.56)),
    ):
        resuming, made = Resuming(), optimizer(optimization, steps)
        resuming.keeping(made, optimization, "32-true", steps)
        for name, part in made.items():
            part.load_state_dict(held[name])
        resuming._held = held["settings"]
        caplog.clear()
        with caplog.at_level("INFO"):
            resuming.begin(made["lr_scheduler"], torch.device("cpu"))
        (group,) = made["optimizer"].param_groups
        assert group["lr"] == pytest.approx(rates[0])
        assert group["weight_decay"] == 0.5
        made["optimizer"].step()
        made["lr_scheduler"].step()
        assert group["lr"] == pytest.approx(rates[1])
        said = "optimization.learning_rate is 0.8 and was 1.0; optimization.max_grad_norm is 2.0 and was 1.0"
        assert (said in caplog.text and "steps is 20 and was 10" in caplog.text) == (steps == 20), caplog.text


def test_an_optimizer_of_another_class_is_refused() -> None:
    optimization = Optimization(learning_rate=1.0)
    held = saved(optimization, 10, done=1)
    resuming = Resuming(changed=True)
    resuming._held = held["settings"]
    with pytest.raises(CheckpointError, match=r"model.optimizer must be AdamW, whose state .*, got SGD"):
        resuming.keeping(optimizer(optimization, 10, torch.optim.SGD), optimization, "32-true", 10)


@pytest.mark.slow
def test_a_run_goes_on_with_what_it_began_with_or_says_what_is_another(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, caplog: pytest.LogCaptureFixture
) -> None:
    """One answer of one row is changed; other seeds, losses and scales of adapters; and another learning rate counts.
    What a checkpoint says of hyper-parameters and classes is not looked at."""

    def module(loss: Any = None, alpha: float = 32.0, rate: float = 1e-2, changed: bool = False) -> PreferenceModule:
        policy = LoRAPolicy(tiny_folder, alpha=alpha)
        return PreferenceModule(policy, loss or BNF(), optimization=Optimization(rate), resume_changed=changed)

    def go_on(module: PreferenceModule, data: PreferenceData) -> PreferenceModule:
        trainer = Trainer(
            accelerator="cpu", max_steps=2, max_epochs=-1, logger=False, enable_checkpointing=False,
            enable_progress_bar=False, use_distributed_sampler=False, default_root_dir=tmp_path,
        )  # fmt: skip
        trainer.fit(module, data, ckpt_path=str(tmp_path / "at1.ckpt"), weights_only=True)
        return module

    path = write_pairs(rows=6)
    changed = tmp_path / "changed.jsonl"
    changed.write_text(Path(path).read_text().replace("Dog", "Cat"))
    first = train(tmp_path, module(), PreferenceData(path, examples_per_step=3), max_steps=1, max_epochs=-1)
    first.save_checkpoint(tmp_path / "at1.ckpt")
    held = torch.load(tmp_path / "at1.ckpt", weights_only=True)
    torch.save(held | {"hyper_parameters": {"_class_path": "no.such.Module", "loss": "SFT"}}, tmp_path / "at1.ckpt")
    same = PreferenceData(path, examples_per_step=3)
    for made, data, message in (
        (
            module(),
            PreferenceData(str(changed), examples_per_step=3),
            r"data.train is 6 rows \(\w+\) and was 6 rows \(\w+\)$",
        ),
        (module(), PreferenceData(path, examples_per_step=3, seed=2), "data.seed is 2 and was 1$"),
        (module(SFT()), same, r"model.loss is SFT\(.*\) and was BNF\("),
        (module(alpha=16.0), same, "model.policy.lora_alpha is 16.0 and was 32.0$"),
    ):
        with pytest.raises(CheckpointError, match=message):
            go_on(made, data)
    go_on(module(changed=True), PreferenceData(str(changed), examples_per_step=3))
    with caplog.at_level("INFO"):
        resumed = go_on(module(rate=5e-3), PreferenceData(path, examples_per_step=3))
    assert "optimization.learning_rate is 0.005 and was 0.01" in caplog.text
    assert isinstance(resumed.loss, BNF)
    (group, *_) = resumed.trainer.optimizers[0].param_groups
    assert group["initial_lr"] == 5e-3


@pytest.mark.parametrize("reference", ["copy", "cache"])
def test_tied_weights_go_on_from_a_checkpoint(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, reference: ReferenceKind
) -> None:
    """As in most small models, whose head is their embeddings: one tensor under two names."""
    model, path = tmp_path / "tied", write_pairs(rows=8)
    tiny_llama_model(len(tokenizer), tie_word_embeddings=True).save_pretrained(model)
    tokenizer.save_pretrained(model)

    def module() -> PreferenceModule:
        cache = str(tmp_path / "cache") if reference == "cache" else None
        optimization = Optimization(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0)
        return PreferenceModule(FullPolicy(str(model)), BNF(), reference, optimization, reference_cache=cache)

    def fitted(module: PreferenceModule, steps: int, checkpoint: Path | None = None) -> Trainer:
        data = PreferenceData(path, examples_per_step=2)
        return train(tmp_path, module, data, checkpoint, max_steps=steps, max_epochs=-1)

    whole, second = module(), module()
    fitted(whole, 4)
    fitted(module(), 2).save_checkpoint(tmp_path / "at2.ckpt")
    fitted(second, 4, tmp_path / "at2.ckpt")
    assert second.policy.causal_lm.lm_head.weight is second.policy.causal_lm.get_input_embeddings().weight
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name
