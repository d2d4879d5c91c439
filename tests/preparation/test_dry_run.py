"""The whole by the rates of some prompts, with numbers that are checked by hand."""

import json
from collections.abc import Callable
from pathlib import Path

from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.generation.server import Server
from lightning_bnf.preparation.dry_run import Trial, dry_run, fewest
from lightning_bnf.preparation.engines import Engine
from lightning_bnf.runtime.jsonl import JsonlStore

ALL = 100_000


def ticking(*seconds: float) -> Trial:
    times = iter(seconds)
    return Trial(few=2, clock=lambda: next(times))


def table(text: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    return {name: cells for name, *cells in lines}


def make(lines: dict[str, dict[str, object]]) -> Callable[[Path, Path, Trial], None]:
    def prepared(output: Path, work_file: Path, trial: Trial) -> None:
        assert trial.of(range(ALL)) == [0, ALL // 2]
        for part in ("trying the scorer out", "sampling", "scoring"):
            with trial.timed(part):
                pass
        JsonlStore(work_file).add(lines)
        output.mkdir()
        (output / "train_pairs.jsonl").write_text(json.dumps({"prompt": "x" * 34}) + "\n")

    return prepared


def test_five_hundred_thousand_completions_by_the_rate_of_ten() -> None:
    """Two prompts of 100,000: 50,000 times as much. 10 completions of 3 tokens in 0.9 s are 500,000 in 12.5 hours; the
    scorer takes 4 s, of which 2.2 to be loaded: 1.8 s are 25 hours. 49 bytes of a pair are 2.45 MB."""
    rows = [[{"text": "a", "length": 3, "finished": True}] * 5] * 2
    trial = ticking(0, 2.2, 10, 20, 30, 34)
    found = table(dry_run(make({"k": {"job": "samples", "seconds": 0.9, "completions": rows}}), trial))
    assert found["prompts"] == ["2", "100,000"]
    assert found["completions"] == ["10", "500,000"]
    assert found["their tokens"] == ["30", "1,500,000"]
    assert found["pairs"] == ["1", "50,000"]
    assert found["sampling"] == ["0.90 s", "12.5 hours"]
    assert found["scoring"] == ["1.80 s", "25.0 hours"]
    assert found["disk, finished files"] == ["0.00 MB", "0.002 GB"]


def test_a_servers_requests_overlap_so_that_the_clock_counts() -> None:
    """10 s for two prompts, 138.9 hours for all; a line is one completion, as of a server that takes messages."""
    one = {"job": "samples", "completions": [{"text": "a", "length": 3, "finished": True}]}
    found = table(dry_run(make({"k": one, "l": one}), ticking(0, 0, 10, 20, 30, 30)))
    assert found["completions"] == ["2", "100,000"]
    assert found["sampling"] == ["10 s", "138.9 hours"]


def test_how_many_are_tried() -> None:
    """A batch of 320 completions is 64 prompts of 5; two servers with 8 requests each are kept at work four times."""
    assert fewest(Engine(), Sampling(1.0, samples=5, batch_size=320)) == 64
    assert fewest(Engine(), Sampling(1.0, samples=5, batch_size=5)) == 16
    servers = Engine(Server("http://127.0.0.1:9/v1", "m", at_once=8), more_urls=("http://127.0.0.1:8/v1",))
    assert fewest(servers, Sampling(1.0)) == 64
