"""Every notebook runs, is thin (no functions or classes of its own), and is stored with its figures and numbers."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRAINS = "08_your_model_in_24_gb"
"""It trains: its numbers differ a little from machine to machine, and here it is a tiny model for two steps."""
NUMBER = re.compile(r"\d+(?:\.\d+)?")
ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def pictures(notebook: Any) -> list[bool]:
    """Of each cell whether it shows one."""
    return [any("image/png" in output.get("data", {}) for output in cell.outputs) for cell in cells(notebook)]


def texts(notebook: Any) -> list[str]:
    """What each cell returns, as text."""
    held = [[str(output.get("data", {}).get("text/plain", "")) for output in cell.outputs] for cell in cells(notebook)]
    return [ADDRESS.sub("", "".join(outputs)) for outputs in held]


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_stored(path: Path, tiny_folder: str) -> None:
    """The same cells show pictures and the same tables: words are equal, numbers to one in their second digit."""
    stored = nbformat.read(path, as_version=4)
    code = cells(stored)
    assert len(code) <= 12
    assert not any(line.startswith(("def ", "class ")) for cell in code for line in cell.source.splitlines())
    assert any(pictures(stored))
    for folder in ("site-packages", "ipykernel_"):
        assert folder not in path.read_text(), "a stored warning names a folder of the machine that it came from"
    run = nbformat.read(path, as_version=4)
    if path.stem == TRAINS:
        settings = cells(run)[0]
        for whole, small in (("bundled:smollm2-135m-instruct", tiny_folder), ('"max_steps": 24', '"max_steps": 2')):
            assert whole in settings.source
            settings.source = settings.source.replace(whole, small)
    NotebookClient(run, timeout=600, resources={"metadata": {"path": str(path.parent)}}).execute()
    assert pictures(run) == pictures(stored)
    if path.stem != TRAINS:
        for found, wanted in zip(texts(run), texts(stored), strict=True):
            assert NUMBER.sub("#", found).split() == NUMBER.sub("#", wanted).split()
            assert numbers(found) == pytest.approx(numbers(wanted), abs=0.011)
