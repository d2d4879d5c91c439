"""Batched generation against transformers' own, one prompt at a time, and its seeds."""

import hashlib
from itertools import pairwise

import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.models import tiny_llama_model
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconConfig,
    GenerationConfig,
    GPT2Config,
    GPTNeoConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MistralForCausalLM,
    MptConfig,
    OPTConfig,
)

from lightning_bnf.generation.sampling import (
    SEEDS,
    Sampling,
    _batch_seed,
    batches,
    generate_ids,
    generate_with_lengths,
    prompt_seed,
)

pytestmark = pytest.mark.slow

PROMPTS = [[1, 500, 501, 502], [1, 700], [1, 600, 601, 602, 603, 604, 605, 606], [1, 800, 801]]


def alone(model, tokenizer, prompt, limit):
    """What plain `generate` makes of one prompt, without padding: its new tokens."""
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        do_sample=False,
        max_new_tokens=limit,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()


def generate(model, tokenizer, prompts, sampling, stop=None):
    """The completions' texts."""
    rows = generate_with_lengths(model, tokenizer, prompts, sampling, stop=stop)
    return [[found.text for found in row] for row in rows]


@pytest.mark.parametrize("limit", [1, 5, 16, 17, 40])
def test_greedy_equals_transformers_one_by_one(tiny_llama, tokenizer, limit):
    rows = generate_with_lengths(tiny_llama, tokenizer, PROMPTS, Sampling(0.0, limit, batch_size=3))
    ids = generate_ids(tiny_llama, tokenizer, PROMPTS, Sampling(0.0, limit, batch_size=3))
    for prompt, (found,), (own,) in zip(PROMPTS, rows, ids, strict=True):
        tokens = alone(tiny_llama, tokenizer, prompt, limit)
        ended = 2 in tokens
        assert own == (tokens[: tokens.index(2) + 1] if ended else tokens)
        kept = tokens[: tokens.index(2)] if ended else tokens
        assert found.text == tokenizer.decode(kept, skip_special_tokens=True)
        assert (found.length, found.finished) == (len(kept) + ended, ended)


