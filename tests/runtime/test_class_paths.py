"""What a config may name: classes of the package and of what it is made of, and no other code."""

import sys
from pathlib import Path

import pytest

from lightning_bnf.losses import DPO
from lightning_bnf.runtime.class_paths import check_class_path, check_class_paths, class_at, restricted
from lightning_bnf.runtime.refusal import Refusal


def test_a_session_names_what_it_likes_and_the_command_line_what_is_accepted() -> None:
    assert class_at("collections.OrderedDict")
    with restricted():
        assert class_at("lightning_bnf.losses.DPO") is DPO
        with pytest.raises(
            Refusal, match=r"must be of lightning_bnf, .* got collections.OrderedDict, which is Python's"
        ):
            class_at("collections.OrderedDict")
    assert class_at("collections.OrderedDict")


@pytest.mark.parametrize(
    "path", ["torch.load", "torch.optimum.X", "lightning_bnf_x.Y", "lightningx.Z", "torch", "peft_x.Y", "mine"]
)
def test_a_package_is_accepted_by_whole_words(path: str) -> None:
    with restricted(), pytest.raises(Refusal, match="class_path must be of"):
        check_class_path(path)


def test_nothing_of_a_refused_path_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "refused_module.py").write_text("raise SystemExit('imported')\n")
    (tmp_path / "named_module.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with restricted(["named_module"]):
        with pytest.raises(Refusal, match=r"got refused_module\.Mine; .* by adding: --allow refused_module$"):
            class_at("refused_module.Mine")
        assert "refused_module" not in sys.modules
        assert class_at("named_module.Mine").__name__ == "Mine"
    with restricted(), pytest.raises(Refusal, match="--allow named_module"):
        class_at("named_module.Mine")


@pytest.mark.parametrize("name", ["os", "builtins", "subprocess.Popen", "functools", "", "a b", "../x", "jsonargparse"])
def test_the_standard_library_cannot_be_allowed(name: str) -> None:
    with pytest.raises(Refusal, match="--allow must be a module of yours"), restricted([name]):
        pass


@pytest.mark.parametrize("path", ["", "Mine", ".Mine", "lightning_bnf..DPO", "lightning_bnf."])
def test_what_is_no_path_is_an_import_error(path: str) -> None:
    with pytest.raises(ImportError):
        class_at(path)


def test_a_file_in_a_session_names_classes_of_the_packages_alone() -> None:
    """Here a spec in a list in a spec; a name without a module is looked up in the package."""
    inner = {"loss": {"class_path": "subprocess.Popen"}, "weight": 1.0}
    with pytest.raises(Refusal, match=r"got subprocess\.Popen; give an object of it instead"):
        check_class_paths({"class_path": "lightning_bnf.losses.Sum", "init_args": {"terms": [inner]}})
    check_class_paths({"class_path": "DPO", "init_args": {"beta": 0.1}})
