"""A model that a user has loaded: whether it can be trained as it is, and what it is called."""

from collections.abc import Collection
from typing import TYPE_CHECKING

from lightning_bnf.policies.sources import SourceError, loadable
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:
    from transformers import PreTrainedModel


ITS_OWN = ("source", "revision", "dtype", "attention")  # arguments of a policy that a loaded model answers itself


def check_given(model: "PreTrainedModel", in_four_bits: bool, settings: Collection[str] = ()) -> None:
    """Raises `Refusal` for what is no transformers model, holds adapters already, or has weights of another kind; and
    where the names of `settings` are of what it has itself."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise Refusal(f"model must be a transformers model without adapters around it, got {type(model).__name__}")
    if any(hasattr(layer, "lora_A") for layer in model.modules()):
        raise Refusal(
            "model must be one without adapters, got one with LoRA layers, such as a run leaves in it: load it again, "
            "or take the adapters out with the run's policy.unload()"
        )
    if named := [name for name in ITS_OWN if name in settings]:
        raise Refusal(
            f"{named[0]} must be left out beside a model that is loaded, which has its own: give it to from_pretrained"
        )
    quantized = getattr(model.config, "quantization_config", None) is not None
    four = bool(getattr(model, "is_loaded_in_4bit", False))
    if in_four_bits and not four:
        raise Refusal("model must be loaded in 4 bits by bitsandbytes with QLoRAPolicy, got one that is not")
    if quantized and not in_four_bits:
        raise Refusal("model must be of 16 or 32 bits, got a quantized one; QLoRAPolicy takes 4-bit ones")


def source_of(model: "PreTrainedModel") -> str:
    """What the model was loaded by, for cards and saved adapters; its class's name where that is not there."""
    try:
        return loadable(model.name_or_path) if model.name_or_path else type(model).__name__
    except SourceError:
        return type(model).__name__
