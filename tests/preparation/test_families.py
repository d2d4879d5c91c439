"""Questions: distinct, seeded, and answered rightly by their own verifiers."""

import re

import pytest

from lightning_bnf.preparation.families import Family, Question, draw_questions
from lightning_bnf.preparation.tasks import FAMILIES
from lightning_bnf.runtime.fingerprints import content_hash


def test_fewer_questions_do_not_change_the_first_ones():
    family = FAMILIES["keywords"]
    assert draw_questions(family, 10, seed=1) == draw_questions(family, 30, seed=1)[:10]


def test_a_family_that_runs_out_says_so():
    family = Family("coin", lambda rng: Question(rng.choice("ab"), "?", {}), 4)
    with pytest.raises(ValueError, match=r"prompts of family 'coin' must be at most about 1, .* got 2"):
        draw_questions(family, 2, seed=1)


def test_a_controlled_family_is_refused_where_a_control_passes() -> None:
    family = Family("short", lambda rng: Question("a", "Be short.", {"name": "fewer_words", "limit": 9}), 4, True)
    message = r"family 'short' must refuse every control, got a refusal passed by 'Be short\.'"
    with pytest.raises(ValueError, match=message):
        draw_questions(family, 1, seed=1)


def test_the_id_is_the_contents():
    first, other = (Question("k", text, {}).prompt_id for text in ("a", "b"))
    assert first == content_hash([{"content": "a", "role": "user"}])
    assert first != other
    assert re.fullmatch(r"[0-9a-f]{16}", first)
