"""The reference cache: values come back bit-equal, whatever the order, the subset, the loss, or a kill in between."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from support.cache import A, B, filled
from support.training import FAST, Write, train

from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.losses import BNF, DPO, KTO, Loss, SimPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.policies.reference.cached import CachedReference, open_cache
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.runtime.fingerprints import content_key

pytestmark = pytest.mark.slow


def test_keys_cover_the_boundary_and_the_mask() -> None:
    keys = {
        content_key([1, 2], [3, 4], [True, True]),
        content_key([1], [2, 3, 4], [True, True, True]),
        content_key([1, 2], [3, 4], [False, True]),
        content_key([1, 2], [3, 5], [True, True]),
    }
    assert len(keys) == 4
    assert content_key([1, 2], [3, 4], [True, True]) in keys


def module(
    folder: str, cache: Path | None, loss: Loss | None = None, make: Any = FullPolicy, **more: Any
) -> PreferenceModule:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"reference": "cache", "reference_cache": str(cache)} if cache else {}
    return PreferenceModule(make(folder), loss or BNF(), optimization=FAST, **settings, **more)


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
@pytest.mark.parametrize("loss", [BNF(), KTO()], ids=["bnf", "kto"])
def test_training_with_the_cache_equals_training_without(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, loss: Loss, make: Any
) -> None:
    path, ends = write_pairs(rows=10), []
    for cache in (None, tmp_path / "cache"):
        one = module(tiny_folder, cache, loss, make)
        data = PreferenceData(path, validation=write_pairs("val.jsonl"), examples_per_step=4, max_tokens=300)
        trainer = train(tmp_path, one, data)
        ends.append((one.policy.state_dict(), float(trainer.callback_metrics["val/loss"])))
    assert not isinstance(one.reference, FrozenCopy)
    assert ends[0][1] == pytest.approx(ends[1][1], rel=1e-4)
    for name, value in ends[0][0].items():
        torch.testing.assert_close(value, ends[1][0][name], rtol=1e-3, atol=2e-5)


def test_a_full_cache_is_reused_by_other_losses_orders_and_subsets(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache = write_pairs(rows=8), tmp_path / "cache"
    train(tmp_path, module(tiny_folder, cache, KTO()), PreferenceData(path, examples_per_step=4))
    size = (cache / "values-0.f32").stat().st_size

    def refuse(*_: Any) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(LogpsCache, "add", refuse)
    monkeypatch.setattr(PreferenceData, "_batches", refuse)
    (tmp_path / "part.jsonl").write_text("".join(Path(path).read_text().splitlines(keepends=True)[2:6]))
    for loss, rows in ((DPO(), path), (BNF(), str(tmp_path / "part.jsonl"))):
        train(tmp_path, module(tiny_folder, cache, loss), PreferenceData(rows, examples_per_step=3, seed=9))
    train(tmp_path, module(tiny_folder, cache, DPO(), LoRAPolicy), PreferenceData(path, examples_per_step=4))
    assert (cache / "values-0.f32").stat().st_size == size


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
def test_a_short_run_waits_for_the_log_probs_of_its_own_steps_alone(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: Any
) -> None:
    """Two steps of three pairs, without validation; a longer run finds those, and adds the others before it trains."""
    path, others, held = write_pairs(rows=15), Path(write_pairs("others.jsonl", rows=17)), []
    validation = tmp_path / "validation.jsonl"
    validation.write_text("".join(others.read_text().splitlines(keepends=True)[15:]))
    for options in (
        {"max_steps": 2, "limit_val_batches": 0},
        {"max_steps": 2, "limit_val_batches": 1},
        {"max_epochs": 1, "limit_train_batches": 3},
        {"max_epochs": 1},
    ):
        one = module(tiny_folder, tmp_path / "cache", DPO(), make)
        data = PreferenceData(path, validation=str(validation), examples_per_step=3, max_tokens=300)
        train(tmp_path, one, data, **options)
        assert isinstance(one.reference, CachedReference)
        held.append(len(one.reference.cache))
    assert held == [12, 16, 22, 34]


@pytest.mark.parametrize("loss", [DPO(), KTO()], ids=["dpo", "kto"])
def test_what_a_limited_fit_has_stored_is_enough_for_as_limited_a_validation(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, loss: Loss
) -> None:
    """One step of 128 rows out of two; more than that cannot be had of weights that are trained."""
    one, rows = module(tiny_folder, tmp_path / "cache", loss), write_pairs("val.jsonl", rows=140)
    data = PreferenceData(write_pairs(rows=2), validation=rows, test=rows, examples_per_step=2, max_tokens=300)
    trainer = train(tmp_path, one, data, max_epochs=1, limit_val_batches=1, limit_test_batches=1)
    fitted = float(trainer.callback_metrics["val/loss"])
    assert trainer.validate(one, data)[0]["val/loss"] == pytest.approx(fitted)
    assert trainer.test(one, data)[0]["test/loss"] == pytest.approx(fitted)
    trainer.limit_test_batches = 1.0
    with pytest.raises(PolicyError, match="in Python a fit with max_steps=0, or a test, of a new policy"):
        trainer.test(one, data)


def test_all_weights_go_on_with_more_steps_than_were_planned_when_the_cache_is_full(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """A run of no steps is what the command makes."""
    path, cache = write_pairs(rows=15), tmp_path / "cache"

    def fit(steps: int, checkpoint: Path | None = None) -> Trainer:
        data = PreferenceData(path, examples_per_step=3, max_tokens=300)
        return train(
            tmp_path, module(tiny_folder, cache, DPO(), resume_changed=True), data, checkpoint, max_steps=steps
        )

    fit(2).save_checkpoint(tmp_path / "two.ckpt")
    with pytest.raises(PolicyError, match=r"must be filled before training .*: 12 completions are lacking"):
        fit(4, tmp_path / "two.ckpt")
    fit(0)
    assert fit(4, tmp_path / "two.ckpt").global_step == 4


def test_a_killed_filling_goes_on_where_it_was(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, cache, real = write_pairs(rows=8), tmp_path / "cache", LogpsCache.add
    added: list[int] = []

    def dies(self: LogpsCache, keys: Any, values: Any) -> None:
        if len(added) == 2:
            raise KeyboardInterrupt
        added.append(len(keys))
        real(self, keys, values)

    monkeypatch.setattr(LogpsCache, "add", dies)
    data = PreferenceData(path, max_tokens=100)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, module(tiny_folder, cache), data, max_epochs=1)
    held = sum(added)
    again: list[int] = []

    def counts(self: LogpsCache, keys: Any, values: Any) -> None:
        again.append(len(keys))
        real(self, keys, values)

    monkeypatch.setattr(LogpsCache, "add", counts)
    train(tmp_path, module(tiny_folder, cache), PreferenceData(path, max_tokens=100), max_epochs=1)
    assert held > 0
    assert held + sum(again) == 16


def test_a_trained_policy_is_never_taken_for_its_reference(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """A full policy that goes on from a checkpoint, with a cache that lacks something: refused, not computed."""
    from lightning.pytorch import Trainer

    cache = tmp_path / "cache"
    first = train(tmp_path, module(tiny_folder, cache), PreferenceData(write_pairs()), max_steps=1, max_epochs=-1)
    first.save_checkpoint(tmp_path / "one.ckpt")
    more = PreferenceData(write_pairs("more.jsonl", rows=9))
    trainer = Trainer(
        accelerator="cpu", max_steps=2, logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    with pytest.raises(PolicyError, match="completions are lacking, and the policy is no longer its reference"):
        trainer.fit(module(tiny_folder, cache, resume_changed=True), more, ckpt_path=str(tmp_path / "one.ckpt"))


def test_a_module_that_was_trained_is_no_reference_for_another_trainer(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """One Trainer trains it, a second validates it on further rows: its own step count says nothing of the first's."""
    from lightning.pytorch import Trainer

    trained = module(tiny_folder, tmp_path / "cache")
    train(tmp_path, trained, PreferenceData(write_pairs()), max_steps=1, max_epochs=-1)
    more = PreferenceData(validation=write_pairs("more.jsonl", rows=9))
    other = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    with pytest.raises(PolicyError, match="completions are lacking, and the policy is no longer its reference"):
        other.validate(trained, more)


