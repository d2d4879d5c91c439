"""Gathering tensors of different lengths from two processes."""

from pathlib import Path

import pytest
import torch
from support import two_processes
from support.forked import run_ranks

from lightning_bnf.runtime.distributed import gather


def test_alone_it_is_the_tensor_itself() -> None:
    values = torch.arange(3)
    assert gather(values).values is values
    assert gather(values).first == 0


@pytest.mark.slow
def test_ranks_are_joined_in_their_order(tmp_path: Path) -> None:
    run_ranks(two_processes.gather_some, (str(tmp_path),), 2)
    for rank, first in ((0, 0), (1, 3)):
        values, where, pairs, pairs_where = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert values.tolist() == [0, 1, 2, 7]
        assert where == first
        assert pairs.tolist() == [[1.0, 1.0]]
        assert pairs_where == 0
