"""Requests over several servers of one model: each is made where there is room, and a server that goes away is waited
for."""

import threading
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import TypeVar

from lightning_bnf.generation.server import Server, Unreachable
from lightning_bnf.runtime.progress import say

Result = TypeVar("Result")
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between two looks whether a server is back: doubled each time


class _Place:
    """Room for a request at a server; how long the server has been away, and how long it is left alone next."""

    def __init__(self, server: Server):
        self.server = server
        self.rest()

    def rest(self) -> None:
        self.away, self.pause = 0.0, PAUSE


class ServerPool:
    """Servers of one model, with room for `at_once` requests at each; made to be asked from as many threads.

    A server that cannot be reached gives its request to whichever has room first, and is looked for again until it was
    away for `patience` seconds; one that has never answered is a mistake, and not waited for.
    """

    def __init__(self, servers: Sequence[Server], patience: float):
        self.patience = patience
        self.workers = sum(server.at_once for server in servers)
        self._free: SimpleQueue[_Place] = SimpleQueue()
        self._answered: set[str] = set()
        self._away: set[str] = set()  # addresses, so that it is said once for all places of a server
        self._saying = threading.Lock()
        self._failed = threading.Event()
        for turn in range(max(server.at_once for server in servers)):  # in turn, so that all begin at once
            for server in servers:
                if turn < server.at_once:
                    self._free.put(_Place(server))

    def run(self, work: Callable[[Server], Result]) -> Result:
        """What `work` gives at a server with room. Raises what it raises; `Unreachable` when patience is over."""
        while True:
            place = self._free.get()
            try:
                found = work(place.server)
            except Unreachable as error:
                if self._over(place):
                    self._failed.set()
                    raise
                self._leave_alone(place, error)
            except BaseException:
                self._failed.set()
                raise
            else:
                self._answered.add(place.server.base_url)
                self._away.discard(place.server.base_url)
                place.rest()
                return found
            finally:
                self._free.put(place)

    def _over(self, place: _Place) -> bool:
        answered = place.server.base_url in self._answered
        return not answered or place.away >= self.patience or self._failed.is_set()

    def _leave_alone(self, place: _Place, error: Unreachable) -> None:
        with self._saying:
            if place.server.base_url not in self._away:
                self._away.add(place.server.base_url)
                say(f"{place.server.base_url} is away ({error}); looked for again for {self.patience:g} s")
        started = time.monotonic()
        self._failed.wait(place.pause)
        place.away += max(time.monotonic() - started, 0.001)
        place.pause = min(2 * place.pause, LONGEST_PAUSE)
