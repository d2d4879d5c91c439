"""ZeroEval's judging: literals, boxes and numbers."""

import pytest

from lightning_bnf.evaluation.benchmarks.tasks import local, zeroeval


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("Answer: ['a', 1]", 1.0),
        ("so...\n**Answer:** `['a',1]`", 1.0),
        ('Answer: 3\nNo.\nAnswer: ["a", 1]', 1.0),
        ("Answer: ['a', 1]\nAnswer: []", 0.0),
        ("Answer: ('a', 1)", 0.0),
        ("['a', 1]", 0.0),
        ("Answer: list('a') + [1]", 0.0),
    ],
)
def test_crux_is_read_as_literals(said, right):
    assert zeroeval.crux_results({"output": "['a', 1]"}, [said]) == {"exact_match": right}


def test_crux_tells_true_from_one():
    assert zeroeval.crux_results({"output": "True"}, ["Answer: 1"]) == {"exact_match": 0.0}


@pytest.mark.parametrize(
    ("said", "right"),
    [
        ("It is \\boxed{\\frac12}.", 1.0),
        ("\\boxed{2} or \\boxed{ \\dfrac{1}{2} }", 1.0),
        ("\\boxed{2}", 0.0),
        ("1/2", 0.0),
        ("\\boxed 2", 0.0),
        ("\\fbox{\\frac12}", 0.0),
        ("\\boxed\\frac{1}{2}", 0.0),
        ("\\boxed{\\frac12", 0.0),
    ],
)
def test_math_is_judged_by_the_last_box(said, right):
    doc = {"solution": "So $\\boxed{\\frac{1}{2}}$."}
    assert zeroeval.math_results(doc, [said]) == {"exact_match": right}


def test_numbers_and_answers():
    assert local.numbers("From -3 to 1,004.5, 12 of 7.") == [-3.0, 1004.5, 12.0, 7.0]
    row = {"answer": "5 (pens)"}
    assert local.asdiv_results(row, ["7 - 2 = 5 pens."]) == {"exact_match": 1.0}
    assert local.asdiv_results(row, ["5 - 2 = 3."]) == local.asdiv_results(row, ["five"]) == {"exact_match": 0.0}
