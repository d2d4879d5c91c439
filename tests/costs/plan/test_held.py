"""What a run keeps in memory between its steps."""

import pytest
import torch
from support.planned_steps import LAYERS, LINEAR, PARAMETERS, setting

from lightning_bnf.costs.plan.held import moment_bytes, stepping_bytes
from lightning_bnf.costs.plan.step import step_cost
from lightning_bnf.policies import FullPolicy, LoRAPolicy, QLoRAPolicy
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


def test_what_is_held_is_counted_by_hand(tiny_folder: str) -> None:
    """Full: weights, gradients 4 bytes a parameter, moments 8; the rotary frequencies are 4 floats, kept twice."""
    found = step_cost(setting(FullPolicy(tiny_folder), reference="copy")).held
    assert found.parameters == found.trained == PARAMETERS
    assert found.weights == {"float32": 4 * PARAMETERS + 32}
    assert found.reference == 4 * PARAMETERS + 32
    assert (found.adapters, found.gradients, found.moments) == (0, 4 * PARAMETERS, 8 * PARAMETERS)


def test_adapters_are_counted_by_hand(tiny_folder: str) -> None:
    """Rank 4 adds 4 x (inputs + outputs) to each linear layer: q, o 64, k, v 48, gate, up, down 80 of these."""
    adapters = LAYERS * 4 * (2 * 64 + 2 * 48 + 3 * 80)
    found = step_cost(setting(LoRAPolicy(tiny_folder, r=4, dtype="bfloat16"))).held
    assert found.trained == adapters
    assert found.adapters == found.gradients == 4 * adapters
    assert found.moments == 8 * adapters
    assert found.weights["bfloat16"] == 2 * PARAMETERS


def test_four_bit_weights_take_what_bitsandbytes_gives_them(tiny_folder: str) -> None:
    """Half a byte for each weight of a linear layer; a byte for each 64, and 4 for each 256 x 64 of these (here: each
    layer has fewer, so one)."""
    pytest.importorskip("bitsandbytes")
    found = step_cost(setting(QLoRAPolicy(tiny_folder, r=4))).held
    assert found.weights["nf4"] == LAYERS * (LINEAR // 2 + LINEAR // 64 + 4 * 7)
    assert found.weights["bfloat16"] == 2 * (PARAMETERS - LAYERS * LINEAR)
    loaded = QLoRAPolicy(tiny_folder, r=4)
    loaded.load()
    packed = [p for p in loaded.parameters() if hasattr(p, "quant_state")]
    real = sum(p.nbytes + p.quant_state.absmax.nbytes + p.quant_state.state2.absmax.nbytes for p in packed)
    assert found.weights["nf4"] == real


class Unfused(Optimization):
    def optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, foreach=False)


def test_moments_and_the_optimizers_step() -> None:
    """AdamW keeps two moments. One kernel takes nothing beside them; step by step the largest parameter takes two
    copies for a moment, a root and its quotient. In 8 bits: 2 bytes an element and two float32 scales for each 256,
    small tensors as they are."""
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (100, 8192)]
    assert [moment_bytes(p, Optimization()) for p in parameters] == [800, 65536]
    assert stepping_bytes(parameters, Optimization()) == 0
    assert stepping_bytes(parameters, Unfused()) == 2 * 4 * 8192
    eight = Optimization(paged_8bit=True)
    assert [moment_bytes(p, eight) for p in parameters] == [800, 16384 + 256]
    assert stepping_bytes(parameters, eight) == 0


def test_sharded_layers_are_gathered_two_at_a_time(tiny_folder: str) -> None:
    """Full, float32: weights and gradients of embeddings, head and last norm, and of two of the two layers: of all."""
    found = step_cost(setting(FullPolicy(tiny_folder), sharded=True)).held
    assert found.gathered == 2 * 4 * PARAMETERS
    mixed = step_cost(setting(FullPolicy(tiny_folder), sharded=True, precision="bf16-mixed")).held
    assert mixed.gathered == (2 + 4) * PARAMETERS
    assert mixed.weights == {"float32": 4 * PARAMETERS + 32}
