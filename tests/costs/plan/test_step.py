"""A step without contents takes what a real step takes."""

from typing import Any

import pytest
import torch
from transformers import MixtralConfig

from lightning_bnf.batch import MicroBatch
from lightning_bnf.costs.plan.held import held, moment_bytes, stepping_bytes
from lightning_bnf.costs.plan.step import Setting, step_cost, step_flops
from lightning_bnf.datamodules.steps.layout import PADDED, SHARED_PROMPT
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, PolicyError, QLoRAPolicy
from lightning_bnf.policies.reference.build import build_reference
from lightning_bnf.training.optimization import Optimization

VOCABULARY, HIDDEN, INNER, LAYERS = 49152, 32, 48, 2  # of the tiny folder; 4 heads of 8, 2 of them for keys and values
LINEAR = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48  # of a layer: q and o, k and v, gate, up and down
PARAMETERS = VOCABULARY * HIDDEN * 2 + LAYERS * (LINEAR + 2 * HIDDEN) + HIDDEN


def batch_of(lengths: tuple[tuple[int, int, int], ...] = ((9, 5, 7), (4, 6, 3)), shared: bool = False) -> MicroBatch:
    """Pairs of (prompt, chosen, rejected) tokens."""
    rows = [
        TokenizedRow(
            str(i),
            "",
            "paired",
            [3] * prompt,
            tuple(TokenizedCompletion([3] * n, [True] * n, label) for n, label in ((chosen, 1), (rejected, -1))),
        )
        for i, (prompt, chosen, rejected) in enumerate(lengths)
    ]
    return (SHARED_PROMPT if shared else PADDED).batch(rows, (1, -1))


def setting(policy: Policy, **changes: Any) -> Setting:
    values = {"reference": "cache", "batch": batch_of(), "token_loss": False, "accumulating": False} | changes
    return Setting(policy=policy, **values)


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
    forward, backward, *_ = step_cost(asked).phases
    assert (forward.beside, backward.gradients, backward.beside) == real_step(asked)


def real_step(asked: Setting) -> tuple[int, int, int]:
    """Bytes beside weights and moments at the most of the forward pass; gradients, and the rest, at that of the
    backward pass."""
    from lightning_bnf.costs.plan import step

    policy = asked.policy
    policy.load()
    reference = None if asked.reference == "cache" else build_reference(asked.reference, policy)
    context = step._context(asked.precision, "cpu")
    for model in (policy, reference):
        if model is not None:
            context.convert_module(model)
    kept = held(policy, reference, Optimization())
    run = step._Run(asked, step._Outline(policy, reference, context, kept, asked.batch))
    cost = run.cost()
    return cost.phases[0].beside, cost.phases[1].gradients, cost.phases[1].beside


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
    assert plain.held == less.held
    assert less.saved < plain.saved / 2


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


def test_nothing_but_the_config_is_read(tiny_folder: str, tmp_path: Any) -> None:
    from shutil import copy

    copy(f"{tiny_folder}/config.json", tmp_path)
    policy = FullPolicy(str(tmp_path))
    assert step_cost(setting(policy)).held.parameters == PARAMETERS
    assert policy.model is None, "the policy itself stays as it was"


def test_sharded_layers_are_gathered_two_at_a_time(tiny_folder: str) -> None:
    """Full, float32: weights and gradients of embeddings, head and last norm, and of two of the two layers: of all."""
    found = step_cost(setting(FullPolicy(tiny_folder), sharded=True)).held
    assert found.gathered == 2 * 4 * PARAMETERS
    mixed = step_cost(setting(FullPolicy(tiny_folder), sharded=True, precision="bf16-mixed")).held
    assert mixed.gathered == (2 + 4) * PARAMETERS
    assert mixed.weights == {"float32": 4 * PARAMETERS + 32}


def test_mixtures_of_experts_are_planned_in_bfloat16_and_refused_otherwise(tmp_path: Any) -> None:
    """Each of 2 experts has 3 matrices of 32 x 32."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    MixtralConfig(vocab_size=64, num_hidden_layers=1, num_local_experts=2, **sizes).save_pretrained(tmp_path)
    found = step_cost(setting(FullPolicy(str(tmp_path), dtype="bfloat16"))).held
    others = 2 * 64 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 2 * 32 + 3 * 32  # embeddings, head; attention; router; norms
    assert found.parameters == 2 * 3 * 32 * 32 + others
    with pytest.raises(PolicyError, match=r"in torch.float32 cannot be run without contents"):
        step_cost(setting(FullPolicy(str(tmp_path))))


def test_flex_attention_is_planned_as_what_transformers_chooses(tiny_folder: str) -> None:
    """Blocks of its masks depend on their contents, which a plan does not have."""
    found = [step_cost(setting(FullPolicy(tiny_folder, attention=name))) for name in (None, "flex_attention")]
    assert found[0] == found[1]
