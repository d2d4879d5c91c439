"""Fixtures shared by all tests: the bundled model's tokenizer and tiny random models."""

import os

os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, as Lightning does: kernels run on CPUs

import json
import signal
import socket
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from support.models import PAIRS, tiny_llama_model
from support.two_processes import Cell, run_cell, run_cells
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.losses import Loss
from lightning_bnf.policies.sources import BUNDLED, load_tokenizer

torch.set_num_threads(1)  # tiny models are slower with more, and pytest-xdist uses the cores already


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
    """Writes a JSONL file of conversational pairs (5 rows, repeated as asked for) and returns its path.

    With `numbers`, every completion has all the numbers that a loss may ask for.
    """

    def write(name: str = "train.jsonl", rows: int = 5, numbers: bool = False) -> str:
        path = tmp_path / name
        with path.open("w") as file:
            for i in range(rows):
                prompt, chosen, rejected = PAIRS[i % len(PAIRS)]
                question = prompt if i < len(PAIRS) else f"{prompt} ({i})"
                row = {
                    "prompt": [{"role": "user", "content": question}],
                    "chosen": [{"role": "assistant", "content": chosen}],
                    "rejected": [{"role": "assistant", "content": rejected}],
                }
                if numbers:
                    row |= {"score_chosen": 1.0 + i, "score_rejected": -0.5 * i}
                    row |= {"win_probability_chosen": 0.9, "win_probability_rejected": 0.3}
                    row |= {"baseline_mean_logps_chosen": -1.0 - i / 10, "baseline_mean_logps_rejected": -2.0}
                file.write(json.dumps(row) + "\n")
        return str(path)

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
        mp.spawn(run_cells, args=(port, ranks, nodes, cells, tiny_folder, data, str(tmp_path)), nprocs=ranks)
        return torch.load(tmp_path / "found.pt", weights_only=True)  # type: ignore[no-any-return]

    return run


@pytest.fixture
def one(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> Callable[[Cell], dict[str, Any]]:
    """Runs a cell in this process alone."""
    return lambda cell: run_cell(cell, tiny_folder, write_pairs(rows=17), 1, 1, str(tmp_path))
