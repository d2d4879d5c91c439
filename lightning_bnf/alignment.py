"""Aligning a model from Python: what `fit` does, with a model, rows and losses that are objects."""

import dataclasses
import inspect
import math
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import yaml
from filelock import BaseFileLock
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from lightning_bnf.aligned import Run
from lightning_bnf.callbacks import (
    EvenValidations,
    ExportPolicy,
    Fingerprints,
    GracefulShutdown,
    LastCheckpoints,
    RunLogger,
    RunPlots,
    RunProgress,
    RunReport,
)
from lightning_bnf.cli.hints import meant
from lightning_bnf.cli.main import silence
from lightning_bnf.cli.names import file_of, names
from lightning_bnf.cli.run_before import give_back, refuse_reading, set_aside
from lightning_bnf.cli.run_parts import turn
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import nearest
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.losses import Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, QLoRAPolicy
from lightning_bnf.runtime.class_paths import check_class_paths
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.ownership import claim, hold
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training import defaults
from lightning_bnf.training.checkpoints import last_good
from lightning_bnf.training.optimization import Optimization
from lightning_bnf.training.refusals import trainer_refusals
from lightning_bnf.training.strategies import AtomicCheckpointIO
from lightning_bnf.training.support import check_untrained

POLICIES: dict[str, type[Policy]] = {"lora": LoRAPolicy, "qlora": QLoRAPolicy, "full": FullPolicy}
_TAKEN = {"self", "args", "kwargs", "source", "train", "validation", "options", "policy", "loss", "optimization"}
_ITSELF = {
    "ckpt_path": "resume",
    "default_root_dir": "folder",
    "seed_everything": "seed",
    "source": "model",
    "train": "data",
    "temperature": "generation",
    "max_new_tokens": "generation",
}
"""A setting of the commands -> what `align` calls it."""
_OURS = {"default_root_dir", "use_distributed_sampler", "gradient_clip_val", "accumulate_grad_batches"}


def align(
    model: Any,
    data: Any,
    loss: str | Loss | type[Loss] = "bnf",
    *,
    tokenizer: Any = None,
    policy: str | type[Policy] = "lora",
    validation: Any = "auto",
    folder: str | Path = "runs/latest",
    seed: int = 1,
    resume: bool = False,
    **settings: Any,
) -> Run:
    """Align a model with preference data. What is not named is chosen as `fit` chooses it, by device, policy and loss.

    Args:
        model: A hub id, a local folder or a GGUF file; a `Policy`; or a transformers model that is loaded, with its
            `tokenizer`. That model itself is trained, not a copy: see `Policy.of`.
        data: Rows to train on: a list of dicts, a DataFrame, a `datasets.Dataset`, a file, a hub id, or a list of such;
            or a `PreferenceData`.
        loss: The name of a shipped loss, such as dpo; or a loss or a class of one, of your own too.
        tokenizer: Of a model that is loaded.
        policy: What is trained: lora, qlora or full, or a class; of a model that is no `Policy` yet.
        validation: As `data`; `auto` holds out some of the rows, None none. A `PreferenceData` has its own.
        folder: Where all of the run goes. An earlier run there is moved aside; a stranger's files are refused.
        seed: Of everything random in this process, and of the data; where a `PreferenceData` is given, its own.
        resume: Go on from the latest whole checkpoint of `folder`, with the same model, data and settings.
        settings: Any argument of the policy, PreferenceData, DataOptions, Optimization, PreferenceModule or Lightning's
            Trainer by its name, such as r=8, learning_rate=1e-4, max_length=2048, max_epochs=2, accelerator="cpu".
            Those of a `Policy` or a `PreferenceData` that is given go into it instead.

    An interrupted kernel (Ctrl-C) ends it after the step at hand: the checkpoint and the policy are saved, and the Run
    of what was trained is returned. Raises `Refusal` for what cannot be trained as asked for, before any weights are
    loaded.
    """
    kind = model if isinstance(model, Policy) else _policy_class(policy)
    given_loss = loss_of(loss)
    parts = shared_out(settings, type(kind) if isinstance(kind, Policy) else kind, given_loss)
    device = defaults.device_type(str(parts.trainer.get("accelerator", "auto")))
    if isinstance(kind, Policy):
        _refuse_beside_policy(kind, policy, tokenizer, parts.policy, resume)
    if isinstance(data, PreferenceData):
        _refuse_beside_data(data, validation, seed, parts)
    silence()
    seed_everything(seed, verbose=False)
    aligned = kind if isinstance(kind, Policy) else _policy(kind, model, tokenizer, parts.policy, device, resume)
    module = PreferenceModule(aligned, given_loss, optimization=Optimization(**parts.optimization), **parts.module)
    rows = data if isinstance(data, PreferenceData) else _data(data, validation, seed, parts)
    root, checkpoint, lock, aside = _own_folder(Path(folder), resume, aligned, rows)
    try:
        trainer = _trainer(root, parts.trainer, device)
        _save_config(root, module, rows, parts, trainer)
        _fit(trainer, module, rows, checkpoint)
    except Refusal:
        if checkpoint is None:
            give_back(root, aside, ())
        raise
    finally:
        lock.release()
    return Run(root, module, rows.options.rendering)


