"""From a prompt's scored completions to a pair and to unpaired rows.

Only completions that ended by themselves become rows: a cut-off one, stored as text, would get an end of turn that the
model never wrote. It still counts as failed in the pass rates. Of completions with the same text one is kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bnf.generation.sampling import Generated


@dataclass(frozen=True)
class Scored:
    """A completion and its score. A verifier's is in [0, 1]; at 1.0 a completion that ended by itself passes."""

    text: str
    length: int
    finished: bool
    score: float

    @property
    def passed(self) -> bool:
        return self.finished and self.score == 1.0


def scored(completion: Generated, score: float) -> Scored:
    """A completion with its score; it passes at 1.0, if it ended by itself."""
    return Scored(completion.text, completion.length, completion.finished, score)


def usable(completions: Sequence[Scored]) -> list[Scored]:
    """The completions that may become rows, in order: ended, not empty, decodable, the first of each text."""
    kept: dict[str, Scored] = {}
    for one in completions:
        if one.finished and one.text.strip() and "\ufffd" not in one.text:
            kept.setdefault(one.text.strip(), one)
    return list(kept.values())


def pick_pair(completions: Sequence[Scored]) -> tuple[Scored, Scored] | None:
    """The best and the worst: a chosen one that passes and the rejected one with the lowest score; None without both.

    Among equals the two closest in length (tokens) are taken, so that a pair's lengths say little about which is
    better; then the shortest, then the first in alphabetical order.
    """
    rows = usable(completions)
    best = [one for one in rows if one.passed]
    failed = [one for one in rows if not one.passed]
    if not best or not failed:
        return None
    lowest = min(one.score for one in failed)
    worst = [one for one in failed if one.score == lowest]
    return closest(best, worst)


def pick_extremes(completions: Sequence[Scored]) -> tuple[Scored, Scored] | None:
    """The completion with the highest and the one with the lowest score (BNF paper, Section 4); None if all are equal.

    Among equals as in `pick_pair`.
    """
    rows = usable(completions)
    scores = [one.score for one in rows]
    if not rows or min(scores) == max(scores):
        return None
    return closest([one for one in rows if one.score == max(scores)], [one for one in rows if one.score == min(scores)])


def closest(best: Sequence[Scored], worst: Sequence[Scored]) -> tuple[Scored, Scored]:
    """One of each, the two closest in length (tokens); then the shortest, then the first in alphabetical order."""
    return min(
        ((chosen, rejected) for chosen in best for rejected in worst),
        key=lambda pair: (abs(pair[0].length - pair[1].length), pair[0].length, pair[0].text, pair[1].text),
    )


def pick_unpaired(completions: Sequence[Scored]) -> list[Scored]:
    """At most one passing and one failing completion: the pair's two if there is a pair, else the first usable one."""
    pair = pick_pair(completions)
    return list(pair) if pair else usable(completions)[:1]
