"""LoRA: small adapters on a frozen base, through peft."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from lightning_bnf.policies.adapters import (
    START,
    TRAINED,
    adapter_fingerprint,
    check_base,
    check_settings,
    settings_of,
    start_from,
    write_base,
)
from lightning_bnf.policies.base import Checkpointing, Dtype, Policy, PolicyError
from lightning_bnf.policies.sources import loadable
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, ZeroToBelowOne, checked
from lightning_bnf.runtime.limits import SECONDS, limited

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from transformers import PreTrainedModel

_OWN: dict[str, Any] = {"r": 16, "lora_alpha": 32.0, "use_rslora": False, "use_dora": False}
_OWN |= {"target_modules": "all-linear"}


@checked
class LoRAPolicy(Policy):
    """Low-rank adapters (Hu et al. 2021) on linear layers; the base stays frozen.

    The reference is the base; or, where training starts from an adapter, the base with it (`reference_of`).
    """

    references: ClassVar[tuple[str, ...]] = ("adapter_off", "copy", "cache")
    adapters: ClassVar[bool] = True

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        r: PositiveInt | None = None,
        alpha: PositiveFloat | None = None,
        dropout: ZeroToBelowOne = 0.0,
        target_modules: str | list[str] | None = None,
        use_rslora: bool | None = None,
        use_dora: bool | None = None,
        adapter: str | None = None,
        dtype: Dtype = "float32",
        attention: str | None = None,
        gradient_checkpointing: Checkpointing = False,
        reference_of: Literal["start", "base"] = "start",
        compiled: bool = False,
    ):
        """
        Args:
            source: Hub id, local folder, GGUF file, or `bundled:smollm2-135m-instruct`.
            revision: Commit, tag or branch of a hub id.
            r: Rank of the adapters (>= 1). Null, here and where it is the default: that of `adapter`, else 16.
            alpha: Scale of the adapters (> 0), else 32; the update is multiplied by alpha / r.
            dropout: Probability of dropout before the adapters (0 to below 1); above 0, micro-batches change results.
            target_modules: Layers that get adapters: names, a regular expression, or `all-linear` (all but the head),
                which is what else there is.
            use_rslora: Scale by alpha / sqrt(r) instead, else not.
            use_dora: Train magnitudes too (DoRA), else not.
            adapter: Peft folder or hub id (`owner/name@revision`) of an adapter to start from, such as one of SFT; the
                reference then is the base with it. Null starts from the base.
            dtype: Type of the base's weights; adapters are float32.
            attention: Attention implementation of transformers (`sdpa`, `eager`, `flex_attention`,
                `flash_attention_2`, ...); null lets it choose.
            gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time;
                `offloaded` keeps what each layer begins from in the CPU's memory until then.
            reference_of: What the reference is where training starts from an adapter: `start` (the base with it), or
                `base` (without, as where rounds of training keep the first model's).
            compiled: Have torch compile the decoder layers: a minute or more at the start, then faster on a GPU.
        """
        super().__init__(source, revision, dtype, attention, gradient_checkpointing, compiled)
        if reference_of == "base" and adapter is None:
            raise PolicyError("reference_of must be start where training starts from no adapter, got base")
        self.r, self.alpha, self.dropout, self.target_modules = r, alpha, dropout, target_modules
        self.use_rslora, self.use_dora = use_rslora, use_dora
        self.adapter = adapter
        self.reference_of = reference_of

    @cached_property
    def config(self) -> "LoraConfig":
        """Peft's: what was named, else what the adapter that it starts from was made with, else this class's own."""
        from peft import LoraConfig  # brings bitsandbytes: seconds, which the command line's --help need not take

        held = {} if self.adapter is None else settings_of(self.adapter)
        named = {"r": self.r, "lora_alpha": self.alpha, "target_modules": self.target_modules}
        named |= {"use_rslora": self.use_rslora, "use_dora": self.use_dora}
        taken = {name: given for name, given in named.items() if given is not None}
        return LoraConfig(task_type="CAUSAL_LM", lora_dropout=self.dropout, **(_OWN | held | taken))

    def load(self, dtype: torch.dtype | None = None) -> None:
        if self.model is None and self.adapter is not None:
            check_settings(self.adapter, self.config)
        super().load(dtype)
        self._check_saved()

    def _check_saved(self) -> None:
        """Raises `PolicyError` where a class made of this one trains what this one's `save` leaves out."""
        more = [name for name, p in self.named_parameters() if p.requires_grad and "lora_" not in name]
        if more and type(self).save is LoRAPolicy.save:
            raise PolicyError(
                f"{type(self).__name__}.save must write all that is trained, got LoRAPolicy's, which writes adapters "
                f"alone, and {len(more)} other tensors that are trained, such as {more[0]}: override it, and "
                "`references` with copy and cache, as with its adapters off such a policy is not what it was"
            )

    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        adapted = self._adapted(base)
        if self.adapter is not None:
            if self.base_fingerprint is not None:  # a model without weights is no other base
                check_base(self.adapter, loadable(self.source), self.base_fingerprint, self.weights_of)
            start_from(adapted, self.adapter, self.config)
        return adapted

    def _adapted(self, base: "PreTrainedModel") -> "PeftModel":
        from peft import get_peft_model

        self._try_pattern(base)
        try:
            return cast("PeftModel", get_peft_model(base, self.config, TRAINED))
        except ValueError as error:
            if "target" not in str(error).lower():
                raise
            linear = sorted(
                {name.rsplit(".")[-1] for name, layer in base.named_modules() if isinstance(layer, nn.Linear)}
            )
            raise PolicyError(
                f"target_modules must be of {', '.join(linear)}, the linear layers of {self.source!r}, or 'all-linear' "
                f"(all but the head), got {self.config.target_modules!r}"
            ) from error

    def _try_pattern(self, base: "PreTrainedModel") -> None:
        """Before peft goes over the layers: of names alone, a pattern can match for longer than a run lasts."""
        pattern = self.config.target_modules
        if not isinstance(pattern, str):
            return
        try:
            with limited():
                for name, _ in base.named_modules():
                    re.fullmatch(pattern, name)
        except (re.error, TimeoutError) as error:
            why = (
                f"no pattern ({error})" if isinstance(error, re.error) else f"one that takes longer than {SECONDS:g} s"
            )
            raise PolicyError(f"target_modules must be a regular expression, got {pattern!r}, {why}") from None

    def description(self) -> dict[str, Any]:
        started: dict[str, Any] = {"adapter": self.adapter, "adapter_fingerprint": None, "reference_of": None}
        if self.adapter is not None:
            started |= {**self._adapter_fingerprint(), "reference_of": self.reference_of}
        names = ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules")
        return super().description() | {name: _listed(getattr(self.config, name)) for name in names} | started

    def reference_description(self) -> dict[str, str]:
        return {} if self.adapter is None or not self.reference_is_start else self._adapter_fingerprint()

    @property
    def reference_is_start(self) -> bool:
        return self.reference_of == "start"

    def _adapter_fingerprint(self) -> dict[str, str]:
        assert self.adapter is not None
        return {"adapter_fingerprint": adapter_fingerprint(self.adapter)}

    @contextmanager
    def as_it_started(self) -> Iterator[None]:
        """Inside, the policy is what it was before training: its adapter is off, or the frozen one it started from."""
        if self.adapter is None:
            with self.without_adapters():
                yield
            return
        self.adapted.set_adapter(START, inference_mode=True)
        try:
            yield
        finally:
            self.adapted.set_adapter(TRAINED)

    def without_adapters(self) -> AbstractContextManager[None]:
        return self.adapted.disable_adapter()

    @property
    def adapted(self) -> "PeftModel":
        """The peft model inside."""
        return cast("PeftModel", self.loaded)

    @property
    def causal_lm(self) -> "PreTrainedModel":
        return cast("PreTrainedModel", self.adapted.get_base_model())

    def save(self, folder: str, weights: Mapping[str, Tensor], max_shard_size: str) -> None:
        config = self.adapted.peft_config[TRAINED]
        config.base_model_name_or_path = loadable(self.source)
        config.revision = self.revision
        state = {name.removeprefix("model."): value for name, value in weights.items()}
        self.adapted.save_pretrained(
            folder, selected_adapters=[TRAINED], save_embedding_layers=False, state_dict=state
        )  # the embeddings are frozen
        write_base(folder, str(self.base_fingerprint), self.weights_of)
        self.tokenizer.save_pretrained(folder)


def _listed(value: Any) -> Any:
    return sorted(value) if isinstance(value, set) else value  # peft keeps names in a set, which has no order