@pytest.mark.parametrize("samples", [1, 3])
def test_a_sliding_window_model_is_read_again_instead(tokenizer, samples):
    """Rows cannot be taken out of its cache: slower, but the same completions. The window is shorter than the text."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = MistralConfig(
        vocab_size=200, num_hidden_layers=2, sliding_window=6, eos_token_id=2, initializer_range=0.3, **sizes
    )
    model = MistralForCausalLM(config).eval()
    prompts = [[token % 190 + 3 for token in prompt] for prompt in PROMPTS]
    sampling = Sampling(1e-6 if samples > 1 else 0.0, 40, samples=samples)
    rows = generate_with_lengths(model, tokenizer, prompts, sampling)
    for prompt, row in zip(prompts, rows, strict=True):
        tokens = alone(model, tokenizer, prompt, 40)
        kept = tokens[: tokens.index(2)] if 2 in tokens else tokens
        assert [one.text for one in row] == [tokenizer.decode(kept, skip_special_tokens=True)] * samples


BEGINNING = [1, *range(30, 41)]
ALIKE = [[*BEGINNING, *rest] for rest in ([50, 51, 52], [60], [70, 71, 72, 73, 74, 75], [80, 81])]
SMALL = {"vocab_size": 200, "eos_token_id": 2, "initializer_range": 0.3}
FAMILIES = {
    "llama": (LlamaConfig, {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}, True),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 4}, True),
    "gpt_neox": (GPTNeoXConfig, {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}, True),
    "falcon": (FalconConfig, {"hidden_size": 32, "num_hidden_layers": 2, "alibi": False}, True),
    "opt": (OPTConfig, {"hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "word_embed_proj_dim": 32}, True),
    "gpt_neo": (
        GPTNeoConfig,
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["local"], 2]], "window_size": 14},
        True,
    ),
    "bloom": (BloomConfig, {"hidden_size": 32, "n_layer": 2, "n_head": 4}, False),
    "mpt": (MptConfig, {"d_model": 32, "n_layers": 2, "n_heads": 4}, False),
}


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_what_prompts_begin_with_is_read_once(family, samples, tokenizer):
    """By one call for all of them, where a model is told positions; completions are those of each prompt alone."""
    config, sizes, shares = FAMILIES[family]
    heads = {} if {"n_heads", "n_head", "num_heads"} & set(sizes) else {"num_attention_heads": 4}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config(**SMALL, **sizes, **heads)).eval()
    calls: list[tuple[int, ...]] = []
    model.register_forward_pre_hook(lambda _, args, given: calls.append(given["input_ids"].shape), with_kwargs=True)
    found = generate_ids(model, tokenizer, ALIKE, Sampling(1e-6 if samples > 1 else 0.0, 20, samples=samples))
    assert (calls[0] == (1, len(BEGINNING) + 1), calls[1][1] < 8) == (shares, True)
    for prompt, row in zip(ALIKE, found, strict=True):
        assert row == [_ended(alone(model, tokenizer, prompt, 20))] * samples


def test_a_beginning_is_shared_where_it_pays(tiny_llama, tokenizer):
    """Not of one prompt, nor of few tokens; of a prompt that another begins with, all but its last token; and of
    prompts that differ in length by more than they share."""
    calls: list[tuple[int, ...]] = []
    hook = tiny_llama.register_forward_pre_hook(
        lambda _, args, given: calls.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    nested, uneven = [BEGINNING, [*BEGINNING, 50, 51]], [[*BEGINNING, 50], [*BEGINNING, *range(60, 80)]]
    for prompts, first in (([BEGINNING], (1, 12)), (PROMPTS, (4, 8)), (nested, (1, 12)), (uneven, (1, 13))):
        calls.clear()
        rows = generate_ids(tiny_llama, tokenizer, prompts, Sampling(0.0, 6))
        assert calls[0] == first
        assert [row[0] for row in rows] == [_ended(alone(tiny_llama, tokenizer, one, 6)) for one in prompts]
    hook.remove()


def _ended(tokens):
    return tokens[: tokens.index(2) + 1] if 2 in tokens else tokens


def test_a_peft_model_generates_with_its_adapter(tokenizer):
    model = get_peft_model(
        tiny_llama_model(len(tokenizer)), LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    sampling = Sampling(1.0, 20, samples=2, seed=1)
    adapted = generate(model.train(), tokenizer, PROMPTS, sampling)
    assert model.training
    with model.disable_adapter():
        plain = generate(model, tokenizer, PROMPTS, sampling)
    assert plain == generate(tiny_llama_model(len(tokenizer)), tokenizer, PROMPTS, sampling)
    assert adapted == generate(model.merge_and_unload(), tokenizer, PROMPTS, sampling)
    assert adapted != plain


def test_samples_at_nearly_zero_temperature_are_greedy(tiny_llama, tokenizer):
    """Samples share one reading of the prompt; the distribution must be the prompt's own."""
    greedy = generate(tiny_llama, tokenizer, PROMPTS, Sampling(0.0, 20))
    cold = generate(tiny_llama, tokenizer, PROMPTS, Sampling(1e-6, 20, samples=3))
    assert cold == [texts * 3 for texts in greedy]


def test_sampled_frequencies_follow_the_distribution(tiny_llama, tokenizer):
    """First tokens of 1,000 samples against softmax(logits / 0.5): nothing cut (top-k, top-p), nothing sharpened twice.

    The 60 likeliest of the 49,152 tokens are compared as one group: beyond the default top-k of 50.
    """
    prompt, temperature = PROMPTS[0], 0.5
    with torch.no_grad():
        logits = tiny_llama(torch.tensor([prompt])).logits[0, -1].double()
    probabilities = torch.softmax(logits / temperature, dim=0)
    likeliest = set(probabilities.topk(60).indices.tolist())
    rows = generate_with_lengths(
        tiny_llama, tokenizer, [prompt] * 10, Sampling(temperature, 1, samples=100, batch_size=1000)
    )
    texts = {tokenizer.decode([token], skip_special_tokens=True) for token in likeliest}
    share = sum(one.text in texts for row in rows for one in row) / 1000
    expected = float(probabilities[list(likeliest)].sum())
    assert abs(share - expected) < 4 * (expected * (1 - expected) / 1000) ** 0.5 + 1e-3
    assert expected < 0.9  # else the test would not see a top-k of 50


