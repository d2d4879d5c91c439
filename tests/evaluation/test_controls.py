"""Answers that need no skill: controls that no verifier may pass, and the best constant and positional answers."""

import pytest

from lightning_bnf.evaluation.controls import (
    REFUSALS,
    Baseline,
    constant_baseline,
    controls,
    passed_controls,
    positional_baseline,
)
from lightning_bnf.evaluation.verify import FORMS, VERIFIERS

PROMPT = 'Write about "cats" like *this* or <<That>>. Which is larger: 3, 9 or 5?'

# Of every verifier a prompt and arguments with which it stands alone or, where it looks at the form, beside another.
QUESTIONS = {
    "number": ("What is 3 + 4?", {"answer": 7}),
    "only_number": ("Which is the largest: 3, 9 or 5?", {"answer": 9}),
    "mentions": ('What is the opposite of "hot"?', {"answers": ["cold"]}),
    "equals": ("Which animal barks? One word.", {"answer": "dog"}),
    "keywords": ("Name two birds.", {"words": ["owl", "hawk"]}),
    "json_keys": ("Describe a cat in JSON: its name, its age.", {"keys": ["name", "age"]}),
    "starts_with": ("Tell a story.", {"start": "Once"}),
    "only_letter": ('What is the first letter of "bat"?', {"answer": "b"}),
    "list_with": ("List 2 facts about cats, and name cats in each.", {"count": 2, "word": "cat"}),
}


@pytest.mark.parametrize("name", sorted(set(VERIFIERS) - FORMS - {"all_of"}))
def test_a_verifier_of_content_refuses_every_control(name: str) -> None:
    prompt, arguments = QUESTIONS[name]
    assert passed_controls(prompt, {"name": name, **arguments}) == []


FORM = {
    "list_items": {"count": 2},
    "fewer_words": {"limit": 12},
    "title": {},
    "sentences": {"count": 1},
    "question": {},
    "ends_with_question": {},
    "no_commas": {},
    "highlighted": {"count": 1},
    "own_words": {"prompt": "Write about cats.", "count": 2},
}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_verifier_of_form_refuses_them_beside_one_of_content(name: str) -> None:
    """Alone it may pass some; with the topic and words of its own asked for it passes none."""
    prompt = "Write about cats, like *this*."
    content = [{"name": "mentions", "answers": ["cats"]}, {"name": "own_words", "prompt": prompt, "count": 2}]
    alone = {"name": name, **FORM[name]}
    assert passed_controls(prompt, alone) or name == "title"
    assert passed_controls(prompt, {"name": "all_of", "parts": [alone, *content]}) == []


def test_what_the_controls_are() -> None:
    found = controls(PROMPT)
    assert found["the prompt repeated"] == [PROMPT, 'Write about "cats" like *this* or <<That>>.', PROMPT[44:]]
    assert found["a copied template"] == ["*this*", "<<That>>", "This is *this*.", "This is <<That>>.", "cats"]
    assert found["the last-listed number"] == ["5", "The answer is 5."]
    assert found["a refusal"] == list(REFUSALS)
    assert "" in found["nothing"]
    assert "- \n- \n- " in found["an empty list"]


def test_what_is_right_is_no_control() -> None:
    """5 is right here, so the last wrong number is 9."""
    assert controls(PROMPT, "It is 5.")["the last-listed number"] == ["9", "The answer is 9."]
    assert controls(PROMPT, "cats")["a copied template"][-1] != "cats"


def test_the_best_constant_and_the_best_place_by_hand() -> None:
    """9 is right twice of three times; the last number twice."""
    listed = [("Largest of 3, 5 or 9?", 9), ("Largest of 2, 7 or 9?", 9), ("Largest of 8, 4 or 1?", 8)]
    questions = [(text, {"name": "only_number", "answer": answer}) for text, answer in listed]
    assert constant_baseline(questions, ["9", "8"]) == Baseline("9", 2 / 3)
    assert constant_baseline(questions).share == 0.0, "without right answers to try"
    assert positional_baseline(questions) == Baseline("number, last", 2 / 3)


def test_a_refusal_is_found_where_the_form_alone_counts() -> None:
    questions = [(f"Describe {topic} in fewer than 12 words.", {"name": "fewer_words", "limit": 12}) for topic in "ab"]
    assert constant_baseline(questions).share == 1.0
    assert passed_controls(*questions[0])[0] == "a refusal"
