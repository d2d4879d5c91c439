"""Caches that travel: to a folder or a dataset of the hub, and from there beside what is there already."""

import json
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from support.cache import MANIFEST, A, B, C, filled
from support.hubs import FolderHub, folder_hub

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.policies.reference.travel import Travel, pulled, push
from lightning_bnf.runtime.refusal import Refusal


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    return folder_hub(tmp_path / "hub", monkeypatch)


@pytest.mark.parametrize("where", ["folder", "hub"])
def test_what_is_pushed_is_pulled(
    where: str, tmp_path: Path, hub: FolderHub, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two caches of one reference go to one place, and come to a third user, who lacks nothing of either."""
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "user"))
    place = str(tmp_path / "shared") if where == "folder" else "me/logps"
    push(Travel(push=place), filled(tmp_path / "one"))
    other = LogpsCache(tmp_path / "two", MANIFEST)
    other.add([A, C], [torch.tensor([-1.0, -2.0]), torch.tensor([-4.0])])
    other.reload()
    push(Travel(push=place), other)
    assert "1 of 2 completions added to" in capsys.readouterr().out
    target = pulled(Travel(pull=place), None)
    assert target.parent == tmp_path / "user/reference"
    found = LogpsCache(target, MANIFEST)
    assert len(found) == 3
    assert found.get([C, B, A], ["c", "b", "a"]).tolist() == [-4.0, -3.0, -1.0, -2.0]
    assert pulled(Travel(pull=place), str(target)) == target
    assert "0 of 3 completions" in capsys.readouterr().out
    if where == "hub":
        assert hub.public == set(), "a new dataset is private"
        card = (hub.at(place, "dataset") / "README.md").read_text()
        assert "3 completions" in card
        assert all(f"| {key} | `{value}` |" in card for key, value in MANIFEST.items())


def test_another_references_cache_is_left_alone(tmp_path: Path, hub: FolderHub) -> None:
    push(Travel(push="me/logps"), filled(tmp_path / "one"))
    held = {path: path.read_bytes() for path in hub.at("me/logps", "dataset").iterdir()}
    other = LogpsCache(tmp_path / "two", MANIFEST | {"weights": "others"})
    with pytest.raises(DataError, match=r"weights: .* there, others here"):
        push(Travel(push="me/logps"), other)
    assert {path: path.read_bytes() for path in hub.at("me/logps", "dataset").iterdir()} == held
    with pytest.raises(DataError, match="made for another reference"):
        pulled(Travel(pull="me/logps"), str(tmp_path / "two"))


def test_what_cannot_be_is_refused_before_the_work(tmp_path: Path, hub: FolderHub) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("x")
    with pytest.raises(Refusal, match=r"push must be a new or empty folder or a reference cache, got .*mine"):
        Travel(push=str(tmp_path / "mine")).check()
    with pytest.raises(Refusal, match=r"pull must be a reference cache, got .*mine, which holds no manifest.json"):
        pulled(Travel(pull=str(tmp_path / "mine")), None)
    hub.at("me/open", "dataset").mkdir(parents=True)
    hub.public.add("me/open")
    with pytest.raises(Refusal, match="push must be a private dataset of the hub, or public true, got me/open"):
        Travel(push="me/open").check()
    Travel(push="me/open", public=True).check()
    hub.writable = False
    with pytest.raises(Refusal, match="push must be 'me/new', a dataset of the hub that can be written, got: Token"):
        Travel(push="me/new").check()
    with pytest.raises(Refusal, match="pull must be 'me/none', a dataset of the hub that can be read, got: 404"):
        pulled(Travel(pull="me/none"), None)
    with pytest.raises(Refusal, match="revision must be null unless pull is a dataset of the hub"):
        Travel(pull=str(tmp_path), revision="main")
    with pytest.raises(Refusal, match="public must be false unless push is a dataset of the hub"):
        Travel(push=str(tmp_path), public=True)


def test_a_damaged_cache_is_not_pulled(tmp_path: Path) -> None:
    filled(tmp_path / "one")
    values = tmp_path / "one/values-0.f32"
    values.write_bytes(bytes([values.read_bytes()[0] ^ 1]) + values.read_bytes()[1:])
    with pytest.raises(DataError, match=r"whose values-0.f32 was changed or damaged"):
        pulled(Travel(pull=str(tmp_path / "one")), str(tmp_path / "two"))
    assert not (tmp_path / "two").exists()
    filled(tmp_path / "three")
    (tmp_path / "three/manifest.json").write_text(json.dumps([1]))
    with pytest.raises(Refusal, match=r"whose manifest.json is damaged"):
        pulled(Travel(pull=str(tmp_path / "three")), str(tmp_path / "two"))


def test_a_cache_that_a_run_fills_is_not_written_to(tmp_path: Path) -> None:
    target = filled(tmp_path / "one")
    with FileLock(target.folder / "writing.lock"), pytest.raises(Refusal, match="got one that a run is filling"):
        pulled(Travel(pull=str(filled(tmp_path / "two").folder)), str(target.folder))