def test_a_seed_gives_the_same_samples_and_another_seed_others(tiny_llama, tokenizer):
    first = generate(tiny_llama, tokenizer, PROMPTS, Sampling(1.0, 8, samples=2, seed=3))
    assert first == generate(tiny_llama, tokenizer, PROMPTS, Sampling(1.0, 8, samples=2, seed=3))
    assert first != generate(tiny_llama, tokenizer, PROMPTS, Sampling(1.0, 8, samples=2, seed=4))
    assert first[0][0] != first[0][1]


def test_a_batch_gives_the_same_alone_and_in_any_order(tiny_llama, tokenizer):
    sampling = Sampling(1.0, 8, samples=2, seed=3, batch_size=4)
    whole = generate(tiny_llama, tokenizer, PROMPTS, sampling)
    assert generate(tiny_llama, tokenizer, PROMPTS[::-1], sampling) == whole[::-1]
    for batch in batches(PROMPTS, sampling):
        alone_texts = generate(tiny_llama, tokenizer, [PROMPTS[index] for index in batch], sampling)
        assert alone_texts == [whole[index] for index in batch]


def test_batches_hold_every_prompt_once_by_length():
    assert batches(PROMPTS, Sampling(0.8, 4, samples=2, batch_size=4)) == [[1, 3], [0, 2]]
    assert batches(PROMPTS, Sampling(0.8, 4, samples=5, batch_size=4)) == [[1], [3], [0], [2]]  # never an empty batch


def test_random_state_and_training_mode_are_left_as_found(tiny_llama, tokenizer):
    tiny_llama.train()
    tiny_llama.model.norm.eval()
    state = torch.random.get_rng_state()
    try:
        generate(tiny_llama, tokenizer, PROMPTS, Sampling(1.0, 4))
        assert tiny_llama.training
        assert not tiny_llama.model.norm.training
        assert torch.equal(state, torch.random.get_rng_state())
    finally:
        tiny_llama.eval()


OWN_SETTINGS = {
    "temperature": 0.1,
    "top_k": 1,
    "min_p": 0.9,
    "typical_p": 0.1,
    "epsilon_cutoff": 0.5,
    "repetition_penalty": 1.7,
    "no_repeat_ngram_size": 1,
    "bad_words_ids": [[token] for token in range(3, 30)],
    "sequence_bias": [[[token], -9.0] for token in range(3, 30)],
    "suppress_tokens": list(range(3, 30)),
    "begin_suppress_tokens": list(range(3, 30)),
    "min_length": 20,
    "min_new_tokens": 20,
    "forced_eos_token_id": 35,
    "exponential_decay_length_penalty": [1, 5.0],
    "guidance_scale": 3.0,
    "watermarking_config": {"bias": 9.0},
    "stop_strings": ["a"],
    "num_return_sequences": 2,
    "cache_implementation": "static",
}
SHORT = [[1, 5, 6, 7], [1, 8], [1, 9, 10, 11, 12, 13]]
BOTH = Sampling(0.0, 20), Sampling(1.0, 20, samples=2, seed=1)


@pytest.mark.parametrize("setting", OWN_SETTINGS)
def test_a_models_own_generation_settings_are_not_inherited(tokenizer, setting):
    """Each alone; greedy and sampled."""
    model = tiny_llama_model(40)
    plain = [generate_ids(model, tokenizer, SHORT, sampling) for sampling in BOTH]
    model.generation_config = GenerationConfig(eos_token_id=2, do_sample=True, **{setting: OWN_SETTINGS[setting]})
    assert [generate_ids(model, tokenizer, SHORT, sampling) for sampling in BOTH] == plain


