"""vLLM in this process: the same prompts as token ids, sampled by an engine that keeps a GPU full.

What shapes the samples is stated, as for transformers: no top-k, no penalty, the end tokens of the model's generation
config and no other; vLLM's own defaults of these are never taken. Each sample has a generator of its own, begun with
the prompt's seed (`prompt_seed`) plus the sample's number, whatever else is sampled beside it. A LoRA adapter is served
on its base, not merged.
"""

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from lightning_bnf.generation.sampling import Generated, Sampling, decoded, prompt_seed
from lightning_bnf.policies.adapters import adapter_fingerprint, read_config
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.exported import ExportedAdapter
from lightning_bnf.policies.sources import found_source, load_config, load_end_ids, weight_files
from lightning_bnf.runtime.arguments import AboveZeroToOne, PositiveInt, checked
from lightning_bnf.runtime.fingerprints import config_fingerprint, content_hash, fingerprint_part
from lightning_bnf.runtime.refusal import Refusal, refusing

INSTALL = "pip install 'lightning_bnf[vllm]'"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM makes room for in an adapter; the smallest that holds its rank is asked for."""


class VllmError(Refusal):
    """A model that vLLM does not serve as it is given, or vLLM that is not there."""


@checked
@dataclass(frozen=True)
class Vllm:
    """vLLM in this process, of the extra `vllm`.

    Args:
        tensor_parallel_size: GPUs that each layer is cut over.
        gpu_memory_utilization: share of each GPU's memory that weights and cache may take.
        enforce_eager: whether to do without compiling and CUDA graphs: starts sooner, samples more slowly.
    """

    tensor_parallel_size: PositiveInt = 1
    gpu_memory_utilization: AboveZeroToOne = 0.9
    enforce_eager: bool = False


class VllmModel:
    """A policy as vLLM serves it; `start` brings the weights, or the first completion does."""

    def __init__(self, settings: Vllm, policy: Policy, longest: int):
        """longest: tokens of a prompt with its completion, at most; room for it is taken from the GPU's memory.

        Raises `VllmError` without vLLM, for weights that are not in safetensors, or for an adapter whose modules are
        scaled in different ways.
        """
        self.settings, self.policy, self.longest = settings, policy, longest
        self._vllm: Any = _vllm()
        self._llm: Any = None
        if not weight_files(policy.source, policy.revision):
            raise VllmError(f"source must be a model in safetensors for vllm, got {policy.source!r}")
        if self._adapter is not None:
            _check_scales(self._adapter)

    @property
    def version(self) -> str:
        return f"vllm {self._vllm.__version__}"

    @cached_property
    def identity(self) -> str:
        """16 hex digits of the weights as they lie in their files, of the adapter, the config, the type, and how each
        prompt comes to its seed."""
        parts = []
        for file in weight_files(self.policy.source, self.policy.revision):
            with safe_open(file, "pt") as held:
                parts += [fingerprint_part(name, held.get_tensor(name)) for name in sorted(held.keys())]
        adapter = None if self._adapter is None else adapter_fingerprint(str(self._adapter))
        config = config_fingerprint(load_config(self.policy.source, self.policy.revision))
        return content_hash(["vllm", "prompt_seed", parts, adapter, config, str(self.policy.dtype)])

    @cached_property
    def ends(self) -> list[int]:
        """Token ids that end a completion: those that `generate` of transformers ends with."""
        named = load_end_ids(self.policy.source, self.policy.revision)
        named = named or _listed(load_config(self.policy.source, self.policy.revision).eos_token_id)
        ends = list(named or _listed(self.tokenizer.eos_token_id))
        if not ends:
            raise Refusal("an end-of-turn token must be named by the generation config or the tokenizer, got none")
        return ends

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.policy.tokenizer

    def start(self) -> None:
        """Load the weights, once. Raises `VllmError` where vLLM does not serve the model."""
        if self._llm is not None:
            return
        source = found_source(self.policy.source, self.policy.revision)
        with refusing(f"source must be a model that {self.version} serves, got {source.location!r}", VllmError):
            self._llm = self._vllm.LLM(
                model=source.location,
                revision=source.revision,
                dtype=str(self.policy.dtype).removeprefix("torch."),
                trust_remote_code=False,
                load_format="safetensors",  # else pickled weights are read
                max_model_len=self._room(),
                generation_config="vllm",
                tensor_parallel_size=self.settings.tensor_parallel_size,
                gpu_memory_utilization=self.settings.gpu_memory_utilization,
                enforce_eager=self.settings.enforce_eager,
                **self._for_adapter(),
            )

    def complete(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[Generated]]:
        """As `generate_with_lengths`: every prompt (token ids) completed `sampling.samples` times."""
        self.start()
        with refusing(f"prompts must be ones that {self.version} completes", VllmError):
            replies = self._llm.generate(
                [{"prompt_token_ids": list(prompt)} for prompt in prompts],
                [self._settings(prompt, sampling) for prompt in prompts],
                use_tqdm=False,
                lora_request=self._lora_request(),
            )
        rows = []
        for prompt, reply in zip(prompts, replies, strict=True):
            if list(reply.prompt_token_ids) != list(prompt) or len(reply.outputs) != sampling.samples:
                raise VllmError(f"vllm must complete the {len(prompt)} ids that it is given, got a reply to others")
            outputs = sorted(reply.outputs, key=lambda one: one.index)
            rows.append([decoded(list(one.token_ids), set(self.ends), self.tokenizer) for one in outputs])
        return rows

    def _settings(self, prompt: Sequence[int], sampling: Sampling) -> Any:
        """The `SamplingParams` of a prompt."""
        return self._vllm.SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=0,
            seed=prompt_seed(sampling.seed, prompt) if sampling.temperature > 0 else None,
            max_tokens=sampling.max_new_tokens,
            stop_token_ids=self.ends,
            ignore_eos=True,  # of the tokenizer, which may end other things than turns
            detokenize=False,
        )

    def close(self) -> None:
        """Let the weights go, and the group of processes that vLLM opens even for a single one."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        cleanup_dist_env_and_memory()

    @property
    def _adapter(self) -> Path | None:
        return self.policy.folder if isinstance(self.policy, ExportedAdapter) else None

    def _room(self) -> int:
        """Tokens of the longest row; where the model ends before, completions are cut off there."""
        limit = positions(load_config(self.policy.source, self.policy.revision))
        return self.longest if limit is None else min(self.longest, limit)

    def _for_adapter(self) -> dict[str, Any]:
        if self._adapter is None:
            return {}
        rank = read_config(self._adapter).get("r", 0)
        if rank > RANKS[-1]:
            raise VllmError(f"source must be an adapter of rank {RANKS[-1]} at most for vllm, got {rank}")
        return {"enable_lora": True, "max_lora_rank": next(room for room in RANKS if room >= rank)}

    def _lora_request(self) -> Any:
        if self._adapter is None:
            return None
        from vllm.lora.request import LoRARequest

        return LoRARequest("policy", 1, str(self._adapter.resolve()))


