"""A step on fake tensors takes what a real step takes."""

import pytest
import torch
from support.planned_steps import HIDDEN, LAYERS, LINEAR, VOCABULARY, batch_of, setting

from lightning_bnf.costs.plan.step import FORMULAS, step_cost, step_flops
from lightning_bnf.policies import FullPolicy, LoRAPolicy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("kind", "precision"),
    [
        ("full", "32-true"),
        ("full", "bf16-mixed"),
        ("full", "bf16-true"),
        ("lora", "32-true"),
        ("lora", "bf16-mixed"),
        ("checkpointed", "32-true"),
        ("token loss", "bf16-true"),
        ("accumulating", "32-true"),
        ("copy", "32-true"),
    ],
)
def test_a_real_step_takes_the_same(tiny_folder: str, kind: str, precision: str) -> None:
    """The same passes with contents, counted in the same way; masks are there in both, as the batch has padding."""
    policies = {
        "checkpointed": FullPolicy(tiny_folder, gradient_checkpointing=True),
        "lora": LoRAPolicy(tiny_folder, r=4),
    }
    policy = policies.get(kind, FullPolicy(tiny_folder))
    asked = setting(
        policy,
        precision=precision,
        reference="copy" if kind == "copy" else "adapter_off" if kind == "lora" else "cache",
        token_loss=kind == "token loss",
        accumulating=kind == "accumulating",
    )
    assert step_cost(asked).phases[:2] == step_cost(asked, contents=True).phases[:2]


def test_what_is_saved_is_what_autograd_saves(tiny_folder: str) -> None:
    """The storages that saved-tensor hooks see in a real forward pass, but weights and inputs; and the objective."""
    policy = FullPolicy(tiny_folder)
    asked = setting(policy)
    policy.load()
    there = [*policy.parameters(), *policy.buffers(), *asked.batch.inputs.values()]
    before = {tensor.untyped_storage().data_ptr() for tensor in [*there, asked.batch.position, asked.batch.target]}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = policy(asked.batch)
    inside = sum(size for pointer, size in seen.items() if pointer not in before)
    assert output.token_logps.requires_grad
    assert step_cost(setting(FullPolicy(tiny_folder))).saved == inside + 4


def test_checkpointing_saves_activations_and_nothing_else(tiny_folder: str) -> None:
    plain, less = (step_cost(setting(FullPolicy(tiny_folder, gradient_checkpointing=on))) for on in (False, True))
    assert plain.model_state == less.model_state
    assert less.saved < plain.saved / 2


def test_operations_are_those_of_the_products(tiny_folder: str) -> None:
    """A forward pass: 2 operations for each weight of a linear layer and token, the head's for the scored tokens,
    and attention's two products of 4 heads of 8 (T x T each). Both passes: three times that, of attention 3.5 times,
    and the head's logits once more."""
    batch = batch_of()
    rows, width, scored = *batch.inputs["input_ids"].shape, len(batch.target)
    linear = 2 * LAYERS * LINEAR * rows * width
    attention = LAYERS * 2 * 2 * rows * 4 * 8 * width * width
    head = 2 * VOCABULARY * HIDDEN * scored
    found = step_flops(setting(FullPolicy(tiny_folder)))
    assert found.forward == linear + attention + head
    assert found.both == 3 * linear + attention * 7 // 2 + 4 * head


@pytest.mark.parametrize("token_loss", [True, False])
def test_a_gpus_products_are_planned_without_one(tiny_folder: str, token_loss: bool) -> None:
    """Halves whose sums are float32: no copy of the head is widened, which took 4 bytes for each of its numbers; but
    the tile's scores are halved for the next product, in 2 bytes each. As many operations are counted as on a CPU."""
    policies = {device: LoRAPolicy(tiny_folder, r=4, dtype="bfloat16") for device in ("cpu", "cuda")}
    found = {
        device: setting(policy, precision="bf16-mixed", reference="adapter_off", token_loss=token_loss, device=device)
        for device, policy in policies.items()
    }
    beside = {device: max(phase.beside for phase in step_cost(one).phases[:2]) for device, one in found.items()}
    assert beside["cpu"] - beside["cuda"] >= VOCABULARY * (4 * HIDDEN - 2 * len(batch_of().target))
    assert step_flops(found["cpu"]) == step_flops(found["cuda"])


def test_added_products_are_counted_however_wide_their_sums_are() -> None:
    """2 x 3 x 4 x 5 operations; the type of the sums is a fourth argument, which torch's own formula does not take."""
    for more in ((), (torch.float32,)):
        assert FORMULAS[torch.ops.aten.addmm]((4, 5), (4, 3), (3, 5), *more, out_shape=(4, 5)) == 120
