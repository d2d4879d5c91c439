"""What is asked: orders, slots, and verdicts that need no judge."""

from lightning_bnf.judging.games import games_of, settled, slots
from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.sides import Pair, Said
from lightning_bnf.judging.templates import read_template

ASKED = ({"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}, {"role": "user", "content": "3?"})


def pair(own: str = "mine", base: str | None = "base", name: str = "q") -> Pair:
    return Pair(
        name, ASKED, Said(name, own, "m", None), None if base is None else Said(name, base, "b", None), checklist=("x",)
    )


def test_arena_hard_shows_the_baseline_first_and_then_swaps() -> None:
    protocol = PROTOCOLS["arena_hard_v0.1"]
    first, second = games_of([pair()], protocol, read_template("own", protocol))
    assert (first.first, second.first) == (False, True)
    texts = [game.messages[-1]["content"] for game in (first, second)]
    assert "Answer A:\nbase" in texts[0]
    assert "Answer A:\nmine" in texts[1]


def test_a_drawn_order_is_the_questions_own() -> None:
    protocol = PROTOCOLS["alpaca_eval_2"]
    template = read_template("own", protocol)
    many = [pair(name=str(i)) for i in range(200)]
    drawn = [game.first for game in games_of(many, protocol, template)]
    assert 70 < sum(drawn) < 130
    assert [game.first for game in games_of(many[7:9], protocol, template)] == drawn[7:9]
    assert [game.first for game in games_of(many, protocol, template, seed=1)] != drawn


def test_wildbench_splits_history_and_query_and_cuts_long_texts() -> None:
    held = slots(pair(own=" ".join(["w"] * 1200), base=None), True, PROTOCOLS["wildbench"])
    assert (held["history"], held["query"], held["checklist"]) == ("USER: 1\n\nASSISTANT: 2\n\n", "3?", "- x\n")
    assert held["answer"].endswith("w... (truncated)")
    assert slots(pair(), True, PROTOCOLS["arena_hard_v2"])["question"].endswith("USER: 3?")


def test_equal_and_empty_answers_need_no_judge() -> None:
    assert settled(pair("same", "same"), True, PROTOCOLS["alpaca_eval_2"]) == "A=B"
    assert settled(pair("same", "same"), True, PROTOCOLS["arena_hard_v2"]) is None
    assert settled(pair(" ", None), True, PROTOCOLS["wildbench"]) == "1"
    pairs = PROTOCOLS["wildbench_pairs"]
    assert [settled(pair("", "x"), first, pairs) for first in (True, False)] == ["B++", "A++"]
    assert settled(pair("", " "), True, pairs) == "A=B"
    assert settled(pair(), True, pairs) is None
