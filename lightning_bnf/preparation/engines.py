"""Where samples are drawn: by transformers or vLLM in this process, or by servers, of the same prompts' token ids."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.messages import Messages
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.requests import ServerPool
from lightning_bnf.generation.sampling import Complete, Generated, Sampling, generate_with_lengths, prompt_seed
from lightning_bnf.generation.server import Reply, Server, ServerError, ask, complete, why_no_ids
from lightning_bnf.generation.vllm_engine import Vllm, serving
from lightning_bnf.policies.base import Dtype, Policy
from lightning_bnf.policies.exported import Exported, exported
from lightning_bnf.policies.sources import load_model, placed
from lightning_bnf.preparation.sample import Job, longest_of, sample_jobs, sampling_key
from lightning_bnf.runtime.arguments import AboveZeroToOne, NonNegativeFloat, checked
from lightning_bnf.runtime.fingerprints import content_hash, tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.progress import Progress, say
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.workers import at_once


@checked
@dataclass(frozen=True)
class Engine:
    """What draws the samples, and how.

    Args:
        server: OpenAI-compatible server that has the model; null: the model is run in this process. Prompts go as token
            ids where the server completes them, else as messages; the server's counts of prompt tokens must be ours
            either way. Stored samples are kept by the server's `model` name: give each model its own.
        vllm: vLLM, in this process, instead of transformers; `{}` takes its defaults.
        more_urls: addresses of further servers of the same model, which share the requests.
        patience: seconds for which a server that has answered before is looked for again when it is away.
        top_p: share of the probability that is sampled from, the likeliest tokens first; 1: all of it.
        seeds: each draws `samples` completions of every prompt; null: `seed` alone.
        cut_off: what happens to completions that were cut off at the token limit: `drop`, or `keep` (as if they had
            ended there).
    """

    server: Server | None = None
    vllm: Vllm | None = None
    more_urls: tuple[str, ...] = ()
    patience: NonNegativeFloat = 600.0
    top_p: AboveZeroToOne = 1.0
    seeds: tuple[int, ...] = ()
    cut_off: Literal["drop", "keep"] = "drop"

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < len(self.seeds):
            raise Refusal(f"seeds must be different ones, got {', '.join(map(str, self.seeds))}")
        if self.vllm is not None and self.server is not None:
            raise Refusal(f"vllm must be null with a server, which has the model itself, got {self.vllm}")
        if self.more_urls and self.server is None:
            raise Refusal(f"more_urls must be left out without a server, got {', '.join(self.more_urls)}")
        self.servers()

    def servers(self) -> list[Server]:
        """The servers that share the requests."""
        if self.server is None:
            return []
        return [self.server, *(replace(self.server, base_url=url) for url in self.more_urls)]


@dataclass(frozen=True)
class Sampled:
    """The model that is sampled: where it is read from, its revision, and the type of its weights."""

    source: str
    revision: str | None
    dtype: Dtype

    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Its tokenizer; an exported adapter's own."""
        return self._policy().tokenizer

    @contextmanager
    def running(self, vllm: Vllm | None, longest: int) -> Iterator["Runner"]:
        """The model in this process, on a GPU where there is one. An adapter is on its base, not merged.

        longest: tokens of a prompt with its completion, at most.
        """
        if vllm is not None:
            with serving(vllm, self._policy(), longest) as served:
                yield Runner(served.complete, served.identity, served.start)
            return
        if self.is_adapter:
            policy = self._policy()
            policy.load()
            model = placed(policy.loaded)
        else:
            model = placed(load_model(self.source, getattr(torch, self.dtype), self.revision))
        tokenizer = self.tokenizer()
        complete = partial(generate_with_lengths, model, tokenizer)
        yield Runner(complete, weights_fingerprint(model), None)

    @property
    def is_adapter(self) -> bool:
        """Whether the source is an exported adapter's folder."""
        return (Path(self.source).expanduser() / "adapter_config.json").is_file()

    def _policy(self) -> Policy:
        if self.is_adapter:
            return exported(self.source, self.dtype)
        return Exported(self.source, self.revision, self.dtype)


class Runner(NamedTuple):
    """What completes prompts; 16 hex digits that tell it from others; what it begins with, if that takes a while."""

    complete: Complete
    identity: str
    start: Callable[[], None] | None


