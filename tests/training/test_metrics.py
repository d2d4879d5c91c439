"""Means over a step, and the preference metrics on hand-made numbers."""

import pytest
import torch

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
