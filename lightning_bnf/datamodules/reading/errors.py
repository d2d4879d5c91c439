"""Faults in the data: one exception, one way to say where a fault is, and a collector that names the first few."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

from lightning_bnf.runtime.refusal import Refusal

_SHOWN = 5  # faults listed in one message; the rest is counted
_WORDS = 20  # unknown words listed in one message
_NAMED = 3  # places that a report names
_LONGEST = 300  # characters of a library's, or a template's, words


class DataError(Refusal):
    """Data that cannot be used. The message names file and line, column and value, and what is accepted."""


class Fault(Refusal):
    """One row's fault, in a sentence that does not know the file and the line yet."""


class UnknownWord(Fault):
    """A word that a column does not know. Thousands of a file's rows may hold it: each word is named once.

    accepted: the sentence that says what is; word: what stands there
    """

    def __init__(self, accepted: str, word: str):
        super().__init__(f"{accepted}, got {word}")
        self.accepted, self.word = accepted, word

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """How it comes out of the process that reads the row."""
        return type(self), (self.accepted, self.word)


EMPTY = "an empty or blank text"
UNLABELLED = "without a label"
ALIKE = "chosen and rejected are the same answer"


class Unfit(Fault):
    """A row that is well-formed but cannot be trained on: it is dropped, and counted under `rule`."""

    def __init__(self, rule: str, sentence: str):
        super().__init__(sentence)
        self.rule = rule

    def __reduce__(self) -> tuple[type[Self], tuple[str, str]]:
        """How it comes out of the process that reads the row."""
        return type(self), (self.rule, str(self))


@contextmanager
def border(sentence: str) -> Iterator[None]:
    """Around what reads files that others wrote, libraries above all: whatever is raised there becomes a `DataError`
    of `sentence`, such as `rows.parquet: must be data that can be read`, and of what went wrong."""
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        raise DataError(f"{sentence}, got {reason(error)}") from error


def reason(error: Exception) -> str:
    """What went wrong, in a line."""
    told = cut(str(error).strip().split("\n")[0] if not isinstance(error, KeyError) else f"no {error}")
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


def cut(text: str) -> str:
    """What others say, on one line of a few hundred characters."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."


def some_of(places: Sequence[str]) -> str:
    """The first few places and the count of the others: `train.jsonl:3, train.jsonl:7, train.jsonl:9 and 12 more`."""
    more = f" and {len(places) - _NAMED:,} more" if len(places) > _NAMED else ""
    return ", ".join(places[:_NAMED]) + more


class Faults:
    """Collects the faults of a file, so that one run names several of them and their count."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[str] = []
        self._words: dict[str, dict[str, str]] = {}  # by what is accepted: unknown words, with their first places

    def add(self, place: str, sentence: object) -> None:
        """`place` is where the fault is, e.g. `train.jsonl:17`."""
        self.count += 1
        if isinstance(sentence, UnknownWord):
            self._words.setdefault(sentence.accepted, {}).setdefault(sentence.word, place)
        elif len(self._shown) < _SHOWN:
            self._shown.append(f"{place}: {sentence}")

    def extend(self, others: "Faults") -> None:
        """Those of the rows that follow."""
        self.count += others.count
        self._shown = [*self._shown, *others._shown][:_SHOWN]
        for accepted, words in others._words.items():
            held = self._words.setdefault(accepted, {})
            held |= words | held  # what stands first keeps its place

    def raise_if_any(self) -> None:
        if not self.count:
            return
        lines = [*(_listed(accepted, words) for accepted, words in self._words.items()), *self._shown]
        which = "each unknown word is named once" if self._words else f"the first {_SHOWN} are shown"
        more = f"\n({self.count} faulty rows in all, {which})" if self.count > len(lines) else ""
        raise DataError("\n".join(lines) + more)


def _listed(accepted: str, words: Mapping[str, str]) -> str:
    (first, place), *others = words.items()
    named = [first, *(f"{word} (at {at})" for word, at in others[: _WORDS - 1])]
    more = f" and {len(words) - _WORDS:,} more words" if len(words) > _WORDS else ""
    return f"{place}: {accepted}, got {', '.join(named)}{more}"


def shorten(value: object, limit: int = 80) -> str:
    """`value` as Python would write it, at most `limit` characters."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):  # nested too deep, or a number of more digits than Python writes
        text = f"a {type(value).__name__} too large to be shown"
    return text if len(text) <= limit else text[: limit - 4] + " ..."


def nearest(name: str, names: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The one of `names` that `name` is probably a misspelling of (0 to 1: `cutoff` is how alike they must be)."""
    by_lower = {known.lower(): known for known in names}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None
