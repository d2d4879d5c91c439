"""Decoder layers that are compiled, and activations that wait in the CPU's memory."""

from typing import Any

import pytest
import torch
from support.architectures import assert_alike, gradients, long_rows, policy_of
from support.planned_steps import batch_of, setting
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from lightning_bnf.costs.plan.step import step_cost
from lightning_bnf.datamodules.steps.layout import packed_shared, padded, shared_prompt
from lightning_bnf.policies import FullPolicy, PolicyError
from lightning_bnf.policies.layers import decoder_layers_of, kept_on_cpu

pytestmark = pytest.mark.slow


def test_compiled_layers_give_the_same_and_are_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a compiler that keeps torch's operations; micro-batches of other sizes are not compiled anew for ever."""
    counter, plain = CompileCounterWithBackend("aot_eager"), nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda layer, **named: plain(layer, backend=counter, **named))
    torch.compiler.reset()
    policy = FullPolicy("tiny", compiled=True)
    policy.adopt(policy_of("Llama").causal_lm)
    rows, counts = long_rows(), []
    for layout in (packed_shared, shared_prompt):
        for some in (rows, rows[:1], rows[1:], [rows[1], rows[0], rows[1]]):
            found = gradients(policy, layout(some))
            assert_alike(found, gradients(other(), padded(some)))
            counts.append(counter.frame_count)
    assert 0 < counts[2] == counts[3] <= counts[-2] == counts[-1] <= 3 * counts[0], counts


def test_nothing_is_compiled_inside_checkpoints() -> None:
    with pytest.raises(PolicyError, match="compiled must be false with gradient_checkpointing"):
        FullPolicy("tiny", compiled=True, gradient_checkpointing=True)


def other() -> FullPolicy:
    policy = FullPolicy("tiny")
    policy.adopt(policy_of("Llama").causal_lm)
    return policy


def test_activations_that_wait_elsewhere_give_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is packed is what layers begin from: the hidden states, a layer each, and no weight."""
    packed: list[torch.Size] = []
    plain = torch.Tensor.cpu
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self, *a: packed.append(self.shape) or plain(self, *a))
    policy = FullPolicy("tiny", gradient_checkpointing="offloaded")
    policy.adopt(policy_of("Llama").causal_lm)
    batch = packed_shared(long_rows())
    found = gradients(policy, batch)
    hidden = (*batch.inputs["input_ids"].shape, 32)
    assert packed.count(torch.Size(hidden)) >= len(decoder_layers_of(policy.causal_lm))
    assert not {tuple(shape) for shape in packed} & {
        tuple(layer.shape) for layer in policy.parameters() if layer.ndim > 1
    }
    assert_alike(found, gradients(other(), batch))


def test_what_waits_elsewhere_is_not_planned_for_the_device(tiny_folder: str) -> None:
    """Two layers' hidden states of 32 numbers for each token are what is less."""
    batch = batch_of(((300, 200, 200),) * 4)
    saved = [
        step_cost(setting(FullPolicy(tiny_folder, gradient_checkpointing=how), batch=batch, device="cuda")).saved
        for how in (True, "offloaded")
    ]
    assert saved[0] - saved[1] >= 2 * batch.inputs["input_ids"].numel() * 32 * 4
    with kept_on_cpu(planned=True):
        x = torch.ones(3, requires_grad=True)
        y: Any = (x * x).sum()
    y.backward()
    assert x.grad is not None
    assert x.grad.shape == (3,)
