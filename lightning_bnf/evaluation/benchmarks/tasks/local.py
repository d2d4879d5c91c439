"""How rows with a passage, lettered options and an answer are read, and how ASDiv's answers are judged."""

import re
from collections.abc import Mapping, Sequence
from typing import Any


def asdiv_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the last number of the answer is the right one's first."""
    said, right = numbers(results[0]), numbers(doc["answer"])
    return {"exact_match": float(bool(said) and bool(right) and said[-1] == right[0])}


def numbers(text: str) -> list[float]:
    """All numbers of a text, in order; a comma between three digits separates thousands."""
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", text)]


def question(doc: Mapping[str, Any]) -> str:
    """The question without options: in one row of CommonsenseQA its first two stand at the question's end."""
    return _OPTION.split(doc["question"], maxsplit=1)[0].strip()


def options(doc: Mapping[str, Any]) -> list[str]:
    """The options without their letters ("A. a bank" is "a bank"), each once: some rows of CommonsenseQA hold one
    twice."""
    return list(dict.fromkeys(_lettered(doc).values()))


def right_option(doc: Mapping[str, Any]) -> int:
    """The right option's index among `options`."""
    return options(doc).index(_lettered(doc)[doc["answer"].strip()[0]])


_OPTION = re.compile(r"^([A-E])\. ", re.MULTILINE)


def _lettered(doc: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> option; the question may hold the first of them."""
    _, *parts = _OPTION.split(f"{doc['question']}\n{doc['options']}")
    return {letter: text.strip() for letter, text in zip(parts[::2], parts[1::2])}
