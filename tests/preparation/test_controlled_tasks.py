"""Families for comparisons: their own right answers pass, and nothing that needs no skill does."""

import pytest
import yaml

from lightning_bnf.evaluation.controls import constant_baseline, passed_controls, positional_baseline
from lightning_bnf.evaluation.verify import check_verifier, verify
from lightning_bnf.preparation.controlled_tasks import CONTROLLED
from lightning_bnf.preparation.families import draw_questions
from lightning_bnf.runtime.shipped import shipped

CONFIG = yaml.safe_load(shipped("configs/prepare/controlled.yaml").read_text())
COUNT = 38
"""What a kept-out family needs."""


def test_the_config_names_all_of_them() -> None:
    assert {*CONFIG["families"], *CONFIG["kept_out"]} == set(CONTROLLED)
    assert len(CONTROLLED) >= 14
    assert len(CONFIG["kept_out"]) >= 5
    assert CONFIG["kept_out_prompts"] + CONFIG["kept_out_validation_prompts"] == COUNT
    tests = CONFIG["test_prompts"] * len(CONFIG["families"]) + CONFIG["kept_out_prompts"] * len(CONFIG["kept_out"])
    assert tests >= 300


@pytest.mark.parametrize("family", CONTROLLED.values(), ids=list(CONTROLLED))
def test_its_own_answers_pass_and_no_control_does(family) -> None:
    questions = draw_questions(family, COUNT, seed=1)
    assert questions == draw_questions(family, COUNT, seed=1)
    assert len({question.key for question in questions}) == len({question.text for question in questions}) == COUNT
    for question in questions:
        assert check_verifier(question.verifier)
        assert verify(question.answer, question.verifier) == 1.0, question
        assert passed_controls(question.text, question.verifier, question.answer) == []
        assert family.controlled


@pytest.mark.slow
@pytest.mark.parametrize("family", CONTROLLED.values(), ids=list(CONTROLLED))
def test_no_constant_or_positional_answer_passes_more_than_0_15(family) -> None:
    """Of as many questions as the config draws, so that its families do not run out either."""
    trained = CONFIG["train_prompts"] + CONFIG["validation_prompts"] + CONFIG["test_prompts"]
    drawn = draw_questions(family, COUNT if family.name in CONFIG["kept_out"] else trained, CONFIG["seed"])
    questions = [(question.text, question.verifier) for question in drawn[:120]]
    assert constant_baseline(questions, {question.answer for question in drawn[:12]}).share <= 0.15
    assert positional_baseline(questions).share <= 0.15
