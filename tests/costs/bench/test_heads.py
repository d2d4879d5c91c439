"""Every way from hidden states to a gradient that the bench times."""

import pytest
import torch
from support.turns import Few

from lightning_bnf.costs.bench import heads
from lightning_bnf.costs.bench.workers import Over


@pytest.mark.parametrize("kind", ["ours", "recomputed", "listing", "products:8"])
def test_every_way_through_the_head_runs(kind: str) -> None:
    turns = Few(2)
    with pytest.raises(Over):
        heads.contest(turns, kind, 20, 6, 30, True, "cpu", "float32")
    assert len(turns.told) == 2


def test_the_papers_listing_and_ours_have_the_same_gradient() -> None:
    """With Eq. 4's sign: what is compared in speed is the same computation."""
    grads = []
    for run in (heads.ours, heads.listing):
        problem = heads.Problem(30, 8, 40, True, "cpu", torch.float64)
        run(problem)()
        grads.append((problem.hidden.grad, problem.weight.grad))
    for a, b in zip(*grads):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-8)  # the listing computes in float32


def test_the_bare_products_are_those_of_the_head() -> None:
    """With logits as the gradient of logits: hidden states get z W, the weight z^T h."""
    problem = heads.Problem(20, 6, 30, True, "cpu", torch.float64)
    heads.products(problem, 8)()
    hidden, weight = problem.hidden.detach(), problem.weight.detach()
    logits = hidden @ weight.T
    torch.testing.assert_close(problem.hidden.grad, logits @ weight)
    torch.testing.assert_close(problem.weight.grad, logits.T @ hidden)
