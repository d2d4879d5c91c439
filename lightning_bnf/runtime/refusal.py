"""The one exception that refuses an input, and the border around libraries that read one."""

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 300  # characters of a library's reason


class Refusal(ValueError):
    """An input that is refused; the message says which argument, or file and line, its value, and what is accepted:
    `beta must be > 0, got -1`. The command line prints it without a traceback, and so do notebooks; any other
    ValueError is a bug.
    """

    def _render_traceback_(self) -> list[str]:
        """What IPython asks an exception for in place of the lines of its traceback."""
        return [f"{type(self).__name__}: {self}"]


@contextmanager
def refusing(sentence: str, kind: type[Refusal] = Refusal) -> Iterator[None]:
    """Around a library's call that reads what others wrote: whatever it raises becomes a refusal of this `sentence`,
    with the library's own reason behind it.

    A broken file makes libraries raise anything from KeyError to exceptions of their own, and other ones with every
    version; so none is listed. Memory that runs out says nothing about the file and stays what it is.
    """
    try:
        yield
    except Refusal:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's own
            raise
        raise kind(f"{sentence} ({reason_of(error)})") from error


def reason_of(error: BaseException) -> str:
    """An exception's kind and what it says, on one line of a few hundred characters."""
    line = " ".join(str(error).split())
    cut = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} ..."
    return f"{type(error).__name__}: {cut}" if cut else type(error).__name__
