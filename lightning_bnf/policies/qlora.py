"""QLoRA: adapters on a frozen base of 4-bit weights, through peft and bitsandbytes."""

import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import BitsAndBytesConfig

from lightning_bnf.policies.base import Checkpointing, Dtype, Policy, PolicyError, Stored
from lightning_bnf.policies.head.tiles import Head
from lightning_bnf.policies.lora import LoRAPolicy
from lightning_bnf.policies.sources import load_model
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, ZeroToBelowOne, checked

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@checked
class QLoRAPolicy(LoRAPolicy):
    """LoRA on a base in NF4 (Dettmers et al. 2023): half a byte for each weight of its linear layers.

    Embeddings, norms, biases and the head stay as they are, in `dtype`. Norms are not widened to float32, as peft's
    `prepare_model_for_kbit_training` does: transformers takes their statistics in float32 anyway, and wide norms,
    embeddings and heads would make the activations between the layers, and the head's weight, twice as large.
    """

    in_four_bits: ClassVar[bool] = True

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
        double_quantization: bool = True,
        dtype: Dtype = "bfloat16",
        attention: str | None = None,
        gradient_checkpointing: Checkpointing = False,
        reference_of: Literal["start", "base"] = "start",
        compiled: bool = False,
    ):
        """
        Args:
            source: Hub id, local folder, GGUF file, or `bundled:smollm2-135m-instruct`; quantized on loading.
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
            double_quantization: Quantize the scales of the blocks too: 0.4 bits a weight less.
            dtype: Type of what is not quantized, and of products with what is; adapters are float32.
            attention: Attention implementation of transformers (`sdpa`, `eager`, `flex_attention`,
                `flash_attention_2`, ...); null lets it choose.
            gradient_checkpointing: Recompute activations in the backward pass: less memory, about a third more time;
                `offloaded` keeps what each layer begins from in the CPU's memory until then.
            reference_of: What the reference is where training starts from an adapter: `start` (the base with it), or
                `base` (without, as where rounds of training keep the first model's).
            compiled: Have torch compile the decoder layers: a minute or more at the start, then faster on a GPU.
        """
        lora = (source, revision, r, alpha, dropout, target_modules, use_rslora, use_dora, adapter)
        super().__init__(*lora, dtype, attention, gradient_checkpointing, reference_of, compiled)
        self.double_quantization = double_quantization
        self.quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=double_quantization,
            bnb_4bit_compute_dtype=self.dtype,
        )

    def load(self, dtype: torch.dtype | None = None) -> None:
        if importlib.util.find_spec("bitsandbytes") is None:
            raise PolicyError(
                "QLoRAPolicy needs bitsandbytes, which is not installed: pip install 'lightning_bnf[qlora]'"
            )
        super().load(dtype)

    def base(self, dtype: torch.dtype | None = None) -> "PreTrainedModel":
        return load_model(self.source, dtype or self.dtype, self.revision, self.attention, self.quantization)

    def description(self) -> dict[str, Any]:
        return super().description() | {"quantization": self._quantization}

    @property
    def _quantization(self) -> str:
        return "nf4, double" if self.quantization.bnb_4bit_use_double_quant else "nf4"

    def reference_description(self) -> dict[str, str]:
        return super().reference_description() | {"quantization": self._quantization}

    def prepared(self, base: "PreTrainedModel") -> nn.Module:
        self._check_kind(base)
        for layer in _four_bit(base):
            layer.compute_dtype = self.dtype  # a source in 4 bits brings its own
            # On CPUs with bfloat16 products bitsandbytes would repack the weights in the first pass in evaluation mode,
            # for a kernel that has no gradient: every later step would train on wrong gradients without a word.
            layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
        return super().prepared(base)

    def stored(self, tensor: Tensor) -> Stored:
        """NF4 for the weights that loading quantizes: half a byte each, and the scales of blocks of 64."""
        if not any(tensor is layer.weight for layer in self._quantizable()):
            return super().stored(tensor)
        blocks = -(-tensor.numel() // 64)
        scales = blocks + 4 * -(-blocks // 256) if self.quantization.bnb_4bit_use_double_quant else 4 * blocks
        return Stored("nf4", -(-tensor.numel() // 2) + scales)

    @property
    def unpacked_bytes(self) -> int:
        return max((layer.weight.numel() for layer in self._quantizable()), default=0) * self.dtype.itemsize

    def _quantizable(self) -> list[nn.Linear]:
        """The base's linear layers but the head, in a model that is not quantized yet."""
        head = self.causal_lm.get_output_embeddings()
        layers = [(name, layer) for name, layer in self.causal_lm.named_modules() if isinstance(layer, nn.Linear)]
        return [layer for name, layer in layers if layer is not head and ".lora_" not in name]

    def _check_kind(self, base: "PreTrainedModel") -> None:
        """A source that is in 4 bits already stays as it is: it must be what the settings say."""
        held = getattr(base.config, "quantization_config", None)
        if held is None:  # not loaded, but built of its config alone
            return
        kind, double = held.bnb_4bit_quant_type, held.bnb_4bit_use_double_quant
        if (kind, double) != ("nf4", self.quantization.bnb_4bit_use_double_quant):
            raise PolicyError(
                "source's 4-bit weights must be nf4 with the policy's double_quantization, got "
                f"{kind} with double_quantization {str(double).lower()} in {self.source!r}"
            )

    def head(self) -> Head:
        if hasattr(self.causal_lm.get_output_embeddings().weight, "quant_state"):  # packed bytes, not (V, H)
            raise PolicyError(
                "source must be weights that leave the head (lm_head) at 16 or 32 bits, as bitsandbytes does unless "
                f"told otherwise, got {self.source!r}, whose head is quantized"
            )
        return super().head()


def _four_bit(model: nn.Module) -> list[nn.Module]:
    from bitsandbytes.nn import Linear4bit  # an optional dependency, and slow to import

    return [layer for layer in model.modules() if isinstance(layer, Linear4bit)]


def as_plain_bytes(policy: Policy) -> None:
    """Make plain parameters of a policy's packed weights, which FSDP2 can cut. The scales of their blocks stay whole on
    every rank, at 1.6 % of a byte a weight; a layer that is run puts both together again, as bitsandbytes does.

    As bfloat16 they are what is gathered under bf16-mixed, so that no byte is converted.
    """
    for layer in _four_bit(policy.causal_lm):
        weight: Any = layer.weight
        packed = weight.data.flatten().view(torch.bfloat16)[:, None]
        layer.quant_state, layer.quant_storage = weight.quant_state, packed.dtype
        layer.weight = nn.Parameter(packed, requires_grad=False)
