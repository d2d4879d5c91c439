"""Every verifier on texts that pass and on near misses."""

import sys

import pytest

from lightning_bnf.evaluation.verify import VERIFIERS, VerifierError, check_verifier, verify
from lightning_bnf.runtime.class_paths import restricted

CASES = [
    # verifier, texts that pass, texts that fail
    ({"name": "number", "answer": 14}, ["14", " 14.\n", "7 + 7 = 14", "The answer is 14."], ["", "seven", "14 or 15"]),
    ({"name": "number", "answer": 14}, ["7+7=14!"], ["114", "14.5", "1,014", "7 + 7 = -14", "The sum of 14 is 7 + 7"]),
    ({"name": "number", "answer": 1}, ["13 - 12 = 1", "It is 1, surely"], ["13 - 12 = 11", "0.1"]),
    (
        {"name": "only_number", "answer": 9},
        ["9", "The largest is 9.", "9 (nine), yes, 9"],
        ["3 is less than 9", "3", ""],
    ),
    ({"name": "mentions", "answers": ["sad", "unhappy"]}, ["It is SAD.", "'sad'", "unhappy"], ["sadness", "happy"]),
    (
        {"name": "mentions", "answers": ["s"]},
        ["It starts with 'S'.", "s-u-n"],
        ["It's a word", "sun", "What\u2019s up?"],
    ),
    ({"name": "mentions", "answers": ["Buenos Aires"]}, ["The capital is Buenos Aires."], ["Buenos", "Aires Buenos"]),
    ({"name": "equals", "answer": "a b"}, ["a b", '"a b"', "\u201ca b\u201d"], ["a b.", "A b", "I say a b"]),
    ({"name": "list_items", "count": 2}, ["- a\n- b", "Two things:\n* a\n* b\nThat is all."], ["- a", "- a\n- b\n- c"]),
    (
        {"name": "list_items", "count": 2},
        ["1. a\n2. b", "1) a\n2) b"],
        ["1. a\n1. b", "2. a\n3. b", "1. a\n- b", "-a\n-b"],
    ),
    ({"name": "keywords", "words": ["sea", "cat"]}, ["The CAT saw the sea."], ["The cat saw the season.", "cats, sea"]),
    ({"name": "fewer_words", "limit": 4}, ["One", "one two three", "It's well-known now"], ["", "...", "a b c d"]),
    ({"name": "title"}, ["<<A day>>", "My story: <<a>>\nOnce"], ["<A day>", "<< >>", "<<A\nday>>", "A day"]),
    (
        {"name": "json_keys", "keys": ["a", "b"]},
        ['{"b": 1, "a": 2}', '```json\n{"a": 1, "b": []}\n```'],
        ['{"a": 1}', "a"],
    ),
    ({"name": "json_keys", "keys": ["a"]}, ['{"a": null}'], ['Here: {"a": 1}', '{"a": 1, "b": 2}', "[1]", '{"a": 1']),
    ({"name": "starts_with", "start": "Once"}, ["Once upon", "Once, there"], ["once upon", "Onceness", "At Once"]),
    (
        {"name": "sentences", "count": 1},
        ["Rain falls.", "Really?", 'He said "no."'],
        ["Rain falls", "A cat. A dog.", "A.\nB"],
    ),
    (
        {"name": "sentences", "count": 2},
        ["A cat. A dog!", "One (two). Three?"],
        ["A cat, a dog.", "A. B. C.", "A.\nB."],
    ),
    ({"name": "question"}, ["Who are you?"], ["Who are you", "What?", "Who? And why not?", "Why not? I see."]),
    ({"name": "ends_with_question"}, ["Cats sleep. Do you?", "Why? Why?"], ["Do you? Yes.", "?", "Cats sleep."]),
    ({"name": "no_commas"}, ["Cats sleep all day."], ["Cats, sleep all day.", "Cats sleep", ""]),
    (
        {"name": "highlighted", "count": 1},
        ["a *word* here", "a **big word** here"],
        ["a word", "2 * 3 * 4", "**", "* a\n* b"],
    ),
    ({"name": "highlighted", "count": 2}, ["*a* and **b**"], ["*a* and b"]),
    (
        {"name": "only_letter", "answer": "b"},
        ["B", 'The word "bat" starts with a "b".', "I say B."],
        ["a b c d", "bat", "b-a-t", "", "C"],
    ),
    (
        {"name": "own_words", "prompt": "Write about cats.", "count": 2},
        ["Cats sleep all day.", "They purr"],
        ["Write about cats.", "Cats sleep", "sleep sleep", ""],
    ),
    (
        {"name": "list_with", "count": 2, "word": "cat"},
        ["- Cats purr.\n- A cat sleeps.", "Facts:\n1. The cat\n2. cats"],
        ["- Cats purr.\n- They sleep.", "- Cats\n- cats\n- cats", "- category\n- cat", "- \n- ", ""],
    ),
    (
        {"name": "all_of", "parts": [{"name": "question"}, {"name": "mentions", "answers": ["cat"]}]},
        ["Where is the cat?"],
        ["Where is it?", "The cat.", ""],
    ),
]


