"""How answers to MATH and CRUXEval are judged: by the last boxed expression, and by the last line that says Answer."""

import ast
import re
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from lm_eval.tasks.hendrycks_math.utils import is_equiv, last_boxed_only_string, remove_boxed


def level_5(docs: Dataset) -> Dataset:
    """The problems of the highest level."""
    return docs.filter(lambda doc: doc["level"] == "Level 5")


def math_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the last boxed expression is the solution's, up to how LaTeX writes it (spaces, fractions, units)."""
    found, right = _boxed(results[0]), _boxed(doc["solution"])
    return {"exact_match": float(found is not None and right is not None and is_equiv(found, right))}


def _boxed(text: str) -> str | None:
    """What is in the last box. None where there is none, or it is not `\\boxed{...}` or `\\boxed ...`, which lm-eval's
    own function would stop a whole evaluation for."""
    found = last_boxed_only_string(text)
    whole = found is not None and (found.startswith("\\boxed ") or re.fullmatch(r"\\boxed\{.*\}", found, re.DOTALL))
    return remove_boxed(found) if whole else None


def crux_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """Whether the last line `Answer: ...` holds the value; compared as Python literals of the same type, never run."""
    said = re.findall(r"^\W*Answer:\**[ \t]*(.+?)[ \t]*$", results[0], re.MULTILINE)
    return {"exact_match": float(bool(said) and _same(said[-1].strip("`* "), doc["output"]))}


def _same(one: str, other: str) -> bool:
    try:
        found, right = ast.literal_eval(one), ast.literal_eval(other)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return one == other
    return type(found) is type(right) and found == right
