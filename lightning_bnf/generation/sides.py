"""The two sides of an alignment, base and aligned policy, ready to answer."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from huggingface_hub import ModelCard
from peft import PeftModel
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Generated, Sampling, generate_with_lengths
from lightning_bnf.policies.base import Dtype, Policy
from lightning_bnf.policies.exported import Exported, ExportedAdapter, exported
from lightning_bnf.policies.sources import placed
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.slowness import slow_products

BASE, ALIGNED = "base", "aligned"
_POLICY_FILES = ("adapter_config.json", "config.json")


@dataclass(frozen=True)
class Side:
    """A model that answers under a name; `within` is entered for as long as it does, such as with the adapter off."""

    name: str
    model: Any
    tokenizer: PreTrainedTokenizerBase
    within: Callable[[], AbstractContextManager[Any]] = nullcontext

    def answers(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, stop: Callable[[], bool] | None = None
    ) -> list[Generated]:
        """One answer to each prompt (token ids); `stop` as in `generate_with_lengths`."""
        with self.within():
            rows = generate_with_lengths(self.model, self.tokenizer, prompts, sampling, stop=stop)
        return [answers[0] for answers in rows]


class Opened(NamedTuple):
    """An exported policy beside its base. `renderers` make prompts token ids, by side; `about` says what was loaded."""

    sides: tuple[Side, Side]
    renderers: dict[str, Renderer]
    about: list[str]


@dataclass(frozen=True)
class _Trained:
    """What a run's config.yaml says of its policy; the defaults where there is none."""

    kind: str = ""
    source: str | None = None
    revision: str | None = None
    adapter: str | None = None
    dtype: Dtype = "float32"
    rendering: Rendering = field(default_factory=Rendering)


def opened(run: Path, dtype: Dtype | None = None) -> Opened:
    """The base and the policy of a run folder, or of the folder of an exported policy.

    With an adapter it is one model in memory, and the base is the model with the adapter off. Without, the base is
    loaded beside: the one that the run's config.yaml names, or the card of the folder. `dtype` None: the run's.

    Raises `Refusal` where there is no policy, or where one of the two cannot be loaded.
    """
    folder, run_folder = _policy_folder(run)
    trained = _trained(run_folder)
    weights = dtype or trained.dtype
    try:
        policy = exported(str(folder), weights)
        base = None if isinstance(policy, ExportedAdapter) else _base_of(folder, trained, weights)
        for one in (policy, *([base] if base else [])):
            _ = one.tokenizer  # refused before the weights are read
            one.load()
    except (Refusal, OSError) as error:
        raise Refusal(f"run must be one whose policy and base can be loaded, got {str(run)!r}: {error}") from None
    aligned = Side(ALIGNED, placed(policy.loaded), policy.tokenizer)
    if base is None:
        before = Side(BASE, aligned.model, policy.tokenizer, _adapter_off(policy))
    else:
        before = Side(BASE, placed(base.loaded), base.tokenizer)
    sources = {ALIGNED: policy, BASE: base or policy}
    renderers = {name: _renderer(one, trained.rendering) for name, one in sources.items()}
    slow = slow_products(aligned.model.device.type, weights)
    return Opened((before, aligned), renderers, _about(folder, policy, base, trained) + ([slow] if slow else []))


def _renderer(policy: Policy, rendering: Rendering) -> Renderer:
    """As in training; plain text where there is no template to render with."""
    fitting = rendering if policy.tokenizer.chat_template else replace(rendering, strings="text")
    return Renderer(policy.tokenizer, fitting, policy.end_ids)


def _policy_folder(run: Path) -> tuple[Path, Path]:
    """The policy's folder, and the run's folder, which is the one around it."""
    path = run.expanduser()
    if not path.is_dir():
        raise Refusal(f"run must be a run folder, or an exported policy's, got {str(run)!r}: there is no such folder")
    for folder in (path, path / "policy"):
        if any((folder / name).is_file() for name in _POLICY_FILES):
            return folder, folder.resolve().parent
    raise Refusal(
        f"run must be a run folder with policy/ in it, or an exported policy's, got {str(run)!r}, which holds none; "
        "the command export writes it from a checkpoint"
    )


def _trained(run: Path) -> _Trained:
    """What config.yaml says of the policy and of how prompts were rendered; nothing where it is no run's."""
    path = run / "config.yaml"
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise Refusal(f"run must be a folder whose config.yaml can be read, got {str(path)!r}: {error}") from None
    policy, arguments = _part(config, "model", "policy"), _part(config, "model", "policy", "init_args")
    try:
        rendering = Rendering(**_part(config, "data", "options", "rendering"))
    except TypeError as error:
        raise Refusal(f"data.options.rendering in {path} must be of this version's arguments: {error}") from None
    kind = str(policy.get("class_path", "")).rpartition(".")[2]
    known = {name: arguments.get(name) for name in ("source", "revision", "adapter")}
    return _Trained(kind, dtype=arguments.get("dtype") or "float32", rendering=rendering, **known)


def _part(config: Any, *names: str) -> dict[str, Any]:
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


def _base_of(folder: Path, trained: _Trained, dtype: Dtype) -> Policy:
    """What a policy of full weights was trained from."""
    source = trained.source or _base_on_card(folder)
    if source is None:
        raise Refusal("neither the config.yaml of its run nor its README.md names the base")
    return Exported(source, trained.revision, dtype)


def _base_on_card(folder: Path) -> str | None:
    card = folder / "README.md"
    named = ModelCard.load(card, ignore_metadata_errors=True).data.base_model if card.is_file() else None
    return named if isinstance(named, str) else None


def _adapter_off(policy: Policy) -> Callable[[], AbstractContextManager[Any]]:
    model = policy.loaded
    assert isinstance(model, PeftModel)
    return model.disable_adapter


def _about(folder: Path, policy: Policy, base: Policy | None, trained: _Trained) -> list[str]:
    dtype = str(policy.dtype).removeprefix("torch.")
    if base is not None:
        return [f"{ALIGNED}: {folder}, all weights. {BASE}: {base.source}, loaded beside it. Both in {dtype}."]
    lines = [f"{ALIGNED}: {policy.source} in {dtype} with the adapter {folder}. {BASE}: the same with the adapter off."]
    if trained.adapter is not None:
        lines.append(f"The run started from the adapter {trained.adapter}: {BASE} is what was before that one too.")
    if trained.kind == "QLoRAPolicy":
        lines.append(f"The run trained beside weights in 4 bits; here both answer with the weights in {dtype}.")
    return lines
