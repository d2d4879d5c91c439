"""Signs of life without a terminal, by a clock that is given."""

from typing import Any

import pytest
from support.clock import Clock

from lightning_bnf.runtime.progress import Progress, lasting, watched


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (60, "1.0 min"), (246, "4.1 min"), (11520, "3.2 hours")]
)
def test_times_as_a_person_says_them(seconds: float, words: str) -> None:
    assert lasting(seconds) == words


def test_a_line_at_the_start_every_30_seconds_and_at_the_end() -> None:
    """Ten units in 20 s each: lines after 40, 80, ... seconds, the first update at which 30 have passed."""
    clock, lines = Clock(), []
    with Progress(10, "Answers", "answer", clock=clock, bar=False, write=lines.append) as progress:
        assert lines == ["Answers: 0 of 10 answers"]
        for _ in range(10):
            clock.now += 20
            progress.update()
    assert lines[1:] == [
        "Answers: 2 of 10 answers, 40 s; 2.7 min left",
        "Answers: 4 of 10 answers, 1.3 min; 2.0 min left",
        "Answers: 6 of 10 answers, 2.0 min; 1.3 min left",
        "Answers: 8 of 10 answers, 2.7 min; 40 s left",
        "Answers: 10 of 10 answers, in 3.3 min",
    ]


def test_what_is_soon_done_stays_silent_where_a_delay_is_given() -> None:
    clock, lines = Clock(), []
    with Progress(2, "Reading", "row", delay=5, clock=clock, bar=False, write=lines.append) as progress:
        clock.now += 4
        progress.update(2)
    assert lines == []
    with Progress(4, "Reading", "row", delay=5, clock=clock, bar=False, write=lines.append) as progress:
        clock.now += 6
        progress.update(2)
    assert lines == ["Reading: 2 of 4 rows, 6 s; 6 s left", "Reading: 2 of 4 rows, in 6 s"]


def test_work_that_was_done_before_counts_but_not_for_the_time_left() -> None:
    """90 of 100 were there; 5 more took 40 s, so the other 5 take as long. Two of them turn out not to be needed."""
    clock, lines = Clock(), []
    quiet: dict[str, Any] = {"clock": clock, "bar": False, "write": lines.append}
    progress = Progress(102, "Scores", "batch", plural="batches", initial=90, **quiet)
    progress.skip(2)
    progress.rename("More scores")
    clock.now += 40
    progress.update(5)
    assert lines == ["Scores: 90 of 102 batches", "More scores: 95 of 100 batches, 40 s; 40 s left"]


def test_no_name_or_the_environment_silences_it(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    with Progress(1, None, bar=False, write=lines.append) as progress:
        progress.update()
    with Progress(1, "Answers", shown=False, bar=False, write=lines.append):
        pass
    monkeypatch.setenv("TQDM_DISABLE", "1")
    with Progress(1, "Answers", bar=False, write=lines.append):
        pass
    assert lines == []


def test_a_bar_where_somebody_watches(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(4, "Answers", "answer", bar=True) as progress:
        progress.update(3)
        progress.rename("Others")
    shown = capsys.readouterr().err
    assert "Answers:   0%|" in shown
    assert "| 3/4 [" in shown
    assert not watched(), "standard error is no terminal here"
