"""How rows with a passage, lettered options and an answer are read, and how ASDiv's answers are judged."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_bnf.evaluation.benchmarks.suites import SuiteError


def asdiv_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the last number of the answer is the right one's first."""
    said, right = numbers(results[0]), numbers(doc["answer"])
    return {"exact_match": float(bool(said) and bool(right) and said[-1] == right[0])}


def numbers(text: str) -> list[float]:
    """All numbers of a text, in order; a comma between three digits separates thousands."""
    return [float(found.replace(",", "")) for found in re.findall(r"-?\d+(?:,\d{3})*(?:\.\d+)?", text)]


def question(doc: Mapping[str, Any]) -> str:
    """The question without options: in one row of CommonsenseQA its first two stand at the question's end."""
    return _cut(doc)[0]


def options(doc: Mapping[str, Any]) -> list[str]:
    """The options without their letters ("A. a bank" is "a bank"), each once: some rows of CommonsenseQA hold one
    twice."""
    return list(dict.fromkeys(_lettered(doc).values()))


def right_option(doc: Mapping[str, Any]) -> int:
    """The right option's index among `options`."""
    return options(doc).index(_lettered(doc)[doc["answer"].strip()[0]])


_OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)


def _cut(doc: Mapping[str, Any]) -> tuple[str, str]:
    """The question and the options as text; where the options lack A the question's lines from there on are options."""
    text, options = doc["question"], doc["options"]
    if "\nA. " in text and not re.search(r"^A\. ", options, re.MULTILINE):
        text, _, first = text.partition("\nA. ")
        options = f"A. {first}\n{options}"
    return text.strip(), options


def _lettered(doc: Mapping[str, Any]) -> dict[str, str]:
    """Letter -> option. Raises `SuiteError` where there are not two or more, or the answer is none of them."""
    _, *parts = _OPTION.split(_cut(doc)[1])
    found = {letter: text.strip() for letter, text in zip(parts[::2], parts[1::2])}
    right = found.get(doc["answer"].strip()[:1])
    if right is None or len(set(found.values())) < 2:
        raise SuiteError(
            "options must be two lines or more such as 'A. a bank', and answer begin with the letter of one, got "
            f"options {doc['options']!r} and answer {doc['answer']!r}"
        )
    return found
