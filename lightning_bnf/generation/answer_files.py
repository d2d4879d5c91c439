"""Answers as the judges of AlpacaEval, Arena-Hard and WildBench read them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lightning_bnf.generation.questions import Question
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import json_text

AnswerFormat = Literal["alpaca_eval", "arena_hard", "wildbench"]


@dataclass(frozen=True)
class Answer:
    """What a model said to a question.

    length: tokens by its own tokenizer, None where a server does not say. prompt: the rendered prompt as text, None
    where a server renders it. time: seconds since 1970.
    """

    question: Question
    text: str
    length: int | None
    finished: bool
    time: float
    prompt: str | None = None


@dataclass(frozen=True)
class Generator:
    """Who answered: a name, the engine (`transformers`, `vllm`, `openai`), and the sampling settings of all answers."""

    name: str
    engine: str
    temperature: float
    max_new_tokens: int
    seed: int


def answer_file(form: AnswerFormat, answers: Sequence[Answer], generator: Generator) -> str:
    """The text of a file: a JSON list for AlpacaEval and WildBench, JSON lines for Arena-Hard."""
    if form == "arena_hard":
        rows = (arena_hard_row(answer, generator) for answer in answers)
        return "".join(json_text(row) + "\n" for row in rows)
    row_of = alpaca_eval_row if form == "alpaca_eval" else wildbench_row
    return json_text([row_of(answer, generator) for answer in answers], indent=2) + "\n"


def alpaca_eval_row(answer: Answer, generator: Generator) -> dict[str, Any]:
    """instruction, output, generator, and the question's dataset, if it has one."""
    kept = {name: answer.question.columns[name] for name in ("dataset",) if name in answer.question.columns}
    asked = answer.question.columns.get("instruction", answer.question.messages[-1]["content"])
    return {**kept, "instruction": asked, "output": answer.text, "generator": generator.name}


def arena_hard_row(answer: Answer, generator: Generator) -> dict[str, Any]:
    """uid, ans_id, model, messages, tstamp, metadata; the latter holds what its style control counts, and sampling.

    `token_len` is in the answering model's tokens (Arena-Hard's own script counts GPT-4o's).
    """
    question = answer.question
    said = {"role": "assistant", "content": {"answer": answer.text}}
    sampling = {
        "engine": generator.engine,
        "temperature": generator.temperature,
        "max_tokens": generator.max_new_tokens,
        "seed": generator.seed,
        "finished": answer.finished,
    }
    return {
        "uid": question.id,
        "ans_id": content_hash([question.id, generator.name, answer.text]),
        "model": generator.name,
        "messages": [*question.messages, said],
        "tstamp": answer.time,
        "metadata": {"token_len": answer.length, **markdown_counts(answer.text), "sampling": sampling},
    }


def markdown_counts(text: str) -> dict[str, dict[str, int]]:
    """Headers by level, list items and bold spans outside of code blocks, under the names that Arena-Hard reads."""
    plain = re.sub(r"```[^`]*```", "", text)

    def count(pattern: str) -> int:
        return len(re.findall(pattern, plain, re.MULTILINE))

    return {
        "header_count": {f"h{level}": count(rf"^#{{{level}}}\s") for level in range(1, 7)},
        "list_count": {"ordered": count(r"^\s*\d+\.\s"), "unordered": count(r"^\s*[-*+]\s")},
        "bold_count": {"**": count(r"\*\*[^*\n]+\*\*"), "__": count(r"__[^_\n]+__")},
    }


def wildbench_row(answer: Answer, generator: Generator) -> dict[str, Any]:
    """session_id, chat_history, model_input, output, generator, configs, dataset, and the question's primary_tag."""
    question = answer.question
    kept = {name: question.columns[name] for name in ("primary_tag",) if name in question.columns}
    return {
        "session_id": question.id,
        "chat_history": [message["content"] for message in question.messages],
        "model_input": answer.prompt if answer.prompt is not None else "n/a",
        "output": [answer.text],
        "generator": generator.name,
        "configs": {
            "engine": generator.engine,
            "repetition_penalty": 1.0,
            "temperature": generator.temperature,
            "top_p": 1.0,
            "max_tokens": generator.max_new_tokens,
            "seed": generator.seed,
        },
        "dataset": "wild_bench",
        **kept,
    }
