"""Work in other processes: in its order, a bounded part of it at once, and gone when this one is."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from support.pooled import Telling, refusing, run_script

from lightning_bnf.datamodules.reading.errors import Unfit
from lightning_bnf.runtime import pools
from lightning_bnf.runtime.pools import MOST, in_order, processes_for


@pytest.mark.parametrize(("processes", "read"), [(1, 1), (2, 5)])
def test_what_is_made_comes_in_order_and_little_is_read_ahead(tmp_path: Path, processes: int, read: int) -> None:
    taken: list[int] = []

    def pieces() -> Iterator[int]:
        for number in range(12):
            taken.append(number)
            yield number

    made = in_order(Telling(str(tmp_path)), pieces(), processes)
    assert next(made) == 0
    assert len(taken) == read, "two for each process, and one in place of the one that is made"
    assert list(made) == [number**2 for number in range(1, 12)]
    ids = {path.name for path in tmp_path.iterdir()}
    assert (ids == {str(os.getpid())}) == (processes == 1)
    assert len(ids) <= processes


def test_what_is_raised_there_is_raised_here() -> None:
    made = in_order(refusing, [1, 3, 4], 2)
    assert next(made) == 1
    with pytest.raises(Unfit, match="no 3") as raised:
        next(made)
    assert raised.value.rule == "a rule"


def test_a_process_that_ends_is_noticed() -> None:
    with pytest.raises(RuntimeError, match=r"one of 2 processes ended before its work was done.* with .*\b9\b"):
        list(in_order(refusing, [5, 5], 2))


def test_a_process_that_is_gone_before_the_first_pieces_are_sent_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise BrokenProcessPool("a child process terminated abruptly")

    monkeypatch.setattr(pools, "_submit", gone)
    with pytest.raises(RuntimeError, match="one of 2 processes ended before its work was done"):
        list(in_order(refusing, [1, 1], 2))


def test_a_script_without_a_guard_runs_once(tmp_path: Path) -> None:
    words, given = run_script(tmp_path)
    assert subprocess.check_output(words, text=True, **given) == "begun\n0 1 4 9\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_none_is_left_where_the_first_process_is_told_to_end(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches all of them, the others that one alone."""
    words, given = run_script(tmp_path, waits=True)
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, **given)
    wait_for(lambda: len([*tmp_path.glob("[0-9]*")]) == 2)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    if number == signal.SIGINT:
        (tmp_path / "go").touch()  # what is under way is waited for
    _, told = process.communicate()
    assert process.returncode == -number
    assert told.count("Traceback") == (number == signal.SIGINT), "of the first process alone"
    others = [int(path.name) for path in tmp_path.glob("[0-9]*")]
    wait_for(lambda: not any(map(alive, others)))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def alive(process: int) -> bool:
    """Whether it is there, and not only waits for somebody to ask how it ended."""
    state = Path(f"/proc/{process}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, ranks, number in ((1, 1, 1), (4, 1, 4), (64, 1, MOST), (64, 8, 8), (8, 4, 2), (8, 16, 1)):
        monkeypatch.setattr(pools, "cores", lambda cores=cores: cores)
        assert processes_for("auto", ranks) == number
        assert processes_for(3, ranks) == 3
    monkeypatch.setattr(pools.multiprocessing.current_process(), "_config", {"daemon": True})
    assert processes_for(3) == 1, "it may have no children"
