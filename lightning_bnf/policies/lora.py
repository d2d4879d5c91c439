"""LoRA: small adapters on a frozen base, through peft."""

from typing import ClassVar, cast

from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel

from lightning_bnf.policies.base import Dtype, Policy, PolicyError


class LoRAPolicy(Policy):
    """Low-rank adapters (Hu et al. 2021) on linear layers; the base stays frozen and is the reference."""

    default_reference: ClassVar[str] = "adapter_off"

    def __init__(
        self,
        source: str,
        revision: str | None = None,
        r: int = 16,
        alpha: float = 32.0,
        dropout: float = 0.0,
        target_modules: str | list[str] = "all-linear",
        use_rslora: bool = False,
        use_dora: bool = False,
        dtype: Dtype = "float32",
        attention: str | None = None,
        gradient_checkpointing: bool = False,
    ):
        """
        Args:
            source: Hub id, local folder, GGUF file, or `bundled:smollm2-135m-instruct`.
            revision: Commit, tag or branch of a hub id.
            r: Rank of the adapters (>= 1).
            alpha: Scale of the adapters (> 0); the update is multiplied by alpha / r.
            dropout: Probability of dropout before the adapters (0 to below 1); above 0, micro-batches change results.
            target_modules: Layers that get adapters: names, a regular expression, or `all-linear` (all but the head).
            use_rslora: Scale by alpha / sqrt(r) instead.
            use_dora: Train magnitudes too (DoRA).
            dtype: Type of the base's weights; adapters are float32.
            attention: Attention implementation of transformers (`sdpa`, `eager`, ...); null lets it choose.
            gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time.
        """
        super().__init__(source, revision, dtype, attention, gradient_checkpointing)
        if r < 1:
            raise ValueError(f"r {r}: accepted are whole numbers from 1")
        if not alpha > 0:
            raise ValueError(f"alpha {alpha}: accepted are numbers > 0")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout {dropout}: accepted are numbers from 0 to below 1")
        self.config = LoraConfig(
            task_type="CAUSAL_LM",
            r=r,
            lora_alpha=alpha,  # type: ignore[arg-type]
            lora_dropout=dropout,
            target_modules=target_modules,
            use_rslora=use_rslora,
            use_dora=use_dora,
        )

    def prepared(self, base: PreTrainedModel) -> nn.Module:
        try:
            adapted = get_peft_model(base, self.config)
        except ValueError as error:
            if "target" not in str(error).lower():
                raise
            linear = sorted(
                {name.rsplit(".")[-1] for name, layer in base.named_modules() if isinstance(layer, nn.Linear)}
            )
            raise PolicyError(
                f"target_modules {self.config.target_modules!r} match no layer of {self.source!r}; "
                f"its linear layers are {', '.join(linear)}, and 'all-linear' takes all but the head"
            ) from error
        return adapted

    @property
    def adapted(self) -> PeftModel:
        """The peft model inside."""
        return cast(PeftModel, self.loaded)

    @property
    def causal_lm(self) -> PreTrainedModel:
        return cast(PreTrainedModel, self.adapted.get_base_model())

    def save(self, folder: str) -> None:
        for config in self.adapted.peft_config.values():
            config.base_model_name_or_path = self.source  # what a reader can load, not where it was converted to
        self.adapted.save_pretrained(folder, save_embedding_layers=False)  # they are frozen
        self.tokenizer.save_pretrained(folder)
