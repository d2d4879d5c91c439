"""The verb `generate`: questions -> answers of a model or a server -> a file that a benchmark's judge reads."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.reading.records import Completion, Row
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.answer_files import Answer, AnswerFormat, Generator, answer_file
from lightning_bnf.generation.questions import Question, read_questions
from lightning_bnf.generation.sampling import Complete, Sampling, batches, generate_with_lengths, prompt_seed
from lightning_bnf.generation.server import Server, ServerError, ask
from lightning_bnf.generation.vllm_engine import Vllm, serving
from lightning_bnf.policies.base import Dtype, Policy
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import load_config, load_tokenizer, placed
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import (
    config_fingerprint,
    content_hash,
    tokenizer_fingerprints,
    weights_fingerprint,
)
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.workers import at_once

PACKAGES = ("lightning_bnf", "torch", "transformers", "peft")


@checked
def write_answers(
    output: Path,
    questions: str,
    format: AnswerFormat,
    name: str,
    source: str | None = None,
    server: Server | None = None,
    vllm: Vllm | None = None,
    split: str | None = None,
    subset: str | None = None,
    revision: str | None = None,
    limit: PositiveInt | None = None,
    temperature: NonNegativeFloat = 0.0,
    max_new_tokens: PositiveInt = 2048,
    seed: int = 0,
    batch_size: PositiveInt = 16,
    dtype: Dtype = "float32",
    rendering: Rendering = Rendering(strings="chat"),  # noqa: B008 - frozen
    work: Path = Path("runs/generate"),
) -> None:
    """Write a model's answers to a benchmark's questions, for AlpacaEval, Arena-Hard or WildBench. Resumable.

    Either `source` (a model, run here) or `server` (OpenAI-compatible) answers. Settings, versions and fingerprints are
    written beside the file, as OUTPUT.settings.yaml.

    Args:
        output: file to write when all answers are there: a new one, or earlier answers, which are replaced.
        questions: the benchmark's own question file, a file with prompts, or hub data.
        format: alpaca_eval, arena_hard or wildbench.
        name: the model's name in the file.
        source: model that answers: hub id, folder (also an exported adapter's), GGUF file or bundled model.
        server: OpenAI-compatible server that answers.
        vllm: vLLM, in this process, that runs the source instead of transformers; `{}` takes its defaults.
        split: split of hub data.
        subset: configuration of hub data that has several.
        revision: commit, tag or branch of hub data.
        limit: only the first questions; null: all.
        temperature: softmax temperature; 0 is greedy. No top-k, no top-p.
        max_new_tokens: tokens after which an answer is cut off.
        seed: of sampled answers.
        batch_size: answers generated together by a model that runs here.
        dtype: type of the model's weights; a GPU is used where there is one.
        rendering: how prompts become token ids; as in training.
        work: folder that keeps finished answers, so that an interrupted run goes on where it was.
    """
    _check(source, server, vllm, Path(output))
    asked = read_questions(questions, split, subset, revision)[:limit]
    sampling = Sampling(temperature, max_new_tokens, seed=seed, batch_size=batch_size)
    store = JsonlStore(Path(work) / f"{Path(output).name}.jsonl")
    if source is not None:
        answers, identity = answers_of_model(asked, source, dtype, rendering, sampling, store, vllm)
    else:
        assert server is not None
        answers, identity = answers_of_server(asked, server, rendering, sampling, store)
    generator = Generator(name, _engine(server, vllm), temperature, max_new_tokens, seed)
    cut_off = sum(not answer.finished for answer in answers)
    record = {"questions": questions, "format": format, "answers": len(answers), "cut_off": cut_off}
    _write_settings(output, record, generator, identity)  # first: answers without them would not be replaced
    write_text(output, answer_file(format, answers, generator))
    print(f"{len(answers)} answers in {output}, {cut_off} of them cut off at {max_new_tokens} tokens")


def _check(source: str | None, server: Server | None, vllm: Vllm | None, output: Path) -> None:
    """Who answers is one; and a file is replaced only if its settings lie beside it, as those of answers do."""
    if (source is None) == (server is None):
        raise Refusal(f"source, server: one of them must be given, got {'neither' if source is None else 'both'}")
    if server is not None and vllm is not None:
        raise Refusal(f"vllm must be null with a server, which has the model itself, got {vllm}")
    if (output.exists() or output.is_symlink()) and not _settings_of(output).is_file():
        raise Refusal(
            f"output must be a new file, or answers that were written with {_settings_of(output).name} beside them, "
            f"got {output}"
        )


def _engine(server: Server | None, vllm: Vllm | None) -> str:
    return "openai" if server else "vllm" if vllm else "transformers"


def _settings_of(output: Path) -> Path:
    return output.with_name(output.name + ".settings.yaml")


def _write_settings(output: Path, about: dict[str, Any], generator: Generator, identity: dict[str, Any]) -> None:
    """OUTPUT.settings.yaml: what was asked, by whom it was answered and how, and with which versions."""
    versions = {package: version(package) for package in PACKAGES}
    record = {**about, "generator": asdict(generator), "identity": identity, "versions": versions}
    write_text(_settings_of(output), yaml.safe_dump(record, sort_keys=False))


@dataclass(frozen=True)
class Said:
    """A stored answer: text, tokens (None if unknown), whether it ended, when (seconds since 1970)."""

    text: str
    length: int | None
    finished: bool
    time: float


def _keep(store: JsonlStore, key: str, said: Said) -> None:
    store.add({key: {"said": asdict(said)}})


def prompt_ids(questions: Sequence[Question], renderer: Renderer) -> list[list[int]]:
    """The ids that answers start from, compared with those that training would put before an answer.

    Raises `DataError` where a prompt cannot be rendered or the two differ.
    """
    found = []
    for question in questions:
        answered = Row(question.id, question.id, "demonstration", question.messages, (Completion("Yes.", None, 1),))
        try:
            ids, trained = renderer.prompt_ids(question.messages), renderer.row(answered).prompt_ids
        except Fault as fault:
            raise DataError(f"question {question.id}: {fault}") from None
        if ids != trained:
            raise DataError(
                f"question {question.id}: its prompt's ids must be training's {len(trained)}, got {len(ids)} others"
            )
        found.append(ids)
    return found


def answers_of_model(
    questions: Sequence[Question],
    source: str,
    dtype: Dtype,
    rendering: Rendering,
    sampling: Sampling,
    store: JsonlStore,
    vllm: Vllm | None = None,
) -> tuple[list[Answer], dict[str, Any]]:
    """The answers of a model that runs here, by transformers or vLLM, and what identifies it.

    The batches are those of all questions, whatever is stored already: so sampled answers do not depend on where a run
    was interrupted.
    """
    policy = exported(source, dtype)
    renderer = Renderer(policy.tokenizer, rendering, policy.end_ids)
    ids = prompt_ids(questions, renderer)  # before the weights are loaded
    with _running(policy, vllm, max(map(len, ids), default=0) + sampling.max_new_tokens) as (complete, identity):
        identity |= {**tokenizer_fingerprints(policy.tokenizer), "source": source}
        how = [identity["weights"], identity["config"], sampling.temperature, sampling.max_new_tokens, sampling.seed]
        keys = [content_hash([*how, prompt]) for prompt in ids]
        with Progress(len(questions), "Answers", "answer") as bar:
            for batch in batches(ids, sampling):
                if any(keys[index] not in store for index in batch):
                    rows = complete([ids[index] for index in batch], sampling)
                    now = time.time()
                    for index, (answer,) in zip(batch, rows, strict=True):
                        _keep(store, keys[index], Said(answer.text, answer.length, answer.finished, now))
                bar.update(len(batch))
    return _in_order(questions, keys, store, [_text(policy.tokenizer, prompt) for prompt in ids]), identity


@contextmanager
def _running(policy: Policy, vllm: Vllm | None, longest: int) -> Iterator[tuple[Complete, dict[str, Any]]]:
    """What completes prompts of at most `longest` tokens with their answers, and the model's fingerprints."""
    if vllm is not None:
        with serving(vllm, policy, longest) as served:
            config = load_config(policy.source, policy.revision)
            about = {"weights": served.identity, "config": config_fingerprint(config), "engine": served.version}
            yield served.complete, about
        return
    policy.load()
    model = placed(policy.loaded)
    identity = {"weights": weights_fingerprint(model), "config": config_fingerprint(policy.causal_lm.config)}
    yield partial(generate_with_lengths, model, policy.tokenizer), identity


def answers_of_server(
    questions: Sequence[Question], server: Server, rendering: Rendering, sampling: Sampling, store: JsonlStore
) -> tuple[list[Answer], dict[str, Any]]:
    """The answers of a server, `server.at_once` requests at a time, and what identifies it (its key does not)."""
    server.key()  # refused before the first request
    identity = {"base_url": server.base_url, "model": server.model}
    how = [identity, sampling.temperature, sampling.max_new_tokens]
    asked = [list(question.messages) for question in questions]
    seeds = [prompt_seed(sampling.seed, one) if sampling.temperature > 0 else sampling.seed for one in asked]
    keys = [content_hash([*how, seed, messages]) for seed, messages in zip(seeds, asked, strict=True)]
    lengths: list[int] | None = None
    if server.tokenizer is not None:
        tokenizer = load_tokenizer(server.tokenizer)
        lengths = [len(ids) for ids in prompt_ids(questions, Renderer(tokenizer, rendering))]
        identity |= tokenizer_fingerprints(tokenizer)

    def said(index: int) -> Said:
        question = questions[index]
        reply = ask(server, question.messages, sampling.temperature, sampling.max_new_tokens, seeds[index])
        if lengths is not None and reply.prompt_tokens != lengths[index]:
            raise ServerError(
                f"{server.base_url}: must be a server with training's chat template, which gives question"
                f" {question.id} {lengths[index]} prompt tokens, got {reply.prompt_tokens}"
            )
        return Said(reply.text, reply.tokens, reply.finished, time.time())

    missing = [index for index, key in enumerate(keys) if key not in store]
    with Progress(len(questions), "Answers", "answer", initial=len(questions) - len(missing)) as bar:
        at_once(said, missing, server.at_once, bar, lambda index, one: _keep(store, keys[index], one))
    return _in_order(questions, keys, store, [None] * len(questions)), identity


def _in_order(
    questions: Sequence[Question], keys: Sequence[str], store: JsonlStore, prompts: Sequence[str | None]
) -> list[Answer]:
    return [
        Answer(question, prompt=prompt, **store[key]["said"])
        for question, key, prompt in zip(questions, keys, prompts, strict=True)
    ]


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids))
