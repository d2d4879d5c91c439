"""Fixtures shared by all tests: the bundled model's tokenizer and tiny random models."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, as Lightning does: kernels run on CPUs
os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run on each core already, and the processes that they start too

import json
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from support.forked import run_ranks
from support.models import PAIRS, tiny_llama_model, write_pairs_to
from support.two_processes import Cell, run_cell, run_cells
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.losses import Loss
from lightning_bnf.policies.sources import BUNDLED, load_tokenizer

torch.set_num_threads(1)  # tiny models are slower with more, and pytest-xdist uses the cores already


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that are slow as a whole begin, and of these the ones of whole commands: workers that take files in this
    order end together."""

    def place(item: pytest.Item) -> tuple[bool, int]:
        module = item.getparent(pytest.Module)
        return module is None or module.get_closest_marker("slow") is None, len(item.path.parts)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def nothing_of_a_run_before() -> None:
    """Lightning leaves a run's seed in the environment, and ranks that a later test starts would begin with it; and a
    run that failed its handler of SIGTERM."""
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def no_forecast(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process do not plan their memory and time, which takes a third of a tiny one's time, unless the test
    is marked `forecast`; those in processes of their own do."""
    if request.node.get_closest_marker("forecast") is None:
        monkeypatch.setattr("lightning_bnf.costs.plan.forecast._expected", lambda *_: (None, None))


def _leave_empty(figure: Figure, file: Any, *, format: str | None = None, **_: Any) -> None:
    if format == "svg":
        file.write('<svg viewBox="0 0 1 1"></svg>')
    else:
        Path(file).write_bytes(b"\x89PNG\r\n\x1a\n")


@pytest.fixture(autouse=True)
def no_drawing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process write their figures empty, of which drawing takes nearly half of a tiny one's time, unless
    the test is marked `drawing` or its room is about figures; those in processes of their own draw."""
    rooms = {"pages", "results", "judging", "evaluation", "reproduction", "costs"} & set(request.path.parts)
    if not rooms and request.node.get_closest_marker("drawing") is None:
        monkeypatch.setattr(Figure, "savefig", _leave_empty)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    return load_tokenizer(BUNDLED)


@pytest.fixture(scope="session")
def tiny_llama(tokenizer: PreTrainedTokenizerBase) -> LlamaForCausalLM:
    """Do not change its weights: it is shared by all tests."""
    return tiny_llama_model(len(tokenizer)).eval()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> str:
    """A saved tiny Llama with the bundled tokenizer: what a user's own model folder looks like."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_llama_model(len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def write_pairs(tmp_path: Path) -> Callable[..., str]:
    """Writes a JSONL file of conversational pairs (5 rows, repeated as asked for) and returns its path."""

    def write(name: str = "train.jsonl", rows: int = 5, numbers: bool = False) -> str:
        return write_pairs_to(tmp_path / name, rows, numbers)

    return write


@pytest.fixture
def write_groups(tmp_path: Path) -> Callable[..., str]:
    """Writes a JSONL file of prompts with one to three samples and a rejected completion; returns its path."""

    def write(name: str = "groups.jsonl", rows: int = 5) -> str:
        path = tmp_path / name
        with path.open("w") as file:
            for i in range(rows):
                prompt, chosen, rejected = PAIRS[i % len(PAIRS)]
                samples = [f"{chosen} {k}" for k in range(1 + i % 3)]
                row = {"prompt": f"{prompt} ({i})", "samples": samples, "rejected": rejected}
                file.write(json.dumps(row) + "\n")
        return str(path)

    return write


@pytest.fixture
def write_for(write_pairs: Callable[..., str], write_groups: Callable[..., str]) -> Callable[..., str]:
    """Writes rows that a loss can learn from, of the kind that it needs; returns their path."""

    def write(loss: Loss, name: str = "train.jsonl", rows: int = 5) -> str:
        return write_groups(name, rows) if loss.needs_groups else write_pairs(name, rows, numbers=True)

    return write


_tried = count(37 * os.getpid())  # so that processes of the tests begin far from each other


def free_port() -> int:
    """Below those that systems hand out by themselves: one of these may be gone before the ranks have met at it."""
    for number in _tried:
        port = 20_000 + number % 10_000
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no port is free")


@pytest.fixture
def two(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> Callable[..., list[dict[str, Any]]]:
    """Runs cells in two processes; the losses and weights of each."""

    def run(cells: list[Cell], nodes: int = 1, ranks: int = 2) -> list[dict[str, Any]]:
        port, data = free_port(), write_pairs(rows=17)
        run_ranks(run_cells, (port, ranks, nodes, cells, tiny_folder, data, str(tmp_path)), ranks)
        return torch.load(tmp_path / "found.pt", weights_only=True)  # type: ignore[no-any-return]

    return run


@pytest.fixture
def one(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> Callable[[Cell], dict[str, Any]]:
    """Runs a cell in this process alone."""
    return lambda cell: run_cell(cell, tiny_folder, write_pairs(rows=17), 1, 1, str(tmp_path))