def _refuse_beside_policy(
    given: Policy, policy: str | type[Policy], tokenizer: Any, settings: Mapping[str, Any], resume: bool
) -> None:
    """Raises `Refusal` for what a policy that is given says itself, and for one that another run has trained."""
    kind = type(given).__name__
    if settings:
        name, value = next(iter(settings.items()))
        raise Refusal(
            f"settings must be arguments of data, module or Trainer beside a policy, got {name!r}; the policy's own go "
            f"into it: {kind}(..., {name}={value!r})"
        )
    if tokenizer is not None:
        raise Refusal(f"tokenizer must be left out beside a policy, got one: {kind}.of(model, tokenizer) takes both")
    if policy != "lora" and POLICIES.get(str(policy), policy) is not type(given):
        raise Refusal(f"policy must be left out where the model is one, a {kind}, got {policy!r}")
    if not resume:
        check_untrained(given)


def _refuse_beside_data(given: PreferenceData, validation: Any, seed: int, parts: "Parts") -> None:
    """Raises `Refusal` for what a PreferenceData that is given says itself."""
    for settings, place in ((parts.options, "options=DataOptions({})"), (parts.data, "{}")):
        for name, value in settings.items():
            raise Refusal(
                f"settings must be arguments of policy, module or Trainer beside a PreferenceData, got {name!r}; the "
                f"data's own go into it: PreferenceData(..., {place.format(f'{name}={value!r}')})"
            )
    if not (isinstance(validation, str) and validation == "auto"):
        what = repr(validation) if isinstance(validation, str | None) else type(validation).__name__
        raise Refusal(
            f"validation must be left out beside a PreferenceData, got {what}: PreferenceData(..., validation=...)"
        )
    if seed not in (1, given.seed):
        raise Refusal(
            f"seed must be that of the PreferenceData beside one, {given.seed}, got {seed}: PreferenceData(..., "
            f"seed={seed})"
        )


class Parts(NamedTuple):
    """The settings of each object that a run is made of."""

    policy: dict[str, Any]
    options: dict[str, Any]
    data: dict[str, Any]
    optimization: dict[str, Any]
    module: dict[str, Any]
    trainer: dict[str, Any]


def shared_out(settings: Mapping[str, Any], policy: type[Policy], loss: Loss | None = None) -> Parts:
    """Every setting to the object whose constructor has it; of several the first. Raises `Refusal` for unknown ones."""
    takers = (policy, DataOptions, PreferenceData, Optimization, PreferenceModule, Trainer)
    known = [set(inspect.signature(taker).parameters) - _TAKEN for taker in takers]
    known[-1] -= _OURS
    parts = Parts({}, {}, {}, {}, {}, {})
    for name, value in settings.items():
        place = next((i for i, taken in enumerate(known) if name in taken), None)
        if place is None:
            hint = _hint(name, value, set().union(*known), loss)
            raise Refusal(f"settings must be arguments of policy, data, module or Trainer, got {name!r}{hint}")
        parts[place][name] = value
    return parts


def _hint(name: str, value: Any, known: set[str], loss: Loss | None) -> str:
    """What an unknown setting may stand for."""
    meaning = meant(name)
    if loss is not None and name in inspect.signature(type(loss)).parameters:
        return f"; a loss's own settings go into the loss: loss={type(loss).__name__}({name}={value!r})"
    if meaning and meaning.setting.startswith("model.loss."):
        return "; a loss's own settings go into the loss, as in loss=DPO(beta=0.3)"
    word = meaning.setting.rpartition(".")[2] if meaning else name
    itself = inspect.signature(align).parameters.keys() - {"settings"}
    near = _ITSELF.get(word) or (word if meaning and word in known | itself else nearest(name, known | itself))
    return f"; did you mean {near!r}?" if near and near != name else ""


