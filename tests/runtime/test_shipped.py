"""Files that come with the package are found in a clone; tests/test_wheel.py finds them in an installed wheel."""

from pathlib import Path

import pytest

from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import resolved, shipped

ROOT = Path(__file__).parents[2]


def test_in_a_clone_they_lie_beside_the_package() -> None:
    assert shipped("configs/loss/bnf.yaml") == ROOT / "configs/loss/bnf.yaml"
    assert shipped("configs/loss/bnf.yaml").is_file()


def test_in_a_wheel_they_lie_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "lightning_bnf"
    (inside / "shipped").mkdir(parents=True)
    monkeypatch.setattr("lightning_bnf.__file__", str(inside / "__init__.py"))
    assert shipped("configs/quickstart.yaml") == inside / "shipped/configs/quickstart.yaml"


def test_bundled_data_are_named_without_a_folder_of_this_machine() -> None:
    assert resolved("bundled:quickstart/train_pairs.jsonl") == str(ROOT / "data/quickstart/train_pairs.jsonl")
    assert resolved("quickstart/train_pairs.jsonl") == "quickstart/train_pairs.jsonl"


def test_other_bundled_names_are_refused_with_those_there_are() -> None:
    with pytest.raises(Refusal, match=r"must be one of .*quickstart/test_pairs.jsonl, .*, got '../x'"):
        resolved("bundled:../x")