@pytest.mark.parametrize("holder", ["base", "adapter"])
def test_a_peft_models_generation_settings_are_not_inherited_and_stay(tokenizer, holder):
    """Its base's, or its own, which `generate` hands to the base for good."""
    base = tiny_llama_model(40)
    model = get_peft_model(base, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    plain = [generate_ids(model, tokenizer, SHORT, sampling) for sampling in BOTH]
    before, own = base.generation_config, GenerationConfig(eos_token_id=2, do_sample=True, **OWN_SETTINGS)
    stated = own.to_dict()
    (base if holder == "base" else model).generation_config = own
    assert [generate_ids(model, tokenizer, SHORT, sampling) for sampling in BOTH] == plain
    assert model.generation_config is own
    assert base.generation_config is (own if holder == "base" else before)
    assert own.to_dict() == stated


def test_the_models_own_generation_settings_are_back_after_an_error(tokenizer):
    model = tiny_llama_model(len(tokenizer))
    own = model.generation_config
    with pytest.raises(ZeroDivisionError):
        generate(model, tokenizer, PROMPTS, Sampling(0.0, 4), stop=lambda: 1 // 0)
    assert model.generation_config is own


def test_a_completion_is_cut_at_any_end_of_turn_token(tiny_llama, tokenizer):
    """The generation config may name several; here the third token that greedy decoding would give."""
    tokens = alone(tiny_llama, tokenizer, PROMPTS[0], 6)
    stop = tokens[2]
    before = tiny_llama.generation_config.eos_token_id
    tiny_llama.generation_config.eos_token_id = [2, stop]
    try:
        ((found,),) = generate_with_lengths(tiny_llama, tokenizer, PROMPTS[:1], Sampling(0.0, 6))
    finally:
        tiny_llama.generation_config.eos_token_id = before
    first = tokens.index(stop)
    assert (found.length, found.finished) == (first + 1, True)
    assert found.text == tokenizer.decode(tokens[:first])


@pytest.mark.parametrize("at", [1, 3, 16, 18])
def test_stop_ends_completions_where_they_are(tiny_llama, tokenizer, at):
    """Asked after every token: after as many as it let pass, also over the 16 tokens between two looks at the rows."""
    asked = []
    whole = generate_ids(tiny_llama, tokenizer, PROMPTS[:1], Sampling(0.0, 20))[0][0]
    assert len(whole) == 20
    ((found,),) = generate_ids(
        tiny_llama, tokenizer, PROMPTS[:1], Sampling(0.0, 20), stop=lambda: asked.append(1) or len(asked) >= at
    )
    assert found == whole[:at]
    assert len(asked) == at


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1.0}, "temperature must be >= 0, got -1.0"),
        ({"temperature": float("nan")}, "temperature must be a finite number >= 0, got nan"),
        ({"max_new_tokens": 0}, "max_new_tokens must be >= 1, got 0"),
        ({"samples": 0}, "samples must be >= 1, got 0"),
        ({"batch_size": 0}, "batch_size must be >= 1, got 0"),
        ({"temperature": 0.0, "samples": 2}, "samples must be 1 at temperature 0, .* got 2"),
    ],
)
def test_sampling_refuses_what_it_cannot_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)


def test_an_empty_prompt_is_refused_and_no_prompts_are_fine(tiny_llama, tokenizer):
    with pytest.raises(ValueError, match=r"prompts\[1\] must be one token or more, got none"):
        generate(tiny_llama, tokenizer, [[1], []], Sampling())
    assert generate(tiny_llama, tokenizer, [], Sampling()) == []


def test_a_batchs_seed_stays_what_it_was():
    """Of every release, so that samples can be made again: 8 bytes of the JSON's SHA-256, signed."""
    content = "[3,[[1,500],[2]]]"
    expected = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big", signed=True)
    assert _batch_seed([[1, 500], [2]], Sampling(seed=3)) == expected


def test_every_prompt_and_seed_has_a_seed_of_its_own_with_room_for_its_samples():
    """Of every release: 8 bytes of the JSON's SHA-256. Of 2,000 prompts and five seeds none shares one of its 64."""
    content = '["seed of a prompt",3,[1,500]]'
    number = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    assert prompt_seed(3, [1, 500]) == prompt_seed(3, (1, 500)) == number % SEEDS
    for prompt in ([i, 7] for i in range(2000)):
        own = sorted(prompt_seed(seed, prompt) for seed in (1, 2, 3, -1, 2**40))
        assert all(later - earlier >= 64 for earlier, later in pairwise(own))
        assert own[0] >= 0
        assert own[-1] + 2**16 <= 2**31
    assert len({prompt_seed(1, [i, 7]) for i in range(2000)}) == 2000