@contextmanager
def serving(settings: Vllm, policy: Policy, longest: int) -> Iterator[VllmModel]:
    """A `VllmModel` that is let go behind the block; the random state of the CPU, which vLLM sets, is left as found."""
    model = VllmModel(settings, policy, longest)
    states = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]):  # of no GPU: asking would begin CUDA before vLLM does
            yield model
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        model.close()


def positions(config: PreTrainedConfig) -> int | None:
    """Tokens that a model's positions reach, None where its config names no end; as vLLM reckons it, which takes no
    longer rows.

    `max_position_embeddings` is the length after scaling with Llama 3's, LongRoPE's and Gemma 3's scaled positions, and
    before it with linear and dynamic ones. YaRN begins from a length of its own: Qwen2.5 states 32,768 both times, with
    factor 4.
    """
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None)
    if not isinstance(limit, int) or text.model_type.startswith("gemma3"):
        return limit if isinstance(limit, int) else None
    rope = getattr(text, "rope_parameters", None) or {}  # transformers reads the older `rope_scaling` into it, too
    factor = 1.0
    for one in [rope] if "rope_type" in rope else rope.values():  # one, or one for each kind of layer
        if isinstance(one, dict) and one["rope_type"] not in ("longrope", "llama3"):
            factor = one.get("factor") or factor
            if one["rope_type"] == "yarn":
                limit = one["original_max_position_embeddings"]
    return int(limit * factor)


def _check_scales(adapter: Path) -> None:
    """Raises `VllmError` where modules have a rank or alpha of their own: vLLM would scale them like the others."""
    config = read_config(adapter)
    for name in ("rank_pattern", "alpha_pattern"):
        if config.get(name):
            raise VllmError(
                f"{adapter / 'adapter_config.json'}: {name} must be empty for vllm, which scales every module by the"
                f" one lora_alpha / r, got {config[name]}; export the policy with --merge, or sample it without vllm"
            )


def _listed(ids: int | Sequence[int] | None) -> tuple[int, ...]:
    return () if ids is None else (ids,) if isinstance(ids, int) else tuple(ids)


def _vllm() -> Any:
    """The module, set to run its engine in this process, so that one that is killed leaves no other behind on the GPU,
    and to tell nobody of its use."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    try:
        import vllm
    except ImportError as error:
        raise VllmError(f"vllm must be installed ({INSTALL}), got {error}") from None
    return vllm
