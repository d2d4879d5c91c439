"""Means over a step, and the preference metrics on hand-made numbers."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from lightning_bnf.losses import Examples
from lightning_bnf.losses.completions import Completions
from lightning_bnf.training.metrics import Means, preference_metrics


def test_means_weigh_values_not_micro_batches_and_leave_absent_names_out() -> None:
    means = Means(["a", "b", "never"])
    means.update({"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([5.0])})
    means.update({"a": torch.tensor([6.0])})
    assert means.compute() == {"a": 3.0, "b": 5.0}
    means.reset()
    assert means.compute() == {}


@pytest.mark.parametrize("convert", [lambda one: one.to(torch.bfloat16), lambda one: one.half()], ids=["to", "half"])
def test_sums_and_counts_stay_float64_in_a_module_of_another_type(convert: Callable[[nn.Module], object]) -> None:
    """In bfloat16 both would stand still: two thirds, of 6000 values. A move to a device is one."""
    means = Means(["a"])
    held = nn.ModuleDict({"means": means})
    convert(held)
    for _ in range(2):  # also what the states are reset to
        for _ in range(2000):
            means.update({"a": torch.tensor([1.0, 1.0, 0.0])})
        assert means.counts.tolist() == [6000.0]
        assert means.compute() == {"a": 4000 / 6000}
        means.reset()
    assert held.to("meta", torch.bfloat16)["means"].sums.device.type == "meta"
    assert means.sums.dtype == means.counts.dtype == torch.float64


def test_an_undeclared_name_is_an_error() -> None:
    with pytest.raises(ValueError, match="metric must be one of a, which were declared, got 'x'"):
        Means(["a"]).update({"x": torch.ones(1)})


POLICY = Completions(torch.tensor([-1.0, -2.0, -4.0]), torch.tensor([0, 0, 1]), torch.tensor([2, 1]))
REFERENCE = POLICY.replaced(torch.tensor([-2.0, -2.0, -3.0]))


def test_metrics_of_a_pair_by_hand() -> None:
    """Chosen: sum -3, mean -1.5, R = 1; rejected: sum -4, R = -1; margin 2; all rewards times beta = .5."""
    examples = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))
    metrics = preference_metrics(POLICY, REFERENCE, examples, implicit_reward_scale=0.5)
    assert {name: value.tolist() for name, value in metrics.items()} == {
        "logps/chosen": [-3.0],
        "logps/rejected": [-4.0],
        "logps_mean/chosen": [-1.5],
        "logps_mean/rejected": [-4.0],
        "logratios_mean/chosen": [0.5],
        "logratios_mean/rejected": [-1.0],
        "rewards/chosen": [0.5],
        "rewards/rejected": [-0.5],
        "rewards/margins": [1.0],
        "rewards/accuracies": [1.0],
    }


def test_without_reference_or_pairs_there_are_no_such_metrics() -> None:
    metrics = preference_metrics(POLICY, None, Examples(torch.tensor([1, 1])), 1.0)
    assert not any(name.startswith(("rewards", "logratios")) for name in metrics)
    assert metrics["logps/rejected"].numel() == 0
    unpaired = preference_metrics(POLICY, REFERENCE, Examples(torch.tensor([1, -1])), 1.0)
    assert "rewards/margins" not in unpaired
