"""Tiny random models of any architecture that transformers knows: every size that its config has is made small."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

VOCABULARY = 60
WINDOW = 16
"""Tokens of sliding windows, chunks and the like: shorter than the rows that models are tried with."""

MOST_WEIGHTS = 2e7  # of what is called tiny

SIZES: Mapping[str, Any] = (
    dict.fromkeys(("vocab_size", "vocab_size_per_layer_input", "n_vocab"), VOCABULARY)
    | dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32)
    | dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "decoder_ffn_dim"), 48)
    | dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_dim"), 16)
    | dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers", "encoder_layers"), 2)
    | dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4)
    | dict.fromkeys(("decoder_attention_heads", "encoder_attention_heads", "mamba_n_heads", "mamba_num_heads"), 4)
    | dict.fromkeys(("num_key_value_heads", "num_kv_heads", "multi_query_group_num"), 2)
    | dict.fromkeys(("head_dim", "kv_channels", "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"), 8)
    | dict.fromkeys(("global_head_dim", "rotary_dim", "index_head_dim", "linear_key_head_dim"), 8)
    | dict.fromkeys(("kv_lora_rank", "q_lora_rank", "state_size", "mamba_d_state", "ssm_state_size"), 8)
    | dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4)
    | dict.fromkeys(("num_experts_per_tok", "moe_k", "moe_topk", "top_k_experts"), 2)
    | dict.fromkeys(
        ("sliding_window", "sliding_window_size", "window_size", "attention_chunk_size", "index_topk"), WINDOW
    )
    | {"n_group": 1, "topk_group": 1, "n_shared_experts": 1, "initializer_range": 0.2, "is_decoder": True}
    | {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "num_kv_shared_layers": 0}
)
"""Field of a config -> its value in a tiny one, for whichever of the fields a config has."""

VARIANTS: tuple[Mapping[str, Any], ...] = (
    {},
    {"head_dim": None},
    {"num_key_value_heads": 4},
    {"attention_dropout": 0.0},
    {"num_experts_per_tok": 1},
    {"num_heads": 8, "mamba_n_heads": 8, "mamba_num_heads": 8},
    {"num_hidden_layers": 4},
    {"num_hidden_layers": 6},
    {"attention_types": [[["global", "local"], 1]]},
    {"layer_types": ["conv", "full_attention"]},
    {"axial_pos_embds": False},
)
"""What is set besides, one after the other until a model can be built: some sizes must fit each other. A field that is
None keeps its default."""

NOISE = 0.1
"""Of every rate of dropout or jitter in a config, which by default may be 0."""


def architectures() -> list[str]:
    """The model types that transformers has a causal language model for."""
    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def tiny_model(model_type: str) -> "PreTrainedModel":
    """A random model in float32, the same at every call. Raises what its classes do where none can be built so."""
    errors: list[Exception] = []
    for variant in VARIANTS:
        for of_unset in (False, True):
            try:
                return _built(_shrunk(type(AutoConfig.for_model(model_type)), {**SIZES, **variant}, of_unset))
            except Exception as error:
                errors.append(error)
    raise errors[0]


def _built(config: "PretrainedConfig") -> "PreTrainedModel":
    with torch.device("meta"):
        weights = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if weights > MOST_WEIGHTS:
        raise Refusal(f"sizes must be known for a tiny model, got a config of {weights / 1e6:.0f} million weights")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).float().eval()
    with torch.no_grad():
        model(input_ids=torch.arange(3, 3 + 2 * WINDOW)[None] % VOCABULARY, use_cache=False)
    return model


def _shrunk(kind: "type[PretrainedConfig]", sizes: Mapping[str, Any], of_unset: bool) -> "PretrainedConfig":
    """A config whose known fields are small; with `of_unset` those too that are None by default."""
    default = kind()
    held = default.to_dict()
    held |= {name: held.get(field) for name, field in kind.attribute_map.items() if name in sizes}
    wanted: dict[str, Any] = {name: NOISE for name, value in held.items() if _is_rate(name, value)}
    for name, value in sizes.items():
        if value is not None and name in held and (held[name] is not None or of_unset):
            wanted[name] = value
    parts = {name: getattr(default, name, None) for name in kind.sub_configs}
    small: dict[str, Any] = {
        name: _shrunk(type(part), sizes, of_unset) for name, part in parts.items() if part is not None
    }
    return kind(**(_layers(held, wanted) | wanted), **small)


def _layers(held: Mapping[str, Any], wanted: dict[str, Any]) -> dict[str, list[Any]]:
    """What a config lists of each layer, for few layers: one of each kind, and `num_hidden_layers` is set to that."""
    count = held.get("num_hidden_layers")
    lists = {name: value for name, value in held.items() if isinstance(value, list) and len(value) == count}
    kinds = {name: sorted(set(map(str, value)), key=[*map(str, value)].index) for name, value in lists.items()}
    if not lists or "num_hidden_layers" not in wanted:
        return {}
    few = wanted["num_hidden_layers"] = max(wanted["num_hidden_layers"], *map(len, kinds.values()))
    firsts = {name: [value[[*map(str, value)].index(kind)] for kind in kinds[name]] for name, value in lists.items()}
    return {name: [*value, *[value[-1]] * few][:few] for name, value in firsts.items()}


def _is_rate(name: str, value: Any) -> bool:
    return isinstance(value, float) and value < 1 and any(part in name for part in ("drop", "jitter"))
