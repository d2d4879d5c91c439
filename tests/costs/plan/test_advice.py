"""What a run could change to need less memory."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from support.planned_runs import a_run
from transformers import LlamaConfig

from lightning_bnf.costs.plan.advice import advice, with_checkpointing
from lightning_bnf.costs.plan.run import assess

pytestmark = pytest.mark.slow


def test_advice_is_what_takes_less_sorted_and_computed(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    run = a_run(tiny_folder, write_pairs(rows=10))
    found = assess(run)
    given = advice(found)
    *single, together = given
    totals = {one.what.split(" (")[0]: one.total for one in single}
    assert list(totals.values()) == sorted(totals.values())
    assert max(totals.values()) < found.estimate.total
    cached = assess(replace(run, reference="cache")).estimate.total
    assert totals["model.reference: cache"] == cached
    assert {"model.policy: LoRAPolicy, rank 16", "model.policy: QLoRAPolicy, rank 16"} < set(totals)
    assert not any("bf16-true" in what for what in totals), "its float32 masters take what its weights save"
    assert together.what.startswith("together: ")
    assert together.total < cached


@pytest.mark.parametrize(("memory", "count"), [(1e12, 2), (1.0, 8)])
def test_more_devices_are_the_fewest_that_suffice(tmp_path: Path, memory: float, count: int) -> None:
    """Where even eight times as many do not suffice, these; of a model whose layers are most of it."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    LlamaConfig(vocab_size=32, num_hidden_layers=24, **sizes).save_pretrained(tmp_path)
    run = a_run(str(tmp_path), max_tokens=32, reference="cache")
    found = assess(replace(run, devices=replace(run.devices, memory=memory)))
    (sharded,) = (one for one in advice(found) if "fsdp2" in one.what)
    assert sharded.what.startswith(f"{count} devices")
    held = found.cost.model_state
    assert sharded.total > (held.standing + held.gradients + held.state) / count


def test_checkpointing_changes_a_copy(tiny_folder: str, write_pairs: Callable[..., str]) -> None:
    run = a_run(tiny_folder, write_pairs())
    assert with_checkpointing(run, True).policy.gradient_checkpointing
    assert not run.policy.gradient_checkpointing