def draw(
    engine: Engine,
    model: Sampled,
    renderer: Renderer,
    prompts: Sequence[Messages],
    sampling: Sampling,
    work_file: Path,
) -> list[list[Generated]]:
    """The samples of every prompt, those of all seeds behind each other; what `work_file` has is not drawn again."""
    ids = [renderer.prompt_ids(prompt) for prompt in prompts]
    sampling = replace(sampling, top_p=engine.top_p)
    jobs = [
        Job(f"samples, seed {seed}" if engine.seeds else "samples", ids, replace(sampling, seed=seed))
        for seed in engine.seeds or (sampling.seed,)
    ]
    if engine.server is None:
        with model.running(engine.vllm, longest_of(jobs)) as (complete, identity, start):
            found = sample_jobs(jobs, complete, identity, work_file, start)
    else:
        found = [_by_servers(job, engine, engine.server, model, renderer, prompts, work_file) for job in jobs]
    rows = [[one for row in rows for one in row] for rows in zip(*found, strict=True)]
    if engine.cut_off == "keep":
        return [[replace(one, finished=True) for one in row] for row in rows]
    return rows


@dataclass(frozen=True)
class _Request:
    """One request: of which prompt, for how many completions, with which seed, and its key in the work file."""

    prompt: int
    samples: int
    seed: int
    key: str


def _by_servers(
    job: Job,
    engine: Engine,
    server: Server,
    model: Sampled,
    renderer: Renderer,
    prompts: Sequence[Messages],
    work_file: Path,
) -> list[list[Generated]]:
    """As `sample_jobs`, each request a line of the work file: of all samples of a prompt where the server takes ids, of
    one sample where it takes messages, as servers that take no ids may not count `n` either."""
    server.key()  # refused before the first request
    store, tokenizer = JsonlStore(work_file), renderer.tokenizer
    identity = [server.model, model.source, model.revision, tokenizer_fingerprints(tokenizer)]
    about = [identity, sampling_key(job.sampling)]
    firsts = [prompt_seed(job.sampling.seed, ids) for ids in job.prompts]
    together = [
        _Request(i, job.sampling.samples, first, content_hash([*about, ids, {"first seed": first}]))
        for i, (ids, first) in enumerate(zip(job.prompts, firsts, strict=True))
    ]
    apart = [
        _Request(one.prompt, 1, one.seed + k, content_hash([*about, job.prompts[one.prompt], {"seed": one.seed + k}]))
        for one in together
        for k in range(one.samples)
    ]
    by_ids = all(one.key not in store for one in apart) and _takes_ids(server, job.prompts, together, store)
    requests = together if by_ids else apart
    missing = [i for i, one in enumerate(requests) if one.key not in store]

    def made(index: int, asked: Server) -> list[Generated]:
        one, drawn = requests[index], job.sampling
        settings = (drawn.temperature, drawn.max_new_tokens, one.seed)
        ids = job.prompts[one.prompt]
        if by_ids:
            return [_generated(reply, tokenizer) for reply in complete(asked, ids, one.samples, *settings, drawn.top_p)]
        reply = ask(asked, prompts[one.prompt], *settings, top_p=drawn.top_p)
        if reply.prompt_tokens != len(ids):
            raise ServerError(
                f"{asked.base_url} must be a server with training's chat template, which gives a prompt {len(ids)}"
                f" tokens, got {reply.prompt_tokens}"
            )
        return [_generated(reply, tokenizer)]

    def keep(index: int, completions: list[Generated]) -> None:
        store.add({requests[index].key: {"job": job.name, "completions": [asdict(one) for one in completions]}})

    pool = ServerPool(engine.servers(), engine.patience)
    with Progress(len(requests), job.name, "request", initial=len(requests) - len(missing)) as bar:
        at_once(lambda index: pool.run(partial(made, index)), missing, pool.workers, bar, keep)
    rows: list[list[Generated]] = [[] for _ in job.prompts]
    for one in requests:
        rows[one.prompt] += [Generated(**fields) for fields in _completions(store[one.key])]
    return rows


def _completions(line: dict[str, Any]) -> list[dict[str, Any]]:
    return list(line["completions"])


def _takes_ids(server: Server, prompts: Sequence[list[int]], together: Sequence[_Request], store: JsonlStore) -> bool:
    """Whether prompts go as ids: as they went before, else as the server takes them."""
    if any(one.key in store for one in together) or not prompts:
        return True
    why = why_no_ids(server, prompts[0])
    if why is not None:
        say(f"{server.base_url}: prompts are sent as messages, as it takes no token ids ({why})")
    return why is None


def _generated(reply: Reply, tokenizer: PreTrainedTokenizerBase) -> Generated:
    """A reply as a completion; where the server does not count its tokens they are those of its text and its end."""
    tokens = reply.tokens
    if tokens is None:
        tokens = len(tokenizer(reply.text, add_special_tokens=False)["input_ids"]) + reply.finished
    return Generated(reply.text, tokens, reply.finished)
