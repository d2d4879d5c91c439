"""What long work says of itself: a bar where somebody watches, else a line now and then."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any, Self

SECONDS = 30.0
"""Between two lines of what no terminal shows, such as a log file."""


def watched() -> bool:
    """Whether standard error is a terminal, or a notebook shows it: there a bar can be redrawn in its place."""
    return bool(sys.stderr.isatty()) or "IPKernelApp" in _notebook_config()


def _notebook_config() -> Any:
    shell = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None and hasattr(shell, "get_ipython") else None
    return running.config if running is not None else {}


def say(line: str) -> None:
    """A line on standard error at once, where warnings and bars are: what a command prints can then be piped."""
    print(line, file=sys.stderr, flush=True)


def lasting(seconds: float) -> str:
    """A time as a person says it: `12 s`, `4.1 min`, `3.2 hours`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} hours"


class Progress:
    """Work of `total` units, `with Progress(320, "Answers", "answer") as progress: progress.update(8)`.

    On a terminal and in notebooks tqdm's bar. Elsewhere a line when it begins, every 30 seconds, and when it is done.
    The environment variable TQDM_DISABLE=1 makes it silent.
    """

    def __init__(
        self,
        total: int,
        name: str | None,
        unit: str = "",
        *,
        plural: str | None = None,
        initial: int = 0,
        delay: float = 0.0,
        shown: bool = True,
        clock: Callable[[], float] = time.monotonic,
        bar: bool | None = None,
        write: Callable[[str], None] = say,
    ):
        """
        Args:
            total: Units of the whole work.
            name: What is done; None is silent.
            unit: What is counted, in the singular.
            plural: Of it; None adds an s.
            initial: Units that were done before.
            delay: Seconds in which nothing is said: work that is done by then stays silent.
            shown: Whether anything is said at all, such as on the first rank alone.
            clock: Seconds, for tests.
            bar: Whether to draw a bar; None asks whether somebody watches.
            write: Takes a line.
        """
        self.total, self.done, self.name = total, initial, name or ""
        self.units = plural or f"{unit}s"
        self.delay, self.clock, self.write = delay, clock, write
        self.shown = shown and name is not None and os.environ.get("TQDM_DISABLE", "") in ("", "0", "False")
        self._initial, self.started = initial, clock()
        self._last: float | None = None
        self._bar: Any = None
        if self.shown and (watched() if bar is None else bar):
            from tqdm.auto import tqdm  # late: in notebooks it brings widgets

            self._bar = tqdm(total=total, initial=initial, desc=self.name, unit=unit, delay=delay, smoothing=0.1)
        elif self.shown and not delay:
            self._line(f"{initial} of {total} {self.units}")

    def update(self, count: int = 1) -> None:
        """So many more units are done."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self.shown and self.done < self.total:
            now = self.clock()
            since = now - (self.started if self._last is None else self._last)
            if now - self.started >= self.delay and since >= (self.delay if self._last is None else SECONDS):
                self._line(f"{self.done} of {self.total} {self.units}, {self._times(now)}")

    def skip(self, count: int) -> None:
        """So many units need not be done: the time left counts the others."""
        self.total -= count
        if self._bar is not None and self._bar.total is not None:
            self._bar.total -= count

    def rename(self, name: str) -> None:
        """What is done from now on."""
        self.name = name
        if self._bar is not None:
            self._bar.set_description(name)

    def _times(self, now: float) -> str:
        passed, done = now - self.started, self.done - self._initial
        left = f"; {lasting(passed / done * (self.total - self.done))} left" if done else ""
        return f"{lasting(passed)}{left}"

    def _line(self, text: str) -> None:
        self._last = self.clock()
        self.write(f"{self.name}: {text}")

    def close(self) -> None:
        """The end, of all of the work or in its middle."""
        if self._bar is not None:
            self._bar.close()
        elif self._last is not None:
            self._line(f"{self.done} of {self.total} {self.units}, in {lasting(self.clock() - self.started)}")
            self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
