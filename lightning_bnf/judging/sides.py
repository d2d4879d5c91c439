"""Answers of both sides, a question's beside each other: files as AlpacaEval, Arena-Hard and WildBench write them, or a
run's folder, whose `completions.jsonl` holds what the model said before and after training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.datamodules.reading.messages import Messages
from lightning_bnf.generation.answer_files import markdown_counts
from lightning_bnf.generation.questions import Question, read_questions
from lightning_bnf.runtime.refusal import Refusal, refusing

_COLUMNS = frozenset({"uid", "question_id", "session_id", "instruction"})


@dataclass(frozen=True)
class Said:
    """A model's answer in a file. tokens: GPT-4o's where the file's own counts are, else None."""

    question: str
    text: str
    model: str
    tokens: int | None
    prompt: str | Messages | None = None


@dataclass(frozen=True)
class Pair:
    """A question with the answers of both sides; `base` is None for benchmarks without a baseline.

    category, tags, checklist, index: from the benchmark's question file, and the place in it
    """

    question: str
    messages: Messages
    own: Said
    base: Said | None
    category: str = ""
    tags: tuple[str, ...] = ()
    checklist: tuple[str, ...] = ()
    index: int | None = None


def read_answers(path: str) -> list[Said]:
    """All answers of a file, of one model. Raises `Refusal` for rows that are none, two models, an id twice."""
    found = []
    for record in read_raw(path, columns=_COLUMNS):
        try:
            found.append(_said(record.values))
        except (KeyError, TypeError, IndexError, AttributeError, ValueError):
            raise Refusal(
                f"{record.place}: must be an answer as AlpacaEval, Arena-Hard or WildBench write them, got columns "
                f"{', '.join(map(str, record.values))}"
            ) from None
    names = sorted({one.model for one in found})
    if len(names) != 1:
        raise Refusal(f"{path} must be the answers of one model, got {', '.join(names) or 'none'}")
    if len({one.question for one in found}) != len(found):
        raise Refusal(f"{path} must hold each question once, got some twice")
    return found


def read_run(folder: Path) -> tuple[list[Said], list[Said]]:
    """What a model said to a run's prompts before training, and after; greedy where there is that. Raises `Refusal`."""
    if not (folder / "completions.jsonl").is_file():
        raise Refusal(f"answers must be a file, or the folder of a run with completions.jsonl, got {folder}")
    with refusing(f"{folder / 'completions.jsonl'}: must be what a run wrote"):
        rows = [record.values for record in read_raw(str(folder / "completions.jsonl"), columns=_COLUMNS)]
        decoding = "greedy" if any(row["decoding"] == "greedy" for row in rows) else rows[0]["decoding"]
        kept = [row for row in rows if row["decoding"] == decoding]
        name = folder.resolve().name
        return tuple(  # type: ignore[return-value]
            [Said(str(row["prompt_id"]), str(row[when]), f"{name}, {when}", None) for row in kept]
            for when in ("before", "after")
        )


def _said(values: Mapping[str, Any]) -> Said:
    if "instruction" in values:
        instruction = str(values["instruction"])
        return Said(instruction, str(values["output"]), str(values["generator"]), None, instruction)
    if "session_id" in values:
        output = values["output"]
        text = str(output[0] if isinstance(output, list) else output)
        return Said(str(values["session_id"]), text, str(values["generator"]), None)
    if "choices" in values:  # Arena-Hard until 2025
        (turn,) = values["choices"][0]["turns"]
        counted = turn.get("token_len", values.get("conv_metadata", {}).get("token_len"))
        return Said(str(values["question_id"]), str(turn["content"]), str(values["model_id"]), counted)
    *asked, last = values["messages"]
    metadata = values.get("metadata") or {}
    counted = None if "sampling" in metadata else metadata.get("token_len")  # ours are the answering model's tokens
    content = last["content"]["answer"] if isinstance(last["content"], dict) else last["content"]
    return Said(str(values["uid"]), str(content), str(values["model"]), counted, tuple(asked))


def pairs(answers: str, baseline: str | None, questions: str | None = None, category: str | None = None) -> list[Pair]:
    """Each answer with its question and the baseline's answer to it, in the file's order.

    Of a run's folder the answers after training are judged, beside those before where no baseline is given.
    Questions that the baseline has no answer to, or of another `category`, are left out. Raises `Refusal` where none is
    left, or their text is nowhere.
    """
    before, own = read_run(Path(answers)) if Path(answers).is_dir() else (None, read_answers(answers))
    other_side = read_answers(baseline) if baseline is not None else before
    base = {one.question: one for one in other_side} if other_side is not None else None
    asked = _by_id(read_questions(questions)) if questions is not None else {}
    if base is not None and not set(base) & {one.question for one in own}:
        raise Refusal(f"baseline must answer the same questions as answers, got none of them in {baseline}")
    places = {name: place for place, name in enumerate(asked)}
    found = []
    for one in own:
        if base is not None and one.question not in base:
            continue
        question = asked.get(one.question)
        other = base[one.question] if base is not None else None
        messages = _messages(question, one, other, answers)
        columns = question.columns if question is not None else {}
        tags = [columns.get("primary_tag"), *(columns.get("secondary_tags") or [])]
        pair = Pair(
            one.question,
            messages,
            one,
            other,
            str(columns.get("category", "")),
            tuple(dict.fromkeys(str(tag) for tag in tags if tag)),
            tuple(map(str, columns.get("checklist") or ())),
            places.get(one.question),
        )
        if category is None or pair.category == category:
            found.append(pair)
    if not found:
        raise Refusal(f"answers must hold one or more of the questions that are judged, got none in {answers}")
    return found


def _by_id(questions: Sequence[Question]) -> dict[str, Question]:
    """By the id of answer files, which AlpacaEval's have none of: there the instruction is it."""
    return {str(one.columns.get("instruction", one.id)): one for one in questions}


def _messages(question: Question | None, own: Said, base: Said | None, path: str) -> Messages:
    if question is not None:
        return question.messages
    for side in (own, base):
        if side is not None and side.prompt:
            prompt = side.prompt
            return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else prompt
    raise Refusal(f"questions must be the benchmark's question file, as {path} holds no question's text, got none")


def style(one: Said, length: Callable[[str], int] | None) -> list[int | None]:
    """Tokens, headers, list items and bold spans; tokens by `length`, else the file's own, else None."""
    counts = markdown_counts(one.text)
    tokens = length(one.text) if length is not None else one.tokens
    marks = [sum(counts[name].values()) for name in ("header_count", "list_count", "bold_count")]
    return [tokens, *marks]
