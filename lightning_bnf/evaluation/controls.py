"""What a verifier must refuse, and what passes without an answer: controls, constant and positional answers.

A pass rate says something of a skill only where answers that need none do not pass. Controls are such answers that no
prompt's verifier may pass. Constant and positional answers pass some prompts by chance (the last of three numbers is
the largest in a third of them): the share of the best one stands beside a rate, as what is to be beaten.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lightning_bnf.evaluation.verify import verify

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer that question.",
    "Sorry. What else can I help you with?",
)
EMPTY_LISTS = ("- \n- \n- ", "1.\n2.\n3.", "- item", "- item\n- item", "- item\n- item\n- item", "[]", "{}")
CONSTANTS = (*REFUSALS, *EMPTY_LISTS, "Yes.", "No.", "0", "1", "<<Title>>", "This is a *word*.", "What is it?")
"""Answers to nothing, tried beside those of the family's other prompts."""
_NUMBER = r"(?<![\d.,])-?\d+(?!\d|[.,]\d)"


@dataclass(frozen=True)
class Baseline:
    """An answer, or a way to take one from the prompt, and the share of prompts that it passes."""

    name: str
    share: float


def controls(prompt: str, answer: str = "") -> dict[str, list[str]]:
    """Answers to this prompt that no verifier may pass, by kind. `answer`: a right one, whose numbers are not taken."""
    right = set(re.findall(_NUMBER, answer))
    numbers = [number for number in re.findall(_NUMBER, prompt) if number not in right]
    shown = [first or second or third for first, second, third in _TEMPLATE.findall(prompt)]
    templates = [part for part in shown if part not in answer]
    return {
        "nothing": ["", ".", "?"],
        "a refusal": list(REFUSALS),
        "an empty list": list(EMPTY_LISTS),
        "the prompt repeated": [prompt, *re.split(r"(?<=[.?!])\s+", prompt)],
        "a copied template": [*templates, *(f"This is {part}." for part in templates), *_quoted(prompt, answer)],
        "the last-listed number": [*numbers[-1:], *(f"The answer is {number}." for number in numbers[-1:])],
    }


_TEMPLATE = re.compile(r"(?<!\w)(\*+[^*\n]+\*+)|(<<[^<>\n]+>>)|(\[[^\[\]\n]+\])")


def _quoted(prompt: str, answer: str) -> list[str]:
    """What stands in quotation marks, unless it is the answer."""
    return [part for part in re.findall(r'"([^"\n]+)"', prompt) if part.lower() != answer.lower()]


def passed_controls(prompt: str, verifier: Mapping[str, Any], answer: str = "") -> list[str]:
    """The kinds of controls that a prompt's verifier passes: none, if it cannot be gamed so."""
    return [
        kind
        for kind, texts in controls(prompt, answer).items()
        if any(verify(text, dict(verifier)) == 1.0 for text in texts)
    ]


def constant_baseline(questions: Sequence[tuple[str, Mapping[str, Any]]], answers: Iterable[str] = ()) -> Baseline:
    """The one answer that passes most of these prompts: of `answers` (right ones, or a model's) and of `CONSTANTS`.

    questions: prompt and verifier of each
    """
    return max(
        (
            Baseline(answer, _share([answer] * len(questions), questions))
            for answer in dict.fromkeys([*answers, *CONSTANTS])
        ),
        key=lambda found: found.share,
    )


def positional_baseline(questions: Sequence[tuple[str, Mapping[str, Any]]]) -> Baseline:
    """The place in the prompt that passes most: its n-th number or word from either end, or all of it."""
    places: dict[str, list[str]] = {"the prompt": [prompt for prompt, _ in questions]}
    for kind, pattern in (("number", _NUMBER), ("word", r"[^\W_]+(?:['\u2019-][^\W_]+)*")):
        parts = [re.findall(pattern, prompt) for prompt, _ in questions]
        for place in range(max(map(len, parts), default=0)):
            places[f"{kind} {place + 1}"] = [found[place] if place < len(found) else "" for found in parts]
            last = "last" if place == 0 else f"{place + 1} from the end"
            places[f"{kind}, {last}"] = [found[-1 - place] if place < len(found) else "" for found in parts]
    return max(
        (Baseline(name, _share(answers, questions)) for name, answers in places.items()), key=lambda found: found.share
    )


def _share(answers: Sequence[str], questions: Sequence[tuple[str, Mapping[str, Any]]]) -> float:
    passed = [verify(answer, dict(verifier)) == 1.0 for answer, (_, verifier) in zip(answers, questions, strict=True)]
    return sum(passed) / len(passed) if passed else 0.0
