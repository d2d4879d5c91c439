"""Every family of questions: answered, distinct, seeded, verifiable."""

import re

import pytest

from lightning_bnf.evaluation.verify import check_verifier, verify
from lightning_bnf.preparation.controlled_tasks import CONTROLLED
from lightning_bnf.preparation.families import draw_questions
from lightning_bnf.preparation.tasks import FAMILIES, QUICKSTART

# A right answer to every family's question, from the question's text alone.
NUMBERS = re.compile(r"\d+")


ANSWERS = {
    "addition": lambda text: f"It is {sum(map(int, NUMBERS.findall(text)))}.",
    "subtraction": lambda text: f"{difference(text)}",
    "largest": lambda text: f"{max(map(int, NUMBERS.findall(text)))} is it.",
    "smallest": lambda text: f"{min(map(int, NUMBERS.findall(text)))} is it.",
    "first_letter": lambda text: f'It is "{re.findall(chr(34) + "(.)", text)[0].upper()}".',
    "plural": lambda text: f"One {quoted(text)}, two {quoted(text)}s.",
    "capital": lambda text: {"France": "Paris", "Japan": "Tokyo"}.get(re.findall(r"of (\w+)", text)[0]),
    "keywords": lambda text: text,
    "fewer_words": lambda text: "I like it.",
    "no_commas": lambda text: "I like it.",
    "highlight": lambda text: "I *like* it.",
    "end_question": lambda text: "I like it. Do you?",
    "list_items": lambda text: "\n".join(f"- fact {i}" for i in range(int(NUMBERS.findall(text)[0]))),
    "one_question": lambda text: "Do you like it?",
    "one_sentence": lambda text: "I like it.",
}


def difference(text: str) -> int:
    first, second = map(int, NUMBERS.findall(text))
    return first - second


def quoted(text: str) -> str:
    return text.split('"')[1]


def test_every_family_is_answered_here():
    assert set(ANSWERS) == set(QUICKSTART)
    assert FAMILIES.keys() == QUICKSTART.keys() | CONTROLLED.keys()


@pytest.mark.parametrize("family", QUICKSTART.values(), ids=list(QUICKSTART))
def test_questions_are_distinct_seeded_and_verifiable(family):
    questions = draw_questions(family, 36, seed=1)
    assert questions == draw_questions(family, 36, seed=1)
    assert questions != draw_questions(family, 36, seed=2)
    assert len({question.key for question in questions}) == len({question.text for question in questions}) == 36
    for question in questions:
        assert check_verifier(question.verifier)
        answer = ANSWERS[family.name](question.text)
        if answer is not None:
            assert verify(answer, question.verifier) == 1.0, (question, answer)
        assert verify("", question.verifier) < 1.0
