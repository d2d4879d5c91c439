"""Schedules by hand, and refusals."""

import pytest
import torch

from lightning_bnf.training.optimization import Optimization


def test_warm_up_starts_above_zero_and_cosine_ends_near_zero() -> None:
    """10 steps, 2 of warm-up: 1/2, 1, then cosine from 1 over 8 steps; half-way (step 6) at 1/2."""
    factors = [Optimization(warmup_ratio=0.2).factor(step, 10) for step in range(11)]
    assert factors[:3] == [0.5, 1.0, 1.0]
    assert factors[6] == pytest.approx(0.5)
    assert factors[10] == pytest.approx(0.0)


def test_linear_and_constant() -> None:
    assert Optimization(schedule="linear", warmup_ratio=0.0).factor(5, 10) == 0.5
    assert Optimization(schedule="constant", warmup_ratio=0.0).factor(9, 10) == 1.0


def test_only_matrices_decay() -> None:
    matrix, vector = torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))
    groups = Optimization(weight_decay=0.1).optimizer([matrix, vector]).param_groups
    assert [(group["weight_decay"], len(group["params"])) for group in groups] == [(0.1, 1), (0.0, 1)]


def test_8_bit_moments_are_for_cuda_alone() -> None:
    optimization = Optimization(paged_8bit=True)
    optimization.check_device("cuda")
    with pytest.raises(ValueError, match="paged_8bit true on cpu: accepted is false there"):
        optimization.optimizer([torch.nn.Parameter(torch.ones(2, 2))])
    Optimization().check_device("cpu")


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": -1e-6},
        {"learning_rate": 0.0},
        {"warmup_ratio": 1.0},
        {"weight_decay": -0.1},
        {"schedule": "step"},
        {"betas": (0.9, 1.0)},
        {"max_grad_norm": 0.0},
    ],
)
def test_refuses_settings_out_of_range(bad: dict[str, object]) -> None:
    (name,) = bad
    with pytest.raises(ValueError, match=f"{name} .*: accepted are"):
        Optimization(**bad)  # type: ignore[arg-type]
