"""Best and worst of a prompt's completions, by hand."""

from lightning_bnf.preparation.pick import Scored, pick_pair, pick_unpaired, usable


def good(text: str, length: int = 5, finished: bool = True) -> Scored:
    return Scored(text, length, finished, 1.0)


def bad(text: str, score: float = 0.0, length: int = 5, finished: bool = True) -> Scored:
    return Scored(text, length, finished, score)


def test_a_cut_off_completion_fails_and_is_no_row():
    cut = good("right so far", finished=False)
    assert not cut.passed
    assert usable([cut, good("right")]) == [good("right")]
    assert pick_pair([cut, bad("wrong")]) is None
    assert pick_pair([good("right"), bad("wrong", finished=False)]) is None


def test_empty_undecodable_and_repeated_texts_are_dropped():
    assert usable([bad(" \n"), bad("\ufffd?"), good("a"), good(" a "), bad("b")]) == [good("a"), bad("b")]


def test_no_pair_without_both():
    assert pick_pair([good("a"), good("b")]) is None
    assert pick_pair([bad("a"), bad("b", 0.9)]) is None
    assert pick_pair([]) is None


def test_the_lowest_score_is_rejected():
    assert pick_pair([bad("near", 0.9), bad("far", 0.1), good("yes")]) == (good("yes"), bad("far", 0.1))


def test_among_equals_the_closest_in_length_then_short_then_alphabetical():
    """Distances: (5, 9) 4, (5, 3) 2, (8, 9) 1, (8, 3) 5."""
    rows = [good("a", 5), good("b", 8), bad("c", 0.0, 9), bad("d", 0.0, 3)]
    assert pick_pair(rows) == (good("b", 8), bad("c", 0.0, 9))
    assert pick_pair(rows[::-1]) == pick_pair(rows)
    same = [good("z", 5), good("y", 5), bad("x", 0.0, 5), bad("w", 0.0, 5), good("long", 7), bad("longer", 0.0, 7)]
    assert pick_pair(same) == (good("y", 5), bad("w", 0.0, 5))


def test_unpaired_rows_are_the_pair_or_one_completion():
    assert pick_unpaired([bad("no"), good("yes"), good("also")]) == [*pick_pair([bad("no"), good("yes"), good("also")])]
    assert pick_unpaired([good("yes"), good("also")]) == [good("yes")]
    assert pick_unpaired([bad("no"), bad("nor")]) == [bad("no")]
    assert pick_unpaired([bad("no", finished=False)]) == []
