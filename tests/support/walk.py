"""A whole optimizer step on fake CUDA tensors: `python -m support.walk LIBRARY FOLDER CELLS.json`, with the library
preloaded, writes what it found of each cell to standard output as JSON."""

import json
import sys
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from support import fake_cuda  # before all else: it says what torch is to take itself for


@dataclass(frozen=True)
class WalkCell:
    """loss: name of a file in configs/loss; policy: full, lora, or checkpointed (LoRA, as QLoRA trains); layout;
    layers: of the model."""

    loss: str
    policy: str = "full"
    layout: str = "shared_prompt"
    layers: int = 2


SIZES: dict[str, Any] = {
    "vocab_size": 32_000,
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": False,
}
LENGTHS = ((90, 151, 207), (140, 86, 133), (112, 88, 88))  # tokens of a prompt, its chosen and its rejected answer


def rows(groups: bool) -> list[Any]:
    """Pairs, or groups of two samples and a rejected answer, with all numbers that a loss may ask for."""
    from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow

    numbers = {"reward": 1.0, "win_probability": 0.7, "baseline_mean_logps": -1.0}
    labels = ((1, 0), (1, 0), (-1, 1)) if groups else ((1, 0), (-1, 1))
    return [
        TokenizedRow(
            str(i),
            "",
            "grouped" if groups else "paired",
            [3] * prompt,
            tuple(
                TokenizedCompletion([3] * lengths[side], [True] * lengths[side], label, numbers)
                for label, side in labels
            ),
        )
        for i, (prompt, *lengths) in enumerate(LENGTHS)
    ]


def setting_of(loss: str, policy: str, layout: str, folder: str) -> Any:
    """A cell's step as `plan` is asked for it, on the model of a folder."""
    from lightning_bnf.costs.plan.step import Setting
    from lightning_bnf.datamodules.steps.layout import LAYOUTS
    from lightning_bnf.policies.reference.build import check_reference
    from support import catalog

    built, made = catalog.build(loss), policy_of(policy, folder)
    batch = LAYOUTS[layout].batch(rows(built.needs_groups), built.labels)  # type: ignore[index]
    reference = check_reference("auto", made, built.needs_reference)
    return Setting(made, reference, batch, built.fused, accumulating=False, precision="bf16-mixed", device="cuda")


def policy_of(name: str, folder: str) -> Any:
    """A cell's policy, not loaded."""
    from lightning_bnf.policies import FullPolicy, LoRAPolicy

    if name == "full":
        return FullPolicy(folder)
    return LoRAPolicy(folder, dtype="bfloat16", gradient_checkpointing=name == "checkpointed")


def walk(cell: WalkCell, folder: str) -> dict[str, Any]:
    """What one step of a cell launches, and what is wrong with it."""
    import torch
    from lightning.pytorch.plugins.precision import MixedPrecision

    from lightning_bnf.batch import Step
    from lightning_bnf.costs.plan.skeleton import as_fake, skeleton
    from lightning_bnf.datamodules.steps.layout import LAYOUTS
    from lightning_bnf.datamodules.steps.loader import StepCounts
    from lightning_bnf.module import PreferenceModule
    from lightning_bnf.policies.reference.build import build_reference
    from lightning_bnf.training.optimization import Optimization, build_optimizer, parameter_groups
    from support import catalog

    loss = catalog.build(cell.loss)
    policy = policy_of(cell.policy, folder)
    module = PreferenceModule(policy, loss, "auto", Optimization(learning_rate=1e-6))
    layout, data = LAYOUTS[cell.layout], rows(loss.needs_groups)
    batch, context = layout.batch(data, loss.labels), StepCounts(data, loss.labels).context(range(len(data)))
    batch = batch.map(lambda tensor: tensor)  # as a loader does: which completions are preferred is found on the CPU
    module.policy = skeleton(policy, cell.layers)
    reference = build_reference(module.reference_kind, module.policy)
    module._device = torch.device("cuda", 0)
    module._trainer = SimpleNamespace(precision="bf16-mixed", world_size=1, strategy=None)  # type: ignore[assignment]
    watch = fake_cuda.Watch()
    with fake_cuda.fake_tensors():
        for model in (module.policy, reference):
            if model is not None:
                as_fake(model, "cuda")
        module.reference = reference
        module.means.sums, module.means.counts = (one.to("cuda") for one in (module.means.sums, module.means.counts))
        there = batch.to("cuda")
        step = Step((there,), context, (there,) if "mismatched" in loss.step_passes else ())
        optimizer = build_optimizer(parameter_groups(module.policy), module.optimization)
        alive = fake_cuda.Alive()
        for tensor in (*module.policy.parameters(), *there.inputs.values()):
            alive.meet(tensor)
        for tensor in () if reference is None else reference.parameters():
            alive.meet(tensor)
        standing = alive.now
        # Lightning's autocast keeps no copies of weights in 16 bits, which torch's would until it ends.
        with MixedPrecision("bf16-mixed", "cuda").train_step_context(), alive, watch:
            for one, told in zip(step.micro_batches, module.contexts(step)):
                result = module.evaluate(one, told)
                (result.objective * (1 / 3)).backward()
                module._add(result._replace(objective=result.objective.detach()))
        begun = watch.launches
        with watch:
            module._clip()
            optimizer.step()
            optimizer.zero_grad()
    return {
        "beside": alive.peak - standing,
        "launches": begun,
        "step": watch.launches - begun,
        "kernels": watch.kernels,
        "faults": watch.faults,
    }


def places(error: BaseException) -> str:
    """The lines of the package, and of what it calls, that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    told = [f"{Path(one.filename).name}:{one.lineno}" for one in frames if "torch/" not in one.filename]
    return " > ".join(told[-6:])


def main(library: str, folder: str, cells: str) -> None:
    fake_cuda.begin(library)
    import os

    from transformers import LlamaConfig

    LlamaConfig(num_hidden_layers=4, **SIZES).save_pretrained(folder)
    with open(cells, encoding="utf-8") as file:
        asked = [WalkCell(**cell) for cell in json.load(file)]
    for cell in asked:
        try:
            found = walk(cell, folder)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"[:500], "at": places(error)}
        print(json.dumps(asdict(cell) | found), flush=True)
    os._exit(0)  # without what torch does to CUDA at its end


if __name__ == "__main__":
    main(*sys.argv[1:])
