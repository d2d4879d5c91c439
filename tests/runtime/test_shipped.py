"""Files that come with the package are found in a clone; tests/test_wheel.py finds them in an installed wheel."""

from pathlib import Path

import pytest

from lightning_bnf.runtime.shipped import here_or_shipped, shipped

ROOT = Path(__file__).parents[2]


def test_in_a_clone_they_lie_beside_the_package() -> None:
    assert shipped("configs/loss/bnf.yaml") == ROOT / "configs/loss/bnf.yaml"
    assert shipped("configs/loss/bnf.yaml").is_file()


def test_in_a_wheel_they_lie_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "lightning_bnf"
    (inside / "shipped").mkdir(parents=True)
    monkeypatch.setattr("lightning_bnf.__file__", str(inside / "__init__.py"))
    assert shipped("configs/quickstart.yaml") == inside / "shipped/configs/quickstart.yaml"


def test_documents_paths_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "data/near_duplicates/train.jsonl"
    assert here_or_shipped(name, "data") == ROOT / name
    assert here_or_shipped(name, "configs") == Path(name), "of another folder"
    for other in ("data/no.jsonl", "data/near_duplicates", "data/../LICENSE", "./my/data/x", "/data/x"):
        assert here_or_shipped(other, "data") == Path(other)
    (tmp_path / name).parent.mkdir(parents=True)
    (tmp_path / name).write_text("{}")
    assert here_or_shipped(name, "data") == Path(name), "a user's own file comes first"


def test_a_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/somebody")
    assert here_or_shipped("~/data/x.jsonl", "data") == Path("/somebody/data/x.jsonl")
