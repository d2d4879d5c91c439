"""AOT against its formula on the whole step, sorted at once."""

import pytest
import torch
from support import catalog
from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses import AOT, AOTUnpaired
from lightning_bnf.losses.aot import same_level

PAIR, LABEL = catalog.EXAMPLES.pair, catalog.EXAMPLES.label
assert PAIR is not None


def whole_step(policy: Tensor, reference: Tensor, paired: bool, beta: float = 0.01) -> Tensor:
    """The mean over the sorted differences, as the paper writes it."""
    s, r = catalog.completions(policy).sum(), catalog.completions(reference).sum()
    if paired:
        upper, lower = s[PAIR[:, 0]] - s[PAIR[:, 1]], r[PAIR[:, 0]] - r[PAIR[:, 1]]
    else:
        upper, lower = (s - r)[LABEL > 0], (s - r)[LABEL < 0]
    return -logsigmoid(beta * (upper.sort().values - lower.sort().values)).mean()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("loss", "count"), [(AOT(beta=0.7), 3), (AOTUnpaired(beta=0.7), 6)])
def test_value_and_gradient_are_those_of_the_sorted_step(loss: AOT | AOTUnpaired, count: int, seed: int) -> None:
    policy, reference = catalog.tokens(seed, 4.0).requires_grad_(), catalog.tokens(seed + 50, 4.0)
    right = whole_step(policy, reference, isinstance(loss, AOT), beta=0.7)
    ours = catalog.value(loss, policy, reference).sum() / count
    assert loss.value_count(catalog.CONTEXT) == count
    assert ours.item() == pytest.approx(right.item(), rel=1e-12)
    for a, b in zip(torch.autograd.grad(ours, policy), torch.autograd.grad(right, policy)):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-15)


def test_the_same_level_by_hand() -> None:
    """Of 2 values the levels are 1/4 and 3/4: of 4 others these lie between the two lowest and the two highest.
    Of 4 values in 2 others: the lowest below the first's centre, then 1/4 and 3/4 of the way, the highest above."""
    two, four = torch.tensor([5.0, 1.0]), torch.tensor([40.0, 10.0, 30.0, 20.0])
    assert same_level(two, four).tolist() == [35.0, 15.0]
    assert same_level(four, two).tolist() == [5.0, 1.0, 4.0, 2.0]
    assert same_level(four, -four).tolist() == [-10.0, -40.0, -20.0, -30.0]


def test_one_label_alone_is_no_example() -> None:
    from dataclasses import replace

    loss = AOTUnpaired()
    assert loss.value_count(replace(catalog.CONTEXT, dispreferred=0)) == 0
    assert loss.value_count(catalog.CONTEXT) == 6
