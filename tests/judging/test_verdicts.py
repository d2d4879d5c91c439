"""What counts as a verdict, benchmark by benchmark."""

import math

import pytest

from lightning_bnf.judging.verdicts import (
    Verdict,
    arena_hard_2024,
    arena_hard_2025,
    preference,
    wildbench_choice,
    wildbench_score,
)


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("so [[A>>B]]", Verdict("A>>B")),
        ("[[A=B]] I repeat [[A=B]]", Verdict("A=B")),
        ("[[A>B]] no, [[B>A]]", Verdict(None, "several different verdicts")),
        ("A is better", Verdict(None, "no verdict in the text", again=True)),
        ("[A>B]", Verdict(None, "no verdict in the text", again=True)),
        ("[[A<B]]", Verdict(None, "a verdict of another form")),
    ],
)
def test_rules_of_2024(text: str, verdict: Verdict) -> None:
    assert arena_hard_2024(text) == verdict


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[A>B]] no, [[B>A]]", "B>A"),
        ("[a<<b]", "A<<B"),
        ("[[A>B]] then [B>A]", "A>B"),
        ("[[AAA]]", None),
        ("none", None),
    ],
)
def test_rules_of_2025(text: str, said: str | None) -> None:
    assert arena_hard_2025(text).said == said
    assert not arena_hard_2025(text).again


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"strengths": "s", "score": "7"}', "7"),
        ('```json\n{"score": 8.5}\n```', "8.5"),
        ('{"score": "6" and then it breaks', "6"),
        ('{"score": true}', None),
        ('{"score": "11"}', None),
        ('{"score": "high"}', None),
        ("seven of ten", None),
    ],
)
def test_scores(text: str, said: str | None) -> None:
    assert wildbench_score(text).said == said
    assert said is not None or wildbench_score(text).reason


@pytest.mark.parametrize(
    ("text", "said"),
    [('{"choice": "A++"}', "A++"), ('"choice": "B+", ...', "B+"), ('{"choice": "A"}', None), ("A", None)],
)
def test_choices(text: str, said: str | None) -> None:
    assert wildbench_choice(text).said == said


def test_a_preference_is_the_share_of_the_first_token() -> None:
    first = [("m", math.log(0.6)), ("M", math.log(0.2)), ("The", math.log(0.1))]
    assert preference(first, ("m", "M")) == pytest.approx(0.75)
    assert preference([("m", -1.0)], ("m", "M")) == 1
    assert preference([("The", -1.0)], ("m", "M")) is None
    assert preference(None, ("m", "M")) is None
