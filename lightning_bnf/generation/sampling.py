"""Batched, seeded generation on transformers' own `generate`.

Prompts of similar length share a batch (left padding, explicit attention mask, end-of-turn tokens from the model's
generation config; `pad == eos` is normal and harmless, because completions are cut at the first end-of-turn token and
never masked by id). Nothing else of that config takes part: completions are drawn as `Sampling` says. Two things make
it fast on a CPU, both without changing what is sampled from: a prompt is read once for all its samples, and every few
tokens the finished rows leave the batch.

A batch's random numbers depend on the seed and on the prompts in that batch alone: run it again, alone or after other
batches, and the same completions come out (on the same machine with the same number of threads; other machines round
differently, and one different token makes a different completion).
"""

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase, StoppingCriteria, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer

from lightning_bnf.runtime.arguments import AboveZeroToOne, NonNegativeFloat, PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal

_WORTH_SHARING = 8  # tokens that are read in a call of their own
SEEDS = 2**31 - 2**16
"""How many seeds prompts are given: with a sample's number added one still fits 31 bits, which every server takes."""
_STRIDE = 16  # tokens between two looks at which rows have finished; each look costs a copy of the cache


@checked
@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Args:
        temperature: softmax temperature; 0 is greedy. No top-k: the model's own distribution.
        max_new_tokens: tokens after which a completion is cut off (`Generated.finished` is then false).
        samples: completions per prompt; greedy decoding gives one only.
        seed: any integer; the same seed and prompts give the same completions.
        batch_size: completions generated together, prompts times samples.
        top_p: share of the probability that is sampled from, the likeliest tokens first; 1: all of it.
    """

    temperature: NonNegativeFloat = 0.8
    max_new_tokens: PositiveInt = 128
    samples: PositiveInt = 1
    seed: int = 0
    batch_size: PositiveInt = 128
    top_p: AboveZeroToOne = 1.0

    def __post_init__(self) -> None:
        if self.temperature == 0 and self.samples > 1:
            raise Refusal(f"samples must be 1 at temperature 0, where all completions are the same, got {self.samples}")


@dataclass(frozen=True)
class Generated:
    """One completion: its text without special tokens, its tokens (end of turn included), and whether it ended."""

    text: str
    length: int
    finished: bool


def prompt_seed(seed: int, prompt: Sequence[Any]) -> int:
    """The seed of a prompt's first sample, in [0, SEEDS); sample k of it has this seed plus k.

    vLLM and llama.cpp seed a generator for each request, and count the seed up for its `n` completions; vLLM lets noise
    of that generator race over the vocabulary. Prompts that shared a seed would meet the same noise at each position,
    and like prompts would get like completions. So it is a hash of the seed and of the prompt (token ids or messages),
    whatever else is sampled; those of neighbouring seeds lie far apart.
    """
    return int(content_hash(["seed of a prompt", seed, list(prompt)]), 16) % SEEDS


Complete = Callable[[list[list[int]], Sampling], list[list[Generated]]]
"""What completes prompts of token ids, each `Sampling.samples` times, in their order."""


def generate_with_lengths(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    progress: str | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[list[Generated]]:
    """Complete every prompt (token ids), `sampling.samples` times each, in the prompts' order.

    `model` is a transformers or peft causal LM; its training mode and the global random state are left as found.
    With `progress`, a bar of that name shows the completions done and the time left. `stop` is asked after every token;
    once it says yes the completions end where they are, not `finished`.
    """
    rows = generate_ids(model, tokenizer, prompts, sampling, progress, stop)
    ends = set(_generation_config(model, tokenizer, sampling).eos_token_id)
    return [[decoded(ids, ends, tokenizer) for ids in row] for row in rows]


def generate_ids(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    progress: str | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[list[list[int]]]:
    """The completions' token ids, the end of turn included where they came to one; see `generate_with_lengths`."""
    if any(len(prompt) == 0 for prompt in prompts):
        raise Refusal(f"prompts[{[len(prompt) for prompt in prompts].index(0)}] must be one token or more, got none")
    results: list[list[list[int]]] = [[] for _ in prompts]
    bar = Progress(len(prompts) * sampling.samples, progress, "completion")
    config = _generation_config(model, tokenizer, sampling)
    with _inference(model), _own_settings_aside(model), bar:
        for batch in batches(prompts, sampling):
            completions = _complete_batch(model, config, [list(prompts[index]) for index in batch], sampling, stop)
            for index, row in zip(batch, completions, strict=True):
                results[index] = row
            bar.update(len(batch) * sampling.samples)
    return results


