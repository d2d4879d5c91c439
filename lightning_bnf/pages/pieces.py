"""The text of each token, so that the texts joined are the text of all."""

from collections.abc import Callable, Sequence
from functools import lru_cache

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_BEFORE = 4  # tokens decoded in front of a new one: whether it begins with a space depends on them


class Pieces:
    """Cuts decoded texts into what each token adds; `decode`: token ids -> text."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._alone = lru_cache(maxsize=None)(lambda token: decode([token]))

    def of(self, ids: Sequence[int]) -> list[str]:
        """A text for each token. Bytes of a character that is not whole yet add nothing: the token that completes it
        has all of it."""
        alone = [self._alone(token) for token in ids]
        return alone if "".join(alone) == self._decode(ids) else self._in_turn(ids)

    def _in_turn(self, ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        done = 0  # tokens whose text is out
        for end in range(1, len(ids) + 1):
            first = max(0, done - _BEFORE)
            before = self._decode(ids[first:done]) if done > first else ""
            text = self._decode(ids[first:end])
            whole = not text.endswith(_UNFINISHED) or end == len(ids) or end - done >= _BEFORE
            pieces.append((text.removeprefix(before)) if whole else "")
            done = end if whole else done
        return pieces
