"""What a user of the wheel has, in an empty folder and without a clone."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from support.wheel import ROOT, installed_wheel

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_wheel(tmp_path_factory.mktemp("wheel"))


def run(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Python with the wheel's package alone, in `folder`."""
    environment = os.environ | {"PYTHONPATH": str(installed), "LIGHTNING_BNF_CACHE": str(folder / "cache")}
    return subprocess.run([sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True)


def test_all_that_a_clone_ships_is_inside(installed: Path) -> None:
    for name in ("configs", "data"):
        wanted = {path.relative_to(ROOT) for path in (ROOT / name).rglob("*") if path.is_file()}
        held = installed / "lightning_bnf/shipped"
        assert {path.relative_to(held) for path in (held / name).rglob("*") if path.is_file()} == wanted
    for path in (ROOT / "lightning_bnf").rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            assert (installed / path.relative_to(ROOT)).read_bytes() == path.read_bytes(), path


def test_the_package_is_the_wheels_and_finds_its_configs(installed: Path, tmp_path: Path) -> None:
    code = "from lightning_bnf.runtime.shipped import shipped; print(shipped('configs/loss/bnf.yaml'))"
    found = run(installed, tmp_path, "-c", code)
    assert found.stdout.strip() == str(installed / "lightning_bnf/shipped/configs/loss/bnf.yaml"), found.stderr


def test_it_says_who_what_and_where(installed: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (folder,) = installed.glob("*.dist-info")
    told = distribution("lightning_bnf").at(folder).metadata
    assert told["Version"] == project["version"]
    assert told["Summary"] == project["description"]
    assert (told["License-Expression"], told["Author"]) == (project["license"], project["authors"][0]["name"])
    assert told.get_all("Classifier") == project["classifiers"]
    assert told.get_all("Project-URL") == [f"{name}, {url}" for name, url in project["urls"].items()]


def test_the_source_distribution_has_what_the_tests_read(tmp_path: Path) -> None:
    """Built as pip's front ends build it; it holds every file of the clone."""
    code = (
        "import os, sys; os.chdir(sys.argv[1]); from setuptools.build_meta import build_sdist; "
        "print(build_sdist(sys.argv[2]))"
    )
    source = tmp_path / "source"
    made = (".git", ".venv", ".*_cache", ".hypothesis", "build", "dist", "runs", "site", "*.egg-info")
    left_out = shutil.ignore_patterns(*made)
    shutil.copytree(ROOT, source, ignore=left_out)
    built = subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path)], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {
        path.relative_to(source).as_posix()
        for path in source.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and "egg-info" not in str(path)
    }
    assert wanted <= held, sorted(wanted - held)[:5]