@pytest.mark.parametrize(("verifier", "passing", "failing"), CASES, ids=[case[0]["name"] for case in CASES])
def test_a_verifier_passes_and_fails_what_it_should(verifier, passing, failing):
    for text in passing:
        assert verify(text, verifier) == 1.0, text
    for text in failing:
        assert 0.0 <= verify(text, verifier) < 1.0, text


def test_every_verifier_has_cases_and_a_docstring():
    assert {case[0]["name"] for case in CASES} == set(VERIFIERS)
    assert all(function.__doc__ for function in VERIFIERS.values())


@pytest.mark.parametrize(
    ("verifier", "better", "worse"),
    [
        ({"name": "number", "answer": 5}, "5 is more than 4", "4"),
        ({"name": "keywords", "words": ["a", "b", "c"]}, "a b", "a"),
        ({"name": "list_items", "count": 4}, "- a\n- b\n- c", "- a"),
        ({"name": "fewer_words", "limit": 3}, "a b c", "a b c d e f"),
        ({"name": "sentences", "count": 2}, "A. B. C.", "A. B. C. D. E."),
        ({"name": "no_commas"}, "one, two three", "one, two, three"),
        ({"name": "only_letter", "answer": "b"}, "b c", "c"),
        ({"name": "own_words", "prompt": "a", "count": 3}, "b c", "b b"),
        ({"name": "list_with", "count": 2, "word": "x"}, "- x\n- y", "- y\n- y"),
        ({"name": "all_of", "parts": [{"name": "title"}, {"name": "question"}]}, "<<a>>", "a"),
    ],
)
def test_a_near_miss_scores_above_a_far_one(verifier, better, worse):
    assert 1.0 > verify(better, verifier) > verify(worse, verifier)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({"name": "numbr", "answer": 1}, "verifier 'numbr' does not exist; did you mean 'number'"),
        ({"name": "xyz"}, "there are: number, only_number, mentions"),
        ({"answer": 1}, "has no name"),
        ({"name": "number", "anwser": 1}, "takes no argument 'anwser'; did you mean 'answer'"),
        ({"name": "number"}, "needs the argument 'answer'"),
        ({"name": "title", "count": 1}, "takes no argument 'count'; there are: none"),
    ],
)
def test_wrong_verifiers_are_refused_by_name(verifier, message):
    with pytest.raises(VerifierError, match=message.replace("(", r"\(")):
        verify("text", verifier)


@pytest.mark.parametrize(
    ("verifier", "message"),
    [
        ({"name": "number", "answer": "7"}, "verifier 'number': answer must be a whole number, got '7'"),
        ({"name": "fewer_words", "limit": 0}, "limit must be a whole number from 1, got 0"),
        ({"name": "list_items", "count": True}, "count must be a whole number from 1, got True"),
        ({"name": "highlighted", "count": 1.5}, "count must be a whole number from 1, got 1.5"),
        ({"name": "keywords", "words": []}, r"words must be a list of one text or more, got \[\]"),
        ({"name": "keywords", "words": [1]}, r"words must be a list of one text or more, got \[1\]"),
        ({"name": "mentions", "answers": "abc"}, "answers must be a list of one text or more, got 'abc'"),
        ({"name": "json_keys", "keys": [["a"]]}, "keys must be a list of one text or more"),
        ({"name": "starts_with", "start": 3}, "start must be a text, got 3"),
        ({"name": "equals", "answer": ["a"]}, r"answer must be a text, got \['a'\]"),
        ({"name": "all_of", "parts": [{"name": "title"}]}, "parts must be a list of two verifiers or more, got"),
        ({"name": "all_of", "parts": [{"name": "title"}, {"name": "x"}]}, "verifier 'x' does not exist"),
    ],
)
def test_arguments_of_another_kind_are_refused(verifier, message):
    with pytest.raises(VerifierError, match=message):
        check_verifier(verifier)


