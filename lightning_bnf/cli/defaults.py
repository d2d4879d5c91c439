"""What a command takes where neither files nor words say anything, chosen before the parser reads them, so that
--print_config shows it and whatever is typed goes over it."""

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import yaml
from jsonargparse import Namespace

from lightning_bnf import losses, policies
from lightning_bnf.cli.names import file_of
from lightning_bnf.cli.words import Option, ordered, settings
from lightning_bnf.datamodules.preference import SEED
from lightning_bnf.runtime.class_paths import class_at
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import shipped
from lightning_bnf.training.defaults import (
    DATA,
    TRAINER,
    Default,
    base_dtype,
    device_type,
    learning_rate,
    precision,
)

FAR = 50
"""A learning rate so many times the default is for adapters where all weights are trained, or a slip of the pen."""

_RANKS = {"LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"}
"""Variables by which a process knows which of several it is."""

POLICY_DTYPE = "model.policy.init_args.dtype"
UNLESS_NAMED = {
    "model.policy": Default("lora", "adapters: a few percent of the weights, and the base stays as it is"),
    "model.loss": Default("bnf", "needs no pairs and has nothing to tune"),
}


class Chosen(NamedTuple):
    """A setting, the value it gets, and why."""

    key: str
    value: Any
    reason: str


class Start(NamedTuple):
    """The options that the parser gets, and the defaults; `shown`: those that nothing was typed for."""

    options: list[Option]
    parser_defaults: dict[str, Any]
    shown: list[Chosen]


def start_of(typed: Sequence[Option]) -> Start:
    """Options with the policy and loss of a run that names none, and the defaults for device, policy and loss."""
    if any(option.key.endswith("help") for option in typed):
        return Start(list(typed), {}, [])
    named = settings(typed)
    shown = [Chosen(key, name, reason) for key, (name, reason) in UNLESS_NAMED.items() if not _names(named, key)]
    ready = ordered([*(Option(chosen.key, (str(file_of(chosen.key, chosen.value)),)) for chosen in shown), *typed])
    named = settings(ready)
    planned = any(named.get(name) is not None for name in ("gpu", "gpus", "gpu_memory"))
    accelerator = str(named.get("trainer.accelerator", "auto"))
    device = "cuda" if planned and accelerator in ("auto", "gpu") else device_type(accelerator)
    dtype = _policy_dtype(ready, named, device)
    if dtype is not None:
        ready.append(Option(POLICY_DTYPE, (dtype.value,)))
        shown.append(Chosen(POLICY_DTYPE, *dtype))
    below = _below(named, device)
    shown += [Chosen(key, *default) for key, default in below.items() if key not in named]
    return Start(ready, {key: default.value for key, default in below.items()}, shown)


def _below(named: Mapping[str, Any], device: str) -> dict[str, Default]:
    """Defaults that the parser can hold: whatever a file or a word says goes over them."""
    trainer = dict(TRAINER)
    if named.get("trainer.max_steps") not in (None, -1):
        del trainer["max_epochs"]  # what is named ends the run; a max_time says no step that the schedule could fall to
    found = {f"trainer.{name}": default for name, default in trainer.items()}
    found["trainer.precision"] = precision(device)
    found |= {f"data.{name}": default for name, default in DATA.items()}
    policy, loss = _class_of(named, "model.policy", policies.Policy), _class_of(named, "model.loss", losses.Loss)
    if policy is not None and loss is not None:
        found["model.optimization.learning_rate"] = learning_rate(policy, loss)
    return found


def _policy_dtype(typed: Sequence[Option], named: Mapping[str, Any], device: str) -> Default | None:
    """For a policy that was asked for by name alone; a config of the user's own says what it means."""
    keys = {option.key: option for option in typed}
    by_name = "model.policy" in keys and keys["model.policy"].values[0].startswith(str(shipped("configs/policy")))
    policy = _class_of(named, "model.policy", policies.Policy)
    if not by_name or policy is None or POLICY_DTYPE in keys:
        return None
    return base_dtype(policy, device)


def _names(named: Mapping[str, Any], key: str) -> bool:
    return any(name == key or name.startswith(f"{key}.class_path") for name in named if named[name] is not None)


def _class_of(named: Mapping[str, Any], key: str, kind: type) -> Any:
    """The class of a kind that is named for a setting; None where it cannot be told."""
    path = str(named.get(f"{key}.class_path") or named.get(key) or "")
    try:
        found = class_at(path if "." in path else f"{kind.__module__.rpartition('.')[0]}.{path}")
    except (ImportError, AttributeError, ValueError):
        return None
    return found if isinstance(found, type) and issubclass(found, kind) else None


def set_seeds(config: Any) -> None:
    """True becomes a number that is drawn, which for Lightning is always 0; and a null of the data's seed the number
    that everything random begins from. So both are saved and shown."""
    if config["seed_everything"] is True:
        config["seed_everything"] = _drawn_seed()
    seed, data = config["seed_everything"], config["data"]
    if isinstance(data, Namespace) and data.seed is None:
        data.seed = SEED if seed is False else seed


def _drawn_seed() -> int:
    """That of the process that started this one as a rank, else a new one. Raises `Refusal` where ranks that are
    started by something else would each draw their own."""
    if "PL_GLOBAL_SEED" in os.environ:
        return int(os.environ["PL_GLOBAL_SEED"])
    if not _RANKS.isdisjoint(os.environ):
        raise Refusal("seed_everything must be a number where torchrun, srun or the like start the processes, got true")
    return secrets.randbelow(2**32)


def set_learning_rate(config: Any) -> None:
    """A null in a config becomes the number that the module would take for it, so that it is saved and shown."""
    model = config["model"]
    if model.optimization.learning_rate is None:
        model.optimization.learning_rate = _default_rate(model)


def announce(shown: Sequence[Chosen], config: Any) -> None:
    """Say on standard error, once a run, what was chosen; and a learning rate that was meant for another policy."""
    if os.environ.get("LOCAL_RANK", "0") != "0":
        return
    if shown:
        said = "chosen, as nothing named it; a --key value or a line in a config goes over each:"
        print(f"{said}\n{as_yaml(shown)}", file=sys.stderr, flush=True)
    named, usual = config["model"].optimization.learning_rate, _default_rate(config["model"])
    if named > FAR * usual:
        print(
            f"model.optimization.learning_rate is {named:g}, more than {FAR} times the {usual:g} that this policy and "
            "loss would get unasked",
            file=sys.stderr,
            flush=True,
        )


def _default_rate(model: Any) -> float:
    policy, loss = (class_at(model[name].class_path) for name in ("policy", "loss"))
    return float(learning_rate(policy, loss).value)


def as_yaml(shown: Sequence[Chosen]) -> str:
    """Lines `key: value  # reason`, which --config takes as they are."""
    lines = [yaml.safe_dump({chosen.key: chosen.value}, width=1000).strip() for chosen in shown]
    width = min(60, max(map(len, lines), default=0))
    return "\n".join(f"{line:{width}}  # {chosen.reason}" for line, chosen in zip(lines, shown))
