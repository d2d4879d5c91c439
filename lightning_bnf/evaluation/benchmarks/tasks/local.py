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


def options(doc: Mapping[str, Any]) -> list[str]:
    """The options without their letters: "A. a bank" is "a bank"."""
    return [line.partition(". ")[2].strip() for line in doc["options"].strip().splitlines()]


def right_option(doc: Mapping[str, Any]) -> int:
    """The right option's index."""
    return "ABCDE".index(doc["answer"].strip()[0])
