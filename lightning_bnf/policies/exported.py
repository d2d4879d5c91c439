"""Policies as they were trained and exported, to be looked at: they are loaded frozen and never trained on."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, cast

from torch import Tensor, nn

from lightning_bnf.policies.adapters import read_config, with_adapter
from lightning_bnf.policies.base import Dtype, Policy, PolicyError
from lightning_bnf.policies.sources import tokenizer_in

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

_ADAPTER, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def exported(source: str, dtype: Dtype = "float32", attention: str | None = None) -> Policy:
    """The policy of a peft folder, or of anything that `sources.resolve_source` knows; `load` brings its weights.

    Raises `PolicyError` for a peft folder that names no base, or whose weights are not in safetensors.
    """
    folder = Path(source).expanduser()
    if (folder / _ADAPTER).is_file():
        return ExportedAdapter(folder, dtype, attention)
    return Exported(source, None, dtype, attention)


class Exported(Policy):
    """A source's own weights, nothing trained."""

    references: ClassVar[tuple[str, ...]] = ()

    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        return base

    def save(self, folder: str, weights: Mapping[str, Tensor], max_shard_size: str) -> None:
        raise PolicyError(
            f"source must be a copy of the folder to be trained, got {self.source!r}, loaded to be looked at"
        )


class ExportedAdapter(Exported):
    """A peft folder's adapter on the base that it names, not merged: merging rounds."""

    def __init__(self, folder: Path, dtype: Dtype = "float32", attention: str | None = None):
        named = read_config(folder)
        base = named.get("base_model_name_or_path")
        if not base:
            raise PolicyError(f"{folder}: {_ADAPTER} must be one that names a base model, got none")
        if not (folder / _WEIGHTS).is_file():  # peft would read pickled weights instead
            raise PolicyError(f"{folder}: must be an adapter in safetensors, got no {_WEIGHTS}")
        super().__init__(base, named.get("revision"), dtype, attention)
        self.folder = folder
        if (folder / "tokenizer_config.json").is_file():  # exports carry the tokenizer that they were trained with
            self._tokenizer = tokenizer_in(str(folder))

    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        return cast(nn.Module, with_adapter(base, self.folder))

    @property
    def causal_lm(self) -> "PreTrainedModel":
        return cast("PreTrainedModel", cast("PeftModel", self.loaded).get_base_model())
