"""What a run keeps in memory between its steps."""

from functools import partial

import pytest
import torch
from bitsandbytes.optim import AdamW8bit
from support.planned_steps import LAYERS, LINEAR, PARAMETERS, setting

from lightning_bnf.costs.plan.model_state import stepping_bytes
from lightning_bnf.costs.plan.step import step_cost
from lightning_bnf.policies import FullPolicy, LoRAPolicy, QLoRAPolicy
from lightning_bnf.training.fake_step import FakeOptimizer
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow
TENSORS = LAYERS * (7 + 2) + 3  # matrices and norms; embeddings, head, last norm


def test_what_is_held_is_counted_by_hand(tiny_folder: str) -> None:
    """Full: weights, gradients 4 bytes a parameter, moments 8 and a count of steps a tensor;
    the rotary frequencies are 4 floats, kept twice."""
    found = step_cost(setting(FullPolicy(tiny_folder), reference="copy")).model_state
    assert found.parameters == found.trained == PARAMETERS
    assert found.weights == {"float32": 4 * PARAMETERS + 32}
    assert found.reference == 4 * PARAMETERS + 32
    assert (found.adapters, found.gradients) == (0, 4 * PARAMETERS)
    assert found.state == 8 * PARAMETERS + 4 * TENSORS


def test_adapters_are_counted_by_hand(tiny_folder: str) -> None:
    """Rank 4 adds 4 x (inputs + outputs) to each linear layer: q, o 64, k, v 48, gate, up, down 80 of these."""
    adapters = LAYERS * 4 * (2 * 64 + 2 * 48 + 3 * 80)
    found = step_cost(setting(LoRAPolicy(tiny_folder, r=4, dtype="bfloat16"))).model_state
    assert found.trained == adapters
    assert found.adapters == found.gradients == 4 * adapters
    assert found.state == 8 * adapters + 4 * 2 * 7 * LAYERS
    assert found.weights["bfloat16"] == 2 * PARAMETERS


def test_four_bit_weights_take_what_bitsandbytes_gives_them(tiny_folder: str) -> None:
    """Half a byte for each weight of a linear layer; a byte for each 64, and 4 for each 256 x 64 of these (here: each
    layer has fewer, so one)."""
    pytest.importorskip("bitsandbytes")
    found = step_cost(setting(QLoRAPolicy(tiny_folder, r=4))).model_state
    assert found.weights["nf4"] == LAYERS * (LINEAR // 2 + LINEAR // 64 + 4 * 7)
    assert found.weights["bfloat16"] == 2 * (PARAMETERS - LAYERS * LINEAR)
    loaded = QLoRAPolicy(tiny_folder, r=4)
    loaded.load()
    packed = [p for p in loaded.parameters() if hasattr(p, "quant_state")]
    real = sum(p.nbytes + p.quant_state.absmax.nbytes + p.quant_state.state2.absmax.nbytes for p in packed)
    assert found.weights["nf4"] == real


def test_what_the_optimizers_step_takes_for_a_moment(tiny_folder: str) -> None:
    """One kernel takes nothing beside its moments; tensor by tensor the largest takes a root and its quotient, while
    the quotient of the one before, here as large, is still there; 8-bit moments change within one kernel."""
    policy = FullPolicy(tiny_folder)
    policy.load()
    largest = max(parameter.nbytes for parameter in policy.parameters())
    assert stepping_bytes(FakeOptimizer(policy, Optimization(1e-6))) == 0
    assert stepping_bytes(FakeOptimizer(policy, Optimization(1e-6), AdamW8bit)) == 0
    one_by_one = partial(torch.optim.AdamW, foreach=False)
    assert stepping_bytes(FakeOptimizer(policy, Optimization(1e-6), one_by_one)) == 3 * largest


def test_sharded_layers_are_gathered_two_at_a_time(tiny_folder: str) -> None:
    """Full, float32: weights and gradients of embeddings, head and last norm, and of two of the two layers: of all."""
    found = step_cost(setting(FullPolicy(tiny_folder), sharded=True)).model_state
    assert found.gathered == 2 * 4 * PARAMETERS
    mixed = step_cost(setting(FullPolicy(tiny_folder), sharded=True, precision="bf16-mixed")).model_state
    assert mixed.gathered == (2 + 4) * PARAMETERS
    assert mixed.weights == {"float32": 4 * PARAMETERS + 32}
