"""Greedy answers within a run, of adapters under autocast, against transformers' own `generate` in the same batches.

`cpu_seconds` as in `choices`. `tokens` are those answered: in bfloat16 another order of additions can make another
token the likeliest, so they may differ a little, but not between the two of ours, which multiply the same numbers.
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from lightning_bnf.costs.bench.data import WORDS
from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Sampling, batches, generate_ids
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.policies.casts import KeptCasts

MAX_NEW_TOKENS = 32
Ids = list[list[int]]


def prompts(renderer: Renderer, count: int) -> Ids:
    """Questions of 5 to 25 random words, in the model's template with its system prompt where it has them."""
    generator = random.Random(1)
    asked = [" ".join(generator.choices(WORDS, k=generator.randint(5, 25))) for _ in range(count)]
    return [renderer.prompt_ids(text) for text in asked]


def plain(policy: LoRAPolicy, asked: Ids, sampling: Sampling) -> Ids:
    """transformers' `generate`, a batch at a time."""
    model: Any = policy.loaded
    tokenizer, found = policy.tokenizer, dict[int, list[int]]()
    ends = {*policy.end_ids, tokenizer.eos_token_id}
    for batch in batches(asked, sampling):
        padded = tokenizer.pad({"input_ids": [asked[i] for i in batch]}, padding_side="left", return_tensors="pt")
        given = {name: ids.to(policy.causal_lm.device) for name, ids in padded.items()}
        with torch.no_grad():
            out = model.generate(**given, max_new_tokens=sampling.max_new_tokens, do_sample=False)
        for i, row in zip(batch, out[:, given["input_ids"].shape[1] :].tolist()):
            length = next((place for place, token in enumerate(row, 1) if token in ends), len(row))
            found[i] = row[:length]
    return [found[i] for i in range(len(asked))]


def ours(policy: LoRAPolicy, asked: Ids, sampling: Sampling) -> Ids:
    """As a run's callbacks and verbs have it."""
    return [samples[0] for samples in generate_ids(policy.loaded, policy.tokenizer, asked, sampling)]


ANSWERS: dict[str, Callable[[LoRAPolicy, Ids, Sampling], Ids]] = {"plain": plain, "ours": ours}


@contextlib.contextmanager
def _kept(policy: LoRAPolicy, keep: bool) -> Iterator[None]:
    casts = KeptCasts(policy.base_modules if keep else ())
    try:
        yield
    finally:
        casts.release()


def contest(turns: Turns, source: str, how: str, keep: bool, count: int, together: int) -> None:
    """A turn answers `count` prompts, `together` in a batch; how: of `ANSWERS`; keep: the casts of frozen weights."""
    policy = LoRAPolicy(source, dtype="float32")
    policy.load()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    policy.to(device)
    policy.eval()
    asked = prompts(Renderer(policy.tokenizer, end_ids=policy.end_ids), count)
    sampling = Sampling(0.0, MAX_NEW_TOKENS, batch_size=together)
    with _kept(policy, keep), torch.autocast(device, torch.bfloat16):
        while True:
            turns.wait()
            began = time.process_time()
            found = ANSWERS[how](policy, asked, sampling)
            turns.done(cpu_seconds=time.process_time() - began, tokens=sum(map(len, found)))


def variants(source: str) -> list[list[Variant]]:
    """transformers beside ours, without and with casts that are kept, as they are in a run with adapters everywhere."""
    contests = {
        "transformers' generate": ("plain", False),
        "ours": ("ours", False),
        "ours, casts kept": ("ours", True),
    }
    return [
        [
            Variant(
                "answers",
                f"{count} answers, {together} together, bf16 autocast, LoRA",
                name,
                contest,
                {"source": source, "how": how, "keep": keep, "count": count, "together": together},
            )
            for name, (how, keep) in contests.items()
        ]
        for count, together in ((4, 1), (16, 8), (64, 64))
    ]