def batches(prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[list[int]]:
    """The prompts' indices, cut into batches of similar length; a function of the prompts alone, not of their order."""
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), list(prompts[index])))
    size = max(1, sampling.batch_size // sampling.samples)
    return [order[start : start + size] for start in range(0, len(order), size)]


class _Stopped(StoppingCriteria):
    """Ends all rows when `stop` says so."""

    def __init__(self, stop: Callable[[], bool]):
        self.stop, self.stopped = stop, False

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.stopped = self.stopped or self.stop()
        return torch.full((len(input_ids),), self.stopped, device=input_ids.device)


def _complete_batch(
    model: Any,
    config: GenerationConfig,
    prompts: list[list[int]],
    sampling: Sampling,
    stop: Callable[[], bool] | None,
) -> list[list[list[int]]]:
    device = next(model.parameters()).device
    cache = _read_beginning(model, prompts, config, device)
    input_ids, attention_mask = _left_padded(prompts, config.pad_token_id, device)
    ends = torch.tensor(config.eos_token_id, device=device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(_batch_seed(prompts, sampling))
        stopped = None if stop is None else _Stopped(stop)
        tokens = _sample(model, input_ids, attention_mask, config, ends, sampling.samples, stopped, cache)
    found = [_until_end(row, set(config.eos_token_id)) for row in tokens]
    return [found[start : start + sampling.samples] for start in range(0, len(found), sampling.samples)]


def _sample(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    config: GenerationConfig,
    ends: Tensor,
    samples: int,
    stopped: _Stopped | None,
    cache: DynamicCache | None,
) -> list[list[int]]:
    """New tokens of `samples` completions per prompt, a prompt's completions next to each other. `cache`: of the first
    tokens of all prompts, where it was read already."""
    if samples > 1:
        cache = _read_once(model, input_ids, attention_mask, config, cache)
        if cache is not None:
            cache.batch_repeat_interleave(samples)
        input_ids = input_ids.repeat_interleave(samples, dim=0)
        attention_mask = attention_mask.repeat_interleave(samples, dim=0)
    prompt_length, limit = input_ids.shape[1], int(config.max_new_tokens or 0)
    done: list[list[int]] = [[] for _ in range(len(input_ids))]
    alive = torch.arange(len(input_ids), device=input_ids.device)
    while True:
        out = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=_limited(config, min(_STRIDE, limit - (input_ids.shape[1] - prompt_length))),
            past_key_values=cache,
            stopping_criteria=None if stopped is None else StoppingCriteriaList([stopped]),
        )
        input_ids, cache = out.sequences, out.past_key_values
        new = input_ids[:, prompt_length:]
        going_on = ~torch.isin(new, ends).any(dim=1)
        for index, tokens in zip(alive.tolist(), new.tolist(), strict=True):
            done[index] = tokens
        if new.shape[1] >= limit or not going_on.any() or (stopped is not None and stopped.stopped):
            return done
        attention_mask = torch.nn.functional.pad(
            attention_mask, (0, input_ids.shape[1] - attention_mask.shape[1]), value=1
        )
        if not going_on.all():
            alive, input_ids, attention_mask = alive[going_on], input_ids[going_on], attention_mask[going_on]
            if _is_plain(cache):
                cache.batch_select_indices(going_on.nonzero().squeeze(1))
            else:
                cache = None  # a kind of cache that rows cannot be taken out of: read again


def _read_beginning(
    model: Any, prompts: list[list[int]], config: GenerationConfig, device: torch.device
) -> DynamicCache | None:
    """The cache of the left-padded prompts' first columns, as many as all prompts begin with (a template's system
    prompt), which is read once; None where it does not pay, and for models with another kind of cache.

    A row's padding comes before its beginning, as without a cache: of a shorter prompt the columns hold padding and the
    beginning's first tokens, and its last ones are read with the rest.
    """
    shortest = min(len(prompt) for prompt in prompts) - 1  # the last token gives the first new one
    differ = (i for i, column in enumerate(zip(*prompts)) if len(set(column)) > 1)
    shared = min(next(differ, shortest), shortest)
    if len(prompts) == 1 or shared < _WORTH_SHARING or not _counts_positions(model) or not _starts_plain(model):
        return None
    greedy = copy.deepcopy(config)
    greedy.do_sample, greedy.temperature, greedy.top_k, greedy.top_p = False, None, None, None  # it draws no noise
    ids = torch.tensor([prompts[0][: shared + 1]], device=device)
    cache = _read_once(model, ids, torch.ones_like(ids), greedy)
    if cache is None:
        return None
    width = max(len(prompt) for prompt in prompts)
    padding = torch.tensor([[width - len(prompt)] for prompt in prompts], device=device)
    token = (torch.arange(shared, device=device) - padding).clamp(min=0)  # of padding any, which the mask hides
    for layer in cache.layers:
        assert isinstance(layer, DynamicLayer)
        assert layer.keys is not None
        assert layer.values is not None
        place = token.to(layer.keys.device)  # layers may lie on several devices
        layer.keys, layer.values = (one[0][:, place].transpose(0, 1) for one in (layer.keys, layer.values))
    return cache


def _counts_positions(model: Any) -> bool:
    """Whether the model is told each token's position, which is then the mask's: keys do not depend on padding."""
    causal_lm = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "position_ids" in inspect.signature(causal_lm.forward).parameters


def _read_once(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    config: GenerationConfig,
    cache: DynamicCache | None = None,
) -> DynamicCache | None:
    """The cache of all prompt tokens but the last, one row per prompt, from that of their first tokens on; None for
    models with another kind of cache."""
    out = model.generate(
        input_ids=input_ids,
        attention_mask=attention_mask,
        generation_config=_limited(config, 1),
        past_key_values=cache,
    )
    cache = out.past_key_values
    if not _is_plain(cache):
        return None
    cache.crop(-1)
    return cache


def _starts_plain(model: Any) -> bool:
    """Whether the cache that the model's config asks for can be cut into rows."""
    return _is_plain(DynamicCache(config=model.config.get_text_config(decoder=True)))


def _is_plain(cache: Any) -> bool:
    return isinstance(cache, DynamicCache) and all(type(layer) is DynamicLayer for layer in cache.layers)


def _generation_config(model: Any, tokenizer: PreTrainedTokenizerBase, sampling: Sampling) -> GenerationConfig:
    """What `sampling` asks for, and the tokens that end a completion, of the model's own config or the tokenizer."""
    ends = model.generation_config.eos_token_id
    if ends is None:
        ends = tokenizer.eos_token_id
    ends = [ends] if isinstance(ends, int) else list(ends or [])
    if not ends:
        raise Refusal("an end-of-turn token must be named by the model's generation config or the tokenizer, got none")
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else ends[0]
    shape: dict[str, Any] = {"do_sample": False}
    if sampling.temperature > 0:
        shape = {"do_sample": True, "temperature": sampling.temperature, "top_k": 0, "top_p": sampling.top_p}
    return GenerationConfig(
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=ends,
        pad_token_id=pad,
        repetition_penalty=1.0,
        num_beams=1,
        use_cache=True,
        return_dict_in_generate=True,
        **shape,
    )


def _limited(config: GenerationConfig, max_new_tokens: int) -> GenerationConfig:
    limited = copy.deepcopy(config)
    limited.max_new_tokens = max_new_tokens
    return limited


def _left_padded(prompts: list[list[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Ids and mask, each (prompts, longest); the mask comes from the lengths, since `pad` may be the end-of-turn id."""
    width = max(len(prompt) for prompt in prompts)
    ids = [[pad] * (width - len(prompt)) + prompt for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def _until_end(tokens: list[int], ends: set[int]) -> list[int]:
    stop = next((position for position, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: stop + 1]


def decoded(ids: list[int], ends: set[int], tokenizer: PreTrainedTokenizerBase) -> Generated:
    """A completion of its token ids, of which the last is one of `ends` where it came to its end."""
    finished = bool(ids) and ids[-1] in ends
    text = str(tokenizer.decode(ids[:-1] if finished else ids, skip_special_tokens=True))
    return Generated(text, len(ids), finished)


def _batch_seed(prompts: list[list[int]], sampling: Sampling) -> int:
    return int.from_bytes(bytes.fromhex(content_hash([sampling.seed, prompts])), "big", signed=True)


@contextmanager
def _inference(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module is in the mode it was found in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


@contextmanager
def _own_settings_aside(model: Any) -> Iterator[None]:
    """Meanwhile the model's own generation config is blank, and afterwards the one that was found: `generate` takes
    whatever a call leaves open from it, such as `min_p`, `suppress_tokens` or `min_new_tokens`.

    Every module's is, because a peft model that has one hands it to the model within at each call.
    """
    found = ((module, vars(module).get("generation_config")) for module in model.modules())
    held = [(module, config) for module, config in found if config is not None]
    try:
        for module, _ in held:
            module.generation_config = GenerationConfig()
        yield
    finally:
        for module, config in held:
            module.generation_config = config
