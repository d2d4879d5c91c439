"""The file of reference log-probs: any order, all ranks, two runs, a file that ends anywhere."""

import contextlib
import os
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
import torch
from filelock import FileLock
from support.cache import MANIFEST, A, B, C, filled

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PADDED, PlannedBatch, ToScore
from lightning_bnf.datamodules.tokens import kept_arrays
from lightning_bnf.datamodules.tokens.columns import key_numbers
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies.reference import store
from lightning_bnf.policies.reference.cached import CachedReference
from lightning_bnf.policies.reference.store import LogpsCache


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


def test_keys_with_like_halves_and_keys_that_come_twice(tmp_path: Path) -> None:
    """All 27 keys of three halves, in an order of their own, and nine of them again: the last values hold."""
    halves = [b"a" * 8, b"b" * 8, bytes(8)]
    keys = [(one + other, i) for i, one in enumerate(halves) for other in [*halves, b"c" * 8]]
    keys = [*keys[::-1], *keys[:5]]
    for rank in (0, 1):
        cache = LogpsCache(tmp_path, MANIFEST, rank)
        mine = keys[rank::2]
        cache.add([key for key, _ in mine], [torch.full((1 + at,), float(-at)) for at in range(len(mine))])
    cache.reload()
    wanted = {key: [float(-at)] * (1 + at) for rank in (0, 1) for at, (key, _) in enumerate(keys[rank::2])}
    assert len(cache) == len(wanted) == 12
    assert all(cache.get([key], ["x"]).tolist() == values for key, values in wanted.items())
    asked = [b"a" * 16, b"a" * 8 + b"d" * 8, b"b" * 16, b"z" * 16, bytes(16), b"c" * 16]
    assert cache.holds(key_numbers(asked)).tolist() == [True, False, True, False, True, False]
    assert cache.holds(key_numbers([])).tolist() == []
    other = LogpsCache(tmp_path / "other", MANIFEST)
    assert other.take(cache) == 12
    assert all(other.get([key], ["x"]).tolist() == values for key, values in wanted.items())
    assert other.take(cache) == 0


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

    fill = Thread(target=reference.fill, args=(compute, ToScore.of([planned("a"), planned("b")]), torch.device("cpu")))
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


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("name", ["keys-0.bin", "values-0.f32"])
def test_any_flipped_bit_is_noticed(tmp_path: Path, name: str, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """No bit of the two files is free: either the folder is refused, or the completion is lacking and computed anew;
    also where it is kept that the checksums of what was written were right."""
    if kept:
        monkeypatch.setattr(kept_arrays, "FROM", 1)
        monkeypatch.setattr(kept_arrays, "cache_folder", lambda: tmp_path / "kept")
    filled(tmp_path)
    assert (tmp_path / "kept").exists() == kept
    path, values = tmp_path / name, {A: [-1.0, -2.0], B: [-3.0]}
    written = path.read_bytes()
    for bit in range(8 * len(written)):
        changed = bytearray(written)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        held = read(tmp_path)
        if held is not None:
            assert name == "keys-0.bin", f"bit {bit} of a value"
            assert held.items() < values.items(), f"bit {bit}"


def read(folder: Path) -> dict[bytes, list[float]] | None:
    """What a cache holds of A and B; None where it is refused as damaged."""
    with contextlib.suppress(DataError):
        cache = LogpsCache(folder, MANIFEST)
        return {key: cache.get([key], ["x"]).tolist() for key in (A, B) if key in cache}
    return None


def test_checksums_of_what_was_read_before_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_arrays, "FROM", 1)
    monkeypatch.setattr(kept_arrays, "cache_folder", lambda: tmp_path / "kept")
    filled(tmp_path / "cache")

    def refuse(*_: object) -> int:
        raise AssertionError("made again")

    monkeypatch.setattr(store, "_checksum", refuse)
    again = LogpsCache(tmp_path / "cache", MANIFEST)
    assert again.get([B, A], ["b", "a"]).tolist() == [-3.0, -1.0, -2.0]
    monkeypatch.setattr(np, "memmap", refuse)
    again.reload()
    assert again.get([B], ["b"]).tolist() == [-3.0], "nor are files read again that are as they were"


@pytest.mark.parametrize("text", ["", '{"dtype": "float3', "[1, 2]", "\udc80"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, text: str) -> None:
    filled(tmp_path)
    (tmp_path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=r"whose manifest.json was changed or damaged since"):
        LogpsCache(tmp_path, MANIFEST)


def test_a_strangers_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(DataError, match=r"must be a new or empty folder, or a reference cache, got .*thesis.tex"):
        LogpsCache(tmp_path, MANIFEST)


def test_another_reference_is_refused_with_the_field_that_differs(tmp_path: Path) -> None:
    filled(tmp_path)
    with pytest.raises(DataError, match=r"made for another reference \(dtype: float32 there, bfloat16 here\)"):
        LogpsCache(tmp_path, MANIFEST | {"dtype": "bfloat16"})


def test_files_of_another_node_are_waited_for_until_they_are_seen_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared disk tells of them late; a made-up sleep is when it does. What never comes is named when asked for."""
    cache, sizes, slept = filled(tmp_path), {"values-1.f32": 4, "keys-1.bin": 32}, []

    def later(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            other = LogpsCache(tmp_path, MANIFEST, rank=1)
            other.add([C], [torch.tensor([-9.0])])
            assert other.written() == sizes

    monkeypatch.setattr(store.time, "sleep", later)
    cache.await_files(sizes)
    assert len(slept) == 3
    cache.reload()
    assert cache.get([C], ["c"]).tolist() == [-9.0]
    cache.await_files({"values-2.f32": 4}, seconds=0)
    assert len(slept) <= 4