def loss_of(loss: str | Loss | type[Loss]) -> Loss:
    """A loss, made of a name or a class. Raises `Refusal` where there is none."""
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type) and issubclass(loss, Loss):
        return loss()
    path = file_of("model.loss", loss) or loss if isinstance(loss, str) else ""
    if Path(path).suffix != ".yaml" or not Path(path).is_file():
        known = sorted({Path(file).stem for file in names("model.loss").values()})
        near = nearest(loss, known) if isinstance(loss, str) else None
        hint = f"; did you mean {near!r}?" if near else ""
        raise Refusal(f"loss must be one of {', '.join(known)}, a YAML file, or a loss, got {loss!r}{hint}")
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--loss", type=Loss)
    spec = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    check_class_paths(spec)
    config = parser.parse_object({"loss": spec})
    made: Loss = parser.instantiate_classes(config).loss
    return made


def _policy_class(policy: str | type[Policy]) -> type[Policy]:
    if isinstance(policy, type) and issubclass(policy, Policy):
        return policy
    if policy not in POLICIES:
        raise Refusal(f"policy must be {', '.join(POLICIES)} or a class of Policy, got {policy!r}")
    return POLICIES[str(policy)]


def _policy(
    kind: type[Policy], model: Any, tokenizer: Any, settings: dict[str, Any], device: str, resume: bool
) -> Policy:
    if isinstance(model, str | Path):
        if tokenizer is not None:
            raise Refusal(
                f"tokenizer must be left out beside the name of a model, got one with {str(model)!r}, whose own is "
                "taken; to give both, load the model with transformers"
            )
        dtype = defaults.base_dtype(kind, device)
        return kind(str(model), **(({} if dtype is None else {"dtype": dtype.value}) | settings))
    if resume and not kind.adapters:
        raise Refusal(
            "model must be a name or folder to resume with where all weights are trained, got one that is loaded: what "
            "the run began with may be gone from it"
        )
    if tokenizer is None:
        raise Refusal("tokenizer must be given beside a model that is loaded, got none")
    return kind.of(model, tokenizer, **settings)


def _data(data: Any, validation: Any, seed: int, parts: Parts) -> PreferenceData:
    settings = {"max_tokens": "auto"} | parts.data
    return PreferenceData(data, validation, seed=seed, options=DataOptions(**parts.options), **settings)


def _own_folder(
    root: Path, resume: bool, policy: Policy, rows: PreferenceData
) -> tuple[Path, Path | None, BaseFileLock, Path | None]:
    """The run's folder, claimed and held, and the checkpoint to go on from; a run that is not gone on with gets a
    number, which is the last of what is returned. Raises `Refusal` where the policy or the rows are read from it."""
    aside = None
    claim("folder", root, "fit", signs=("lightning_bnf.",))
    lock = hold("folder", root)
    checkpoint = last_good(root / "checkpoints") if resume else None
    if resume and checkpoint is None:
        print(f"resume: {root / 'checkpoints'} holds no checkpoint yet, so the run begins at its first step")
    if checkpoint is None and (root / "config.yaml").exists():
        places = [("model", policy.source), *(("data", path) for some in rows.paths.values() for path in some)]
        places += [("adapter", policy.adapter)] if isinstance(policy, LoRAPolicy) and policy.adapter else []
        try:
            refuse_reading("folder", "folder=", root, places)
            aside = set_aside(root)
            claim("folder", root, "fit")
        finally:
            lock.release()
        lock = hold("folder", root)
    return root, checkpoint, lock, aside


def _fit(trainer: Trainer, module: PreferenceModule, rows: PreferenceData, checkpoint: Path | None) -> None:
    """Train; after a first Ctrl-C what was trained is kept, and the cell goes on."""
    before = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(module, rows, ckpt_path=None if checkpoint is None else str(checkpoint), weights_only=True)
    except SIGTERMException as stop:
        if stop.code != 128 + signal.SIGINT:
            raise
        for export in (one for one in trainer.callbacks if isinstance(one, ExportPolicy)):  # type: ignore[attr-defined]
            export.on_fit_end(trainer, module)
        steps = trainer.estimated_stepping_batches
        of = f" of {steps}" if math.isfinite(steps) else ""
        print(f"stopped after step {trainer.global_step}{of}; go on with align(..., resume=True)")
    except SystemExit as stop:  # Lightning's, of a second Ctrl-C: it would end the kernel's cell with an exit's text
        if isinstance(stop.__context__, KeyboardInterrupt):
            signal.signal(signal.SIGINT, before)  # which Lightning lets the process ignore from then on
            raise KeyboardInterrupt from None
        raise


