"""The reference cache: values come back bit-equal, whatever the order, the subset, the loss, or a kill in between."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import yaml
from filelock import FileLock
from support.training import FAST, train

from lightning_bnf.batch import MicroBatch
from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PADDED, PlannedBatch
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses import BNF, DPO, KTO, Loss, SimPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.policies.reference.cached import CachedReference, open_cache
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.runtime.fingerprints import content_key

Write = Callable[..., str]
A, B, C = (bytes([i]) * 16 for i in range(3))
MANIFEST = {"weights": "w", "dtype": "float32"}


def filled(folder: Path, rank: int = 0) -> LogpsCache:
    cache = LogpsCache(folder, MANIFEST, rank)
    cache.add([A, B], [torch.tensor([-1.0, -2.0]), torch.tensor([-3.0])])
    cache.reload()
    return cache


def test_values_come_back_in_any_order(tmp_path: Path) -> None:
    cache = filled(tmp_path)
    cache.add([C], [torch.tensor([-4.0, -5.0], dtype=torch.float64)])
    again = LogpsCache(tmp_path, MANIFEST)
    assert len(again) == 3
    assert again.get([C, A], ["c", "a"]).tolist() == [-4.0, -5.0, -1.0, -2.0]
    assert again.get([B], ["b"]).dtype == torch.float32
    assert again.get([], []).shape == (0,)
    with pytest.raises(DataError, match="it lacks a completion of row missing"):
        again.get([A, bytes(15) + b"x"], ["a", "missing"])


def test_the_files_of_all_ranks_are_read(tmp_path: Path) -> None:
    filled(tmp_path, rank=0)
    other = LogpsCache(tmp_path, MANIFEST, rank=1)
    other.add([C], [torch.tensor([-9.0])])
    assert LogpsCache(tmp_path, MANIFEST).get([C, B], ["c", "b"]).tolist() == [-9.0, -3.0]


@pytest.mark.parametrize("lost", [*range(13), *range(15, 60, 7)])
def test_a_file_that_ends_anywhere_is_gone_on_with(tmp_path: Path, lost: int) -> None:
    """Cut the keys by some bytes, or the values: what is whole stays, and what is added afterwards is right."""
    for name in ("keys-0.bin", "values-0.f32"):
        folder = tmp_path / name
        filled(folder)
        path = folder / name
        os.truncate(path, max(0, path.stat().st_size - lost))
        size = path.stat().st_size
        cache = LogpsCache(folder, MANIFEST)
        held = [key for key in (A, B) if key in cache]
        assert path.stat().st_size == size, "who only reads changes nothing: another run may be writing"
        cache.reload(mend=True)
        assert [key for key in (A, B) if key in cache] == held
        cache.add([C], [torch.tensor([-7.0, -8.0])])
        again = LogpsCache(folder, MANIFEST)
        assert again.get([C], ["c"]).tolist() == [-7.0, -8.0]
        values = {A: [-1.0, -2.0], B: [-3.0]}
        assert all(again.get([key], ["x"]).tolist() == values[key] for key in held)
        assert len(again) == len(held) + 1


def planned(name: str) -> PlannedBatch:
    completions = (TokenizedCompletion([5, 6], [True, True], 1),)
    return PlannedBatch([TokenizedRow(name, f"file:{name}", "unpaired", [ord(name)], completions)], PADDED)


def test_two_runs_fill_a_cache_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While another run writes, this one waits, says so, and then computes only what is lacking still."""
    said: list[str] = []
    monkeypatch.setattr("lightning_bnf.policies.reference.cached.rank_zero_info", said.append)
    reference, computed = CachedReference(LogpsCache(tmp_path, MANIFEST)), []

    def compute(batch: MicroBatch) -> torch.Tensor:
        computed.extend(batch.row_ids)
        return torch.tensor([-1.0, -2.0])

    fill = Thread(target=reference.fill, args=(compute, [planned("a"), planned("b")], torch.device("cpu")))
    with FileLock(tmp_path / "writing.lock"):
        fill.start()
        while not said:
            assert fill.is_alive()
        assert said == [f"reference cache {tmp_path}: another run is filling it, which is waited for"]
        assert computed == []
        other = LogpsCache(tmp_path, MANIFEST)
        other.add(planned("a").content_keys(), [torch.tensor([-7.0, -8.0])])
    fill.join(20)
    assert computed == ["b"]
    keys = [*planned("a").content_keys(), *planned("b").content_keys()]
    assert reference.cache.get(keys, ["a", "b"]).tolist() == [-7.0, -8.0, -1.0, -2.0]


def test_another_reference_is_refused_with_the_field_that_differs(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(DataError, match=r"made for another reference \(dtype: float32 there, bfloat16 here\)"):
        LogpsCache(tmp_path, MANIFEST | {"dtype": "bfloat16"})


def test_keys_cover_the_boundary_and_the_mask() -> None:
    keys = {
        content_key([1, 2], [3, 4], [True, True]),
        content_key([1], [2, 3, 4], [True, True, True]),
        content_key([1, 2], [3, 4], [False, True]),
        content_key([1, 2], [3, 5], [True, True]),
    }
    assert len(keys) == 4
    assert content_key([1, 2], [3, 4], [True, True]) in keys


def module(folder: str, cache: Path | None, loss: Loss | None = None, make: Any = FullPolicy) -> PreferenceModule:
    torch.manual_seed(1)
    settings: dict[str, Any] = {"reference": "cache", "reference_cache": str(cache)} if cache else {}
    return PreferenceModule(make(folder), loss or BNF(), optimization=FAST, **settings)


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
    (tmp_path / "part.jsonl").write_text("".join(Path(path).read_text().splitlines(keepends=True)[2:6]))
    for loss, rows in ((DPO(), path), (BNF(), str(tmp_path / "part.jsonl"))):
        train(tmp_path, module(tiny_folder, cache, loss), PreferenceData(rows, examples_per_step=3, seed=9))
    train(tmp_path, module(tiny_folder, cache, DPO(), LoRAPolicy), PreferenceData(path, examples_per_step=4))
    assert (cache / "values-0.f32").stat().st_size == size


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
    data = PreferenceData(path, max_tokens=200)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(tmp_path, module(tiny_folder, cache), data, max_epochs=1)
    held = sum(added)
    again: list[int] = []

    def counts(self: LogpsCache, keys: Any, values: Any) -> None:
        again.append(len(keys))
        real(self, keys, values)

    monkeypatch.setattr(LogpsCache, "add", counts)
    train(tmp_path, module(tiny_folder, cache), PreferenceData(path, max_tokens=200), max_epochs=1)
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
        trainer.fit(module(tiny_folder, cache), more, ckpt_path=str(tmp_path / "one.ckpt"))


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
    assert set(json.loads((folder / "manifest.json").read_text())) == {"weights", "dtype", "tokenizer", "template"}
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
