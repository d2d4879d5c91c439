"""A LoRA adapter that training starts from: where it lies, and whether a policy's own adapter can be filled with it."""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import snapshot_download, try_to_load_from_cache
from lightning.pytorch.utilities import rank_zero_warn
from safetensors.torch import load_file

from lightning_bnf.policies.base import PolicyError
from lightning_bnf.runtime.fingerprints import file_fingerprint
from lightning_bnf.runtime.hub import why_not_asked
from lightning_bnf.runtime.refusal import refusing

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

_CONFIG, _WEIGHTS, _BASE = _FILES = "adapter_config.json", "adapter_model.safetensors", "base.json"
_SETTINGS = {"r": "r", "alpha": "lora_alpha", "use_rslora": "use_rslora", "use_dora": "use_dora"}  # ours -> peft's
_TYPES: dict[str, tuple[type, ...]] = {
    "r": (int,),
    "lora_alpha": (int, float),
    "use_rslora": (bool,),
    "use_dora": (bool,),
    "target_modules": (list, str),
}
_PLAIN = ("alpha_pattern", "rank_pattern", "bias", "lora_bias", "modules_to_save", "layer_replication")
TRAINED, START = "default", "start"  # peft's names of the adapter that is trained, and of the frozen one


def adapter_folder(adapter: str) -> Path:
    """The folder of `adapter`: a local one, or a hub id (`owner/name`, or `owner/name@revision`), downloaded.

    Raises `PolicyError` where it holds no LoRA adapter in safetensors; pickled weights are not read.
    """
    path = Path(adapter).expanduser()
    if not path.is_dir():
        if adapter.startswith((".", "/", "~")) or adapter.count("/") != 1:
            raise PolicyError(f"adapter must be a peft folder, or a hub id, got {adapter!r}: there is no such folder")
        name, _, revision = adapter.partition("@")
        cached = isinstance(try_to_load_from_cache(name, _CONFIG, revision=revision or None), str)
        why = why_not_asked(name, cached)
        if why is not None:
            raise PolicyError(f"adapter must be a local folder, as {why}, got the hub id {adapter!r}")
        with refusing(f"adapter must be a peft folder, or a hub id, got {adapter!r}", PolicyError):
            path = Path(snapshot_download(name, revision=revision or None, allow_patterns=list(_FILES)))
    lacking = [name for name in (_CONFIG, _WEIGHTS) if not (path / name).is_file()]
    if lacking:
        raise PolicyError(f"adapter must be what peft saves, got {adapter!r} without {' and '.join(lacking)}")
    return path


def read_config(folder: Path) -> dict[str, Any]:
    """What an adapter's `adapter_config.json` says. Raises `PolicyError` where it is none."""
    with refusing(f"adapter must be a peft folder whose {_CONFIG} can be read, got {str(folder)!r}", PolicyError):
        return dict(json.loads((folder / _CONFIG).read_text(encoding="utf-8")))


def settings_of(adapter: str) -> dict[str, Any]:
    """What `adapter` was made with, of what a policy can be told, by peft's names: rank, scale, kind and places.

    Raises `PolicyError` where it is of a kind that no policy makes, or its settings are none that peft takes.
    """
    held = read_config(adapter_folder(adapter))
    if held.get("peft_type") != "LORA":
        raise PolicyError(f"adapter must be of peft type LORA, got {adapter!r} of {held.get('peft_type')}")
    odd = {name: held[name] for name in _PLAIN if held.get(name) not in (None, False, "none", {}, [])}
    if held.get("init_lora_weights", True) not in (True, False, "gaussian"):
        odd["init_lora_weights"] = held["init_lora_weights"]  # such as pissa, which changes the base's weights
    if odd:
        raise PolicyError(f"adapter must be one without {', '.join(odd)}, got {adapter!r} with {odd}")
    settings = {name: held[name] for name in (*_SETTINGS.values(), "target_modules") if held.get(name) is not None}
    for name, value in settings.items():
        if type(value) not in _TYPES[name]:
            raise PolicyError(f"adapter must be one that peft made, got {adapter!r}, whose {name} is {value!r}")
    return {"use_rslora": False, "use_dora": False} | settings  # which files from before there were such do not name


