"""Operations, what they move, and what they take at a speed."""

from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from lightning_bnf.costs.plan.depth import Depths
from lightning_bnf.costs.plan.gpus import Speed
from lightning_bnf.costs.plan.roofline import CountOperations, StepFlops, StepWork, Work
from lightning_bnf.policies.head import choose
from lightning_bnf.policies.head.softmax import Logits

SPEED = Speed(products=100.0, attention=50.0, memory=10.0, links=1.0)


def test_an_operation_takes_what_takes_longer() -> None:
    assert SPEED.seconds("products", 200, 10) == 2.0
    assert SPEED.seconds("attention", 200, 10) == 4.0
    assert SPEED.seconds("products", 200, 30) == 3.0
    assert SPEED.seconds("memory", 0, 30) == 3.0


def test_operations_count_what_they_compute_and_move() -> None:
    """float32: (2, 3) @ (3, 4) is 48 operations on 24 + 48 bytes that are read and 32 that are written."""
    with FakeTensorMode(), CountOperations({}) as counter:
        a, b = torch.empty(2, 3), torch.empty(3, 4)
        c = a @ b
        c.add_(1.0)
        c.view(8).t()
        c.zero_()
        torch.mm(a, b, out=c)
        torch.nn.functional.embedding(torch.empty(1, dtype=torch.long), torch.empty(1000, 4))
    assert counter.done == {
        Work("products", 48, 104): 2,
        Work("memory", 0, 64): 1,
        Work("memory", 0, 32): 2,  # setting to zero; and a row of the table, read and written
    }


def test_the_softmax_of_a_gpu_is_one_kernel() -> None:
    """10 x 30 logits: 1,200 bytes, read twice, and 600 of scores."""
    with FakeTensorMode(), (counter := CountOperations({})).softmax_is_a_kernel(), counter:
        logits = Logits(torch.empty(10, 30), torch.empty(10, dtype=torch.long), None, 1.0, None)
        choose.tile_softmax(logits, True, None, torch.bfloat16)
    assert counter.done == {Work("head", 0, 3000): 1}
    assert choose.softmax_in_blocks.__module__ == "lightning_bnf.policies.head.softmax"


def test_deep_models_follow_from_shallow_ones() -> None:
    """3 and 5 layers of 10 operations each, and 7 beside them, are 37 and 57; 31 layers are 317."""
    less, more = (Counter({Work("products", 10, 1): layers, Work("head", 7, 1): 1}) for layers in (3, 5))
    work = StepWork((less, more), (less, more), Depths(3, 5, 31))
    assert work.flops == StepFlops(317, 317)
    assert work.seconds(SPEED) == {"products": pytest.approx(3.1), "head": pytest.approx(0.1)}