@pytest.mark.parametrize("verifier", [case[0] for case in CASES], ids=[case[0]["name"] for case in CASES])
def test_texts_that_patterns_could_try_for_ever_are_scored(verifier):
    """Models repeat themselves: with a pattern that goes back, the first of these takes a day."""
    for text in ("```" + " " * 30_000 + "x", "[" * 100_000, "1" * 10_000, "1" * 5000 + ". a", "<<" + "a" * 50_000):
        assert 0.0 <= verify(text, verifier) <= 1.0
    for text in ("*" + "a" * 50_000, "**" + "a " * 30_000, '."' * 20_000 + "x", "<" * 20_000 + "a" * 20_000):
        assert 0.0 <= verify(text, verifier) <= 1.0


def test_check_verifier_returns_the_name():
    assert check_verifier({"name": "title"}) == "title"


MINE = """
from os import system


def ends(text: str, mark: str = ".", of: "list[str]" = None, times: int = 0) -> float:
    return float(text.endswith(mark) and len(of or []) == times)


def odd(text: str, pattern: dict) -> float:
    return 1.0


class Callable:
    pass
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's."""
    (tmp_path / "my_verifiers.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_verifiers", None)


def test_one_of_the_users_own_is_named_by_its_path(mine):
    with restricted(["my_verifiers"]):
        assert verify("So.", {"name": "my_verifiers.ends"}) == 1.0
        assert verify("So!", {"name": "my_verifiers.ends"}) == 0.0
        assert verify("So!", {"name": "my_verifiers.ends", "mark": "!", "of": ["x"], "times": 1}) == 1.0
        joined = {"name": "all_of", "parts": [{"name": "my_verifiers.ends"}, {"name": "fewer_words", "limit": 3}]}
        assert verify("So.", joined) == 1.0
        with pytest.raises(VerifierError, match=r"'my_verifiers\.ends': times must be a whole number, got 'x'"):
            check_verifier({"name": "my_verifiers.ends", "times": "x"})
        with pytest.raises(VerifierError, match=r"takes no argument 'marks'; did you mean 'mark'\?"):
            check_verifier({"name": "my_verifiers.ends", "marks": "!"})
        with pytest.raises(VerifierError, match=r"pattern must be annotated as int, str or list\[str\], .* got dict"):
            check_verifier({"name": "my_verifiers.odd", "pattern": {}})


@pytest.mark.parametrize(
    "name",
    [
        "my_verifiers.system",
        "my_verifiers.Callable",
        "my_verifiers.gone",
        "os.system",
        "transformers.pipeline",
        "my.ends",
    ],
)
def test_rows_name_no_functions_of_other_modules(mine, name):
    """Neither what a module has imported, nor what is installed."""
    with restricted(["my_verifiers"]), pytest.raises(VerifierError, match="is none of this package's: if you know"):
        check_verifier({"name": name, "command": "true"})


def test_nothing_is_let_in_unasked(mine):
    own, wanted = {"name": "my_verifiers.ends"}, "--allow my_verifiers, a module that defines it; in Python, add it to"
    with pytest.raises(VerifierError, match=wanted):
        check_verifier(own)
    with restricted([]), pytest.raises(VerifierError, match=wanted):
        check_verifier(own)
    assert "my_verifiers" not in sys.modules
    with restricted(["my_modules"]), pytest.raises(VerifierError, match="must be of a module that can be imported: No"):
        check_verifier({"name": "my_modules.ends"})