def _trainer(root: Path, settings: Mapping[str, Any], device: str) -> Trainer:
    """A Trainer as `fit` has it, on one device unless told otherwise: a notebook's process cannot be started twice."""
    chosen: dict[str, Any] = {name: default.value for name, default in defaults.TRAINER.items()}
    if settings.get("max_steps") not in (None, -1):
        chosen["max_epochs"] = -1
    chosen |= {"precision": defaults.precision(device).value, "devices": 1, "num_sanity_val_steps": 0}
    chosen |= {"enable_model_summary": False} | dict(settings)
    own, checkpoints = list(chosen.pop("callbacks", None) or []), root / "checkpoints"
    standard: dict[type, Callable[[], Any]] = {
        RunProgress: RunProgress,
        ModelCheckpoint: lambda: LastCheckpoints(checkpoints),
        ExportPolicy: ExportPolicy,
        GracefulShutdown: lambda: GracefulShutdown(str(checkpoints)),
        EvenValidations: EvenValidations,
        Fingerprints: Fingerprints,
        RunPlots: RunPlots,
        RunReport: RunReport,
    }
    if chosen.get("enable_progress_bar") is False:
        del standard[RunProgress]
    if chosen.get("enable_checkpointing") is False:
        del standard[ModelCheckpoint], standard[GracefulShutdown]
    callbacks = [*own, *(make() for kind, make in standard.items() if kind not in map(type, own))]
    logger = chosen.pop("logger", None)
    given = [] if logger is None or isinstance(logger, bool) else logger if isinstance(logger, list) else [logger]
    with trainer_refusals(chosen, prefix=""):
        return Trainer(
            default_root_dir=str(root),
            use_distributed_sampler=False,
            callbacks=sorted(callbacks, key=turn),
            logger=[RunLogger(root), *given],
            **({"plugins": [AtomicCheckpointIO()]} | chosen),
        )


def _save_config(root: Path, module: PreferenceModule, data: PreferenceData, parts: Parts, trainer: Trainer) -> None:
    """config.yaml: what the run was made with, as `fit` writes it; objects by their names."""
    policy, loss = module.policy, module.loss
    dtype = str(policy.dtype).removeprefix("torch.")
    held_out = {"validation": "auto"} if data.holds_out else {}
    weighted = {} if data.sets is None else {"train": [dataclasses.asdict(one) for one in data.sets]}
    plan = {
        name: getattr(data, name) for name in ("max_tokens", "seed", "layout", "pairing_ratio", "stratify", "epoch_of")
    }
    config = {
        "model": {
            "policy": _class_and_arguments(policy, parts.policy | _arguments(policy) | {"dtype": dtype}),
            "loss": _class_and_arguments(loss, _arguments(loss)),
            "reference": module.reference_kind,
            "optimization": dataclasses.asdict(module.optimization),
        },
        "data": data.paths
        | weighted
        | held_out
        | plan
        | {"examples_per_step": data.step_size, "options": dataclasses.asdict(data.options)},
        "trainer": _kept(parts.trainer) | {"precision": str(trainer.precision), "default_root_dir": str(root)},
    }
    config["model"] = _kept(parts.module) | config["model"]
    write_text(root / "config.yaml", yaml.safe_dump(_plain(config), sort_keys=False))


def _kept(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Those that a config can hold: callbacks and the like are objects, and left out."""
    return {name: value for name, value in settings.items() if isinstance(value, bool | int | float | str)}


def _arguments(made: Any) -> dict[str, Any]:
    """The arguments that it was made with: of those that it keeps by their names."""
    return {name: getattr(made, name) for name in inspect.signature(type(made)).parameters if hasattr(made, name)}


def _class_and_arguments(made: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    kind, room = type(made), type(made).__module__.rpartition(".")[0]
    short = getattr(sys.modules.get(room), kind.__name__, None) is kind  # as configs name what comes with the package
    return {"class_path": f"{room if short else kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def _plain(value: Any) -> Any:
    """With only what YAML holds: anything else by what it prints as."""
    if isinstance(value, dict):
        return {str(name): _plain(held) for name, held in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(held) for held in value]
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