def check_settings(adapter: str, config: "LoraConfig") -> None:
    """Raises `PolicyError` where a policy's settings would make another adapter than the one that is there."""
    held = settings_of(adapter)
    differing = {
        name: held.get(theirs) for name, theirs in _SETTINGS.items() if held.get(theirs) != getattr(config, theirs)
    }
    if differing:
        wanted = ", ".join(f"{name}: {value}" for name, value in differing.items())
        raise PolicyError(
            f"the policy's settings must be those that its adapter was made with ({wanted}), got others for "
            f"{adapter!r}, whose target_modules are {held.get('target_modules')}: those that are null are its own"
        )


def write_base(folder: str, fingerprint: str, weights_of: str) -> None:
    """Beside an adapter, what its base was: 16 hex digits, comparable among `weights_of` alike."""
    (Path(folder) / _BASE).write_text(json.dumps({"fingerprint": fingerprint, "weights_of": weights_of}) + "\n")


def check_base(adapter: str, base: str, fingerprint: str, weights_of: str) -> None:
    """Raises `PolicyError` for an adapter of other weights than the base's, where both were loaded alike.

    base: the base's name. Where the fingerprints are not comparable, names are, and what they leave open is said: the
    same weights may have another name.
    """
    folder = adapter_folder(adapter)
    with refusing(f"adapter must be a folder whose {_BASE} can be read, got {adapter!r}", PolicyError):
        held = json.loads((folder / _BASE).read_text(encoding="utf-8")) if (folder / _BASE).is_file() else {}
        known = held.get("fingerprint") if held.get("weights_of") == weights_of else None
    named = read_config(folder).get("base_model_name_or_path")
    if known not in (None, fingerprint):
        raise PolicyError(
            f"adapter must be one of the base that is trained, {base} (weights {fingerprint}), got {adapter!r}, made "
            f"on {named} (weights {known})"
        )
    if known is None and named != base:
        rank_zero_warn(
            f"adapter {adapter!r} was made on {named or 'a base that it does not name'}: whether that is {base} is not "
            "known, as it holds no fingerprint of weights that were loaded as these are"
        )


def adapter_fingerprint(adapter: str) -> str:
    """16 hex digits over the adapter's weights: all of them, as they are few."""
    return file_fingerprint(adapter_folder(adapter) / _WEIGHTS)


def start_from(model: "PeftModel", adapter: str, config: "LoraConfig") -> None:
    """Fill the adapter that is trained with `adapter`'s weights, and add a frozen one with the same: the reference.

    Raises `PolicyError` where the two do not have the same tensors in the same places and scales.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    with refusing(f"adapter must be one whose {_WEIGHTS} can be read, got {adapter!r}", PolicyError):
        weights = load_file(adapter_folder(adapter) / _WEIGHTS)
    _check_tensors(adapter, weights, get_peft_model_state_dict(model, save_embedding_layers=False))
    model.add_adapter(START, config)
    for name in (TRAINED, START) if model.device.type != "meta" else ():  # without weights there is nothing to fill
        set_peft_model_state_dict(model, weights, adapter_name=name)
    model.set_adapter(TRAINED)  # which freezes the other


def with_adapter(base: "PreTrainedModel", folder: Path) -> "PeftModel":
    """The base with a peft folder's adapter, to be looked at or merged.

    Raises `PolicyError` where it cannot be read, or has other tensors than this base takes: peft itself leaves out what
    has no place, and what is lacking at its random start.
    """
    from peft import PeftModel, get_peft_model_state_dict

    wanted = f"{_WEIGHTS} must be an adapter that peft reads, got {str(folder)!r}"
    with refusing(wanted, PolicyError), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Found missing adapter keys")
        model = PeftModel.from_pretrained(base, folder, is_trainable=False)
        held = load_file(folder / _WEIGHTS)
    takes = get_peft_model_state_dict(model, save_embedding_layers=False)
    _check_tensors(str(folder), {name: held[name] for name in held if name in takes or ".lora_" in name}, takes)
    return model


def _check_tensors(adapter: str, held: dict[str, torch.Tensor], wanted: dict[str, Any]) -> None:
    differing = [name for name, value in wanted.items() if name not in held or held[name].shape != value.shape]
    if not differing and held.keys() == wanted.keys():
        return
    modules = sorted({name.split(".lora_")[0].rsplit(".", 1)[-1] for name in held})
    raise PolicyError(
        f"adapter {adapter!r}: target_modules must be [{', '.join(modules)}] and the base the one that it was trained "
        f"on, got {len(differing)} tensors of the policy that it lacks or shapes otherwise and "
        f"{len(held.keys() - wanted.keys())} too many"
    )
