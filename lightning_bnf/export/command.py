"""The verb `export`: a run's checkpoint as a folder, merged or not."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
import torch.distributed.checkpoint as dcp
from lightning.pytorch import Trainer

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.tables import was_in_memory
from lightning_bnf.export.card import Trained, data_fingerprint, model_card
from lightning_bnf.export.folders import MAX_SHARD_SIZE, check_shard_size, finished_folder, whole_weights, write_policy
from lightning_bnf.export.merge import change_of_base, merge, rescored, scores
from lightning_bnf.export.rounding import rounding_of
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies.base import Dtype, PolicyError
from lightning_bnf.policies.full import FullPolicy
from lightning_bnf.results.tables import last_metrics
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.hub import check_push, is_hub_id, push_folder
from lightning_bnf.runtime.ownership import check_replaceable
from lightning_bnf.runtime.refusal import Refusal

NOTICEABLE = 0.05  # nats a token between a merged model and the trained one, in the mean


@checked
@dataclass(frozen=True)
class ExportOptions:
    """What is written where.

    Args:
        folder: Folder to write: a new or empty one, or an earlier export that nobody has added to or changed since,
            which is replaced when the new one is whole.
        merge: Whether to add the adapter to the base's weights, loaded afresh, and to measure what that changes.
        dtype: Type of full or merged weights; null is for full ones bfloat16 where that keeps what was learned, else
            float32, and for merged ones the type that the base had in training. Rounding to 16 bits can undo much of
            what small adapters or steps have changed; what it does is measured and said. Adapters that are not merged
            stay as they are.
        max_shard_size: Largest size of a file of full weights, such as 5GB.
        rows: Validation rows (training rows where there are none) that are scored before and after merging (>= 1).
        push: Model of the hub (`owner/name`) that the folder is uploaded to, with its card. A new one is private.
        public: Whether the model that is pushed may be seen by everybody.
    """

    folder: str
    merge: bool = False
    dtype: Literal["bfloat16", "float16", "float32"] | None = None
    max_shard_size: str = MAX_SHARD_SIZE
    rows: PositiveInt = 8
    push: str | None = None
    public: bool = False

    def __post_init__(self) -> None:
        check_shard_size(self.max_shard_size)
        if self.push is not None and not is_hub_id(self.push):
            raise Refusal(f"push must be a model of the hub, owner/name, got {self.push!r}")
        if self.public and self.push is None:
            raise Refusal("public must be false without push, got true")


def export(
    module: PreferenceModule, data: PreferenceData, trainer: Trainer, checkpoint: Path, options: ExportOptions
) -> None:
    """Write the policy of a checkpoint that was looked at before (`checkpoints.check_checkpoint`); print what was done.

    Raises `PolicyError` where the checkpoint is another policy's, or where there is nothing to merge.
    """
    policy, folder = module.policy, Path(options.folder)
    halves = policy.dtype != torch.float32 or str(trainer.precision) == "bf16-true"
    if options.merge and not policy.adapters:
        raise PolicyError(f"merge must be false with {type(policy).__name__}, which has no adapter, got true")
    if halves and not policy.adapters and options.dtype == "float32":
        raise PolicyError(
            "dtype must be null or bfloat16 for a checkpoint with weights of 16 bits, got float32: a run exports their "
            "float32 masters at its end, with ExportPolicy's dtype"
        )
    check_replaceable("folder", folder)  # before minutes of work
    if options.push is not None:
        check_push("push", options.push, "model", options.public)
    module.trainer = data.trainer = trainer
    data.meet(module)
    trainer.strategy.connect(module)
    policy.load()
    steps = _restore(module, checkpoint)
    there = not any(was_in_memory(path) for split in ("train", "validation") for path in data.paths[split])
    about = Trained(
        steps,
        data_fingerprint(data.split("train")) if there else None,
        str(trainer.precision),
        last_metrics(Path(trainer.default_root_dir), steps),
    )
    rounding = None if policy.adapters else rounding_of(policy, options.dtype or "auto", halves)
    weights = whole_weights(policy, rounding=rounding)
    if options.merge:
        _export_merged(module, data, trainer.strategy.root_device, weights, options, about)
    else:
        if rounding is not None:
            about = replace(about, rounded=rounding.text())
        write_policy(policy, weights, model_card(module, data, about), folder, options.max_shard_size)
        print(f"{folder}: {type(policy).__name__} of step {steps}{f', {about.rounded}' if about.rounded else ''}")
    if options.push is not None:
        print(f"pushed to {push_folder('push', options.push, 'model', folder, options.public)}")


def _export_merged(
    module: PreferenceModule,
    data: PreferenceData,
    device: torch.device,
    weights: dict[str, torch.Tensor],
    options: ExportOptions,
    about: Trained,
) -> None:
    policy, folder = module.policy, Path(options.folder)
    name = options.dtype or cast(Dtype, str(policy.dtype).removeprefix("torch."))
    dtype = getattr(torch, name)
    measured = None
    if about.data is not None:
        rows = (data.split("validation") or data.split("train")).with_completions()[: options.rows]
        measured = rows, scores(policy.to(device), rows), change_of_base(policy, rows, name)
        policy.to("cpu")
    with finished_folder(folder) as unfinished:
        with tempfile.TemporaryDirectory() as adapter:
            policy.save(adapter, weights, options.max_shard_size)
            merge(policy, Path(adapter), unfinished, dtype, options.max_shard_size)
        text, off = f"into {name} weights; what that changes was not measured: the run's rows were in memory", 0.0
        if measured is not None:
            rows, before, base = measured
            merged = FullPolicy(str(unfinished), dtype=name, attention=policy.attention)
            merged.load()
            found = rescored(rows, before, scores(merged.to(device), rows))
            text, off = (
                (
                    f"into {name} weights; {found}; those of the base alone, as it was trained beside and as it is "
                    f"now, by at most {base.largest:.3g} ({base.mean:.3g})"
                ),
                found.mean,
            )
        (unfinished / "README.md").write_text(model_card(module, data, replace(about, merged=text)))
    print(f"{folder}: {type(policy).__name__} of step {about.steps}, merged {text}")
    if off > NOTICEABLE:
        print(
            f"That is another model than the trained one, by {off:.2g} nats a token. The adapter itself, not "
            "merged, is exact on the base that it was trained beside; --dtype float32 rounds least."
        )


def _restore(module: PreferenceModule, path: Path) -> int:
    """Put a checkpoint's tensors into the loaded policy; returns its optimizer step."""
    own = module.policy.trainable()
    if path.is_dir():  # of FSDP2: each rank has written its parts
        held = torch.load(path / "meta.pt", map_location="cpu", weights_only=True)
        module.on_load_checkpoint(held)
        state = {f"policy.{name}": torch.empty_like(value, device="cpu") for name, value in own.items()}
        dcp.load({"state_dict": state}, checkpoint_id=str(path), no_dist=True)
    else:
        held = torch.load(path, map_location="cpu", weights_only=True)
        module.on_load_checkpoint(held)
        state = held["state_dict"]
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(state[f"policy.{name}"])
    return int(held["global_step"])
