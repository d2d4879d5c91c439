"""What a task family is, and how its questions are drawn.

A family asks one kind of question in a few phrasings and says how an answer is verified. Its questions differ in their
`key`, the content without the phrasing (the two numbers of a sum): splits are made over keys, so that no test question
is a training question in other words.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.evaluation.controls import passed_controls
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class Question:
    """One prompt of a family: its content, its text, and how an answer is verified (see `evaluation/verify.py`).

    answer: a right one, where the family knows one
    """

    key: str
    text: str
    verifier: dict[str, Any]
    answer: str = ""

    @property
    def messages(self) -> list[Message]:
        return [{"role": "user", "content": self.text}]

    @property
    def prompt_id(self) -> str:
        return content_hash(self.messages)


@dataclass(frozen=True)
class Family:
    """A kind of question: `ask` draws one, `max_new_tokens` is where an answer is cut off (and then fails).

    controlled: whether its verifiers refuse every negative control, which is checked of each question that is drawn
    """

    name: str
    ask: Callable[[Random], Question]
    max_new_tokens: int
    controlled: bool = False


def draw_questions(family: Family, count: int, seed: int) -> list[Question]:
    """`count` questions with different keys, in a random order that depends on the seed and the family alone.

    Raises `Refusal` where the family runs out of questions, or is controlled and a negative control passes one.
    """
    rng = Random(f"{seed}/{family.name}")  # a string seeds independently of PYTHONHASHSEED
    found: dict[str, Question] = {}
    texts: set[str] = set()
    for _ in range(200 * count):
        if len(found) == count:
            return list(found.values())
        question = family.ask(rng)
        if question.key in found or question.text in texts:
            continue
        passed = passed_controls(question.text, question.verifier, question.answer) if family.controlled else []
        if passed:
            raise Refusal(
                f"verifiers of family {family.name!r} must refuse every control, got {passed[0]} passed by "
                f"{question.text!r}"
            )
        found[question.key] = question
        texts.add(question.text)
    if len(found) == count:
        return list(found.values())
    raise Refusal(
        f"prompts of family {family.name!r} must be at most about {len(found)}, its different questions, got {count}"
    )