def test_another_config_of_the_same_weights_is_refused(tmp_path: Path, tiny_folder: str) -> None:
    """rope_theta moves log-probs by nats, and stands in no weight."""
    policy = FullPolicy(tiny_folder)
    policy.load()
    open_cache(policy, str(tmp_path), 0)
    policy.causal_lm.config.rope_parameters["rope_theta"] = 7.0
    with pytest.raises(DataError, match=r"another reference \(config.rope_parameters: .* there, .*7.0.* here"):
        open_cache(policy, str(tmp_path), 0)


def test_other_weights_are_refused(tmp_path: Path, tiny_folder: str) -> None:
    policy = FullPolicy(tiny_folder)
    policy.load()
    open_cache(policy, str(tmp_path), 0)
    with torch.no_grad():
        policy.causal_lm.get_input_embeddings().weight[0, 0] += 1.0  # type: ignore[union-attr,index]
    with pytest.raises(DataError, match="made for another reference \\(weights: "):
        open_cache(policy, str(tmp_path), 0)


def test_the_command_fills_it_before_training(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "user"))
    config = {
        "model": {
            "policy": {"class_path": "lightning_bnf.policies.FullPolicy", "init_args": {"source": tiny_folder}},
            "loss": {"class_path": "lightning_bnf.losses.BNF"},
        },
        "data": {"train": write_pairs(rows=6)},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": str(tmp_path / "run")},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    main(["cache", "--config", str(tmp_path / "config.yaml")])
    (folder,) = (tmp_path / "user/reference").iterdir()
    assert f"12 completions in {folder}" in capsys.readouterr().out
    fields = {name.partition(".")[0] for name in json.loads((folder / "manifest.json").read_text())}
    assert fields == {"weights", "dtype", "config", "tokenizer", "template", "format"}
    assert not (tmp_path / "run/config.yaml").exists()
    before = (folder / "values-0.f32").read_bytes()
    main(["fit", "--config", str(tmp_path / "config.yaml"), "--model.reference", "cache"])
    assert (folder / "values-0.f32").read_bytes() == before
    with pytest.raises(SystemExit):
        main(["cache", "--config", str(tmp_path / "config.yaml"), "--model.loss", SimPO.__name__])
    assert "SimPO: it needs no reference, so none is cached" in capsys.readouterr().err


def test_the_provider_gives_the_batchs_values_in_its_order(tmp_path: Path, tiny_folder: str) -> None:
    from types import SimpleNamespace

    cache = filled(tmp_path)
    batch: Any = SimpleNamespace(keys=(B, A), row_ids=("b", "a"), target=torch.zeros(3))
    assert CachedReference(cache)(batch).tolist() == [-3.0, -1.0, -2.0]


def test_the_cache_is_filled_in_the_runs_precision_and_says_so(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """Under bf16-mixed policy and cached reference agree at the start, as by a pass with autocast and by none without;
    a run in float32 takes another cache."""
    cache, data = tmp_path / "cache", PreferenceData(write_pairs(), examples_per_step=5)
    one = module(tiny_folder, cache)
    train(tmp_path, one, data, precision="bf16-mixed", max_epochs=0)
    assert isinstance(one.reference, CachedReference)
    batch = next(iter(data.train_dataloader())).micro_batches[0]
    with torch.no_grad():
        apart = [(one.policy(batch).token_logps - one.reference(batch)).abs().max().item()]
        with torch.autocast("cpu", torch.bfloat16):
            apart.append((one.policy(batch).token_logps - one.reference(batch)).abs().max().item())
    assert apart[0] > 1e-3
    assert apart[1] < 1e-6
    assert json.loads((cache / "manifest.json").read_text())["precision"] == "bf16-mixed"
    with pytest.raises(DataError, match="precision: bf16-mixed there, None here"):
        train(tmp_path, module(tiny_folder, cache), data)


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
def test_weights_that_are_converted_have_a_cache_of_their_own(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: Any
) -> None:
    """Under bf16-true a float32 policy's reference is one in bfloat16: no run in 32-true takes its numbers, whatever
    type it was loaded in. It is the same before the conversion and after it, when a full policy fills its cache."""
    cache, data = tmp_path / "cache", PreferenceData(write_pairs(), examples_per_step=5)
    one = module(tiny_folder, cache, make=make)
    train(tmp_path, one, data, precision="bf16-true", max_epochs=0)
    assert len(open_cache(one.policy, str(cache), 0, "bf16-true")) == 10
    manifest = json.loads((cache / "manifest.json").read_text())
    assert (manifest["dtype"], manifest["precision"]) == ("float32", "bf16-true")
    for dtype, told in (("float32", "precision: bf16-true there, None here"), ("bfloat16", "dtype: float32 there")):
        with pytest.raises(DataError, match=told):
            train(tmp_path, module(tiny_folder, cache, make=partial(make, dtype=dtype)), data)
