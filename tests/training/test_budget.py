"""The budget of a micro-batch for a model whose memory and time are made up, and that ranks find it together."""

import random
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import free_port
from support.architectures import row
from support.collectives import two_searches
from support.fitted import ROWS, smallest
from support.forked import run_ranks

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PADDED, layout_for
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.policies import FullPolicy
from lightning_bnf.training import budget as searching
from lightning_bnf.training.budget import Dry, DrySteps, choose_budget, fixed_cost, search


@pytest.fixture
def policy() -> FullPolicy:
    return smallest()


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch, policy: FullPolicy) -> Callable[..., tuple[int, list[int]]]:
    """(free bytes beside the optimizer's, bytes that n tokens take) -> the budget and the sizes that were tried."""

    def choose(
        free: float, bytes_of: Callable[[int], float], most: int = 10**6, step_rows: int = 16
    ) -> tuple[int, list[int]]:
        tried: list[int] = []
        state = 5_000

        def peak(run: Callable[[], None], device: torch.device) -> float:
            run()
            return bytes_of(tried[-1])

        monkeypatch.setattr(policy, "dry_step", lambda batch, _: tried.append(batch.inputs["input_ids"].numel()))
        monkeypatch.setattr(searching, "taken_bytes", lambda _: 0)
        monkeypatch.setattr(searching, "available_bytes", lambda _: (free + state) / searching.SHARE_OF_FREE)
        monkeypatch.setattr(searching, "peak_bytes", peak)
        monkeypatch.setattr(searching, "MOST_TOKENS", {"cpu": most})
        found = choose_budget(DrySteps(policy, ROWS, PADDED, (1, -1), True), step_rows, state)
        assert found.call_tokens == 64
        return found.max_tokens, tried

    return choose


def test_the_budget_is_what_an_affine_peak_leaves(budget: Any) -> None:
    """1000 + 10 a token: 256 tokens take 3,560 and 512 take 6,120. 14,000 are free: 1,300 tokens, in 64s 1,280."""
    assert budget(14_000, lambda tokens: 1000 + 10 * tokens) == (1280, [256, 512, 1280])


def test_the_micro_batch_of_most_keys_is_tried_too(monkeypatch: pytest.MonkeyPatch, policy: FullPolicy) -> None:
    """Rows of 57 and of 3 tokens beside the 15 that all begin with: a step of the short ones repeats these most."""
    ids = [5] * 13 + [6]
    rows = [row(f"l{i}", [*ids, 7, i], ([8] * 28, 1), ([9] * 28, -1)) for i in range(8)]
    rows += [row(f"s{i}", [*ids, 7, i], ([8], 1), ([9], -1)) for i in range(40)]
    layout = layout_for("packed_shared", rows)
    assert layout.common == 15
    tried: list[tuple[int, int]] = []

    def step(batch: Any, _: bool) -> None:
        tried.append((batch.inputs["input_ids"].numel(), len(batch.sequences.keys)))

    monkeypatch.setattr(policy, "dry_step", step)
    monkeypatch.setattr(searching, "taken_bytes", lambda _: 0)
    monkeypatch.setattr(searching, "available_bytes", lambda _: 10**9)
    monkeypatch.setattr(searching, "peak_bytes", lambda run, _: (run(), tried[-1][1])[1])
    found = choose_budget(DrySteps(policy, rows, layout, (1, -1), True), 48, 0)
    assert found.max_tokens == 640, "all rows of a step: 15 + 8 x 57 + 40 x 3, in 64s"
    sizes, keys = zip(*tried)
    assert max(sizes) <= found.max_tokens
    plan = StepPlan(layout.lengths_of(rows, (1, -1)), 48, found.max_tokens, None, packed=True, common=layout.common)
    made = [layout.batch([rows[i] for i in batch], (1, -1)) for batch in plan.micro_batches(0, 0)]
    assert max(len(one.sequences.keys) for one in made) <= max(keys)  # type: ignore[union-attr]


def test_a_peak_that_bends_is_met_by_smaller_budgets(budget: Any) -> None:
    """n^2 / 100: 655 and 2,621, so the line promises 256 + (8,000 - 655) / 7.68 = 1,212, in 64s 1,152; its batch of
    four rows takes 10,486, more than the 8,000 that are free. Three quarters, 864, hold three rows: 5,898."""
    assert budget(8_000, lambda tokens: tokens**2 / 100) == (864, [256, 512, 1024, 768])


def test_no_more_than_the_data_hold_or_the_device_makes_use_of(budget: Any) -> None:
    assert budget(1e12, lambda tokens: 10 * tokens)[0] == 4096
    assert budget(1e12, lambda tokens: 10 * tokens, most=2048)[0] == 2048


def test_no_more_than_a_step_asks_for(budget: Any) -> None:
    """Three rows of 256 tokens: dry steps on more would take memory that the run itself never takes."""
    assert budget(1e12, lambda tokens: 10 * tokens, step_rows=3) == (768, [256, 512, 768])


def test_a_longest_row_that_does_not_fit_is_refused(budget: Any) -> None:
    with pytest.raises(DataError, match=r"the 1\.0 GB that are free .* got 256 tokens that take 2\.6 GB"):
        budget(1e9, lambda tokens: 1e7 * tokens)


def test_a_dry_step_changes_nothing(policy: FullPolicy) -> None:
    before = {name: value.clone() for name, value in policy.trainable().items()}
    for token_loss in (True, False):
        policy.dry_step(PADDED.batch(ROWS[:2], (1, -1)), token_loss)
        for name, parameter in policy.trainable().items():
            assert parameter.grad is None
            torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def test_memory_that_runs_out_is_a_measurement(budget: Any, policy: FullPolicy) -> None:
    """Of 512 tokens on there is none: the longest row alone. Or 30,000 bytes promise 2,944 tokens, but 2,000 is the
    most; three quarters of three quarters are 1,656."""

    def up_to(most: int) -> Callable[[int], float]:
        def bytes_of(tokens: int) -> float:
            if tokens > most:
                next(policy.causal_lm.parameters()).grad = torch.ones(10, 8)
                raise torch.OutOfMemoryError("CUDA out of memory")
            return 10 * tokens

        return bytes_of

    assert budget(1e6, up_to(300)) == (256, [256, 512])
    assert budget(30_000, up_to(2000)) == (1656, [256, 512, 2816, 2048, 1536])
    assert next(policy.causal_lm.parameters()).grad is None
    with pytest.raises(DataError, match=r"got 256 tokens that take more than there is; a smaller max_length"):
        budget(1e6, up_to(200))


def test_where_memory_may_not_run_out_no_step_is_taken_that_could() -> None:
    tried: list[int] = []

    def peak(tokens: int) -> float:
        tried.append(tokens)
        return 10 * tokens

    assert search(peak, 256, 4096, 5_000, careful=True) == (256, 2560)
    assert search(peak, 256, 4096, 5_120, careful=True) == (512, 5120)
    assert tried == [256, 256, 512, 512]


@pytest.mark.parametrize(
    ("few", "many", "cost"),
    [
        (Dry(0, 1.0, 200), Dry(0, 2.0, 1200), 1024),  # a millisecond a token, and 0.8 seconds beside them
        (Dry(0, 0.2, 200), Dry(0, 1.2, 1200), 64),  # nothing beside them
        (Dry(0, 1.0, 200), Dry(0, 1.001, 1200), 8192),  # hardly anything but what a launch costs
        (Dry(0, 1.0, 200), Dry(0, 0.9, 1200), 333),  # the clock tells nothing
        (Dry(0, 1.0, 200), Dry(0, 2.0, 300), 333),  # nor do two that are alike
    ],
)
def test_what_a_micro_batch_costs_is_read_off_two_dry_steps(few: Dry, many: Dry, cost: int) -> None:
    assert fixed_cost(few, many, 333) == cost


class Ranks:
    """Threads that stand for ranks: `gather` gives each the values of all; one that waits alone fails after a while."""

    def __init__(self, count: int):
        self.values: list[Any] = [None] * count
        self.meeting = threading.Barrier(count, timeout=300)
        self.own = threading.local()

    def gather(self, value: Any) -> list[Any]:
        self.values[self.own.rank] = value
        self.meeting.wait()
        found = list(self.values)
        self.meeting.wait()
        return found

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        found: list[Any] = [None] * len(self.values)

        def rank(number: int) -> None:
            self.own.rank = number
            try:
                found[number] = work(number)
            except DataError as error:
                found[number] = str(error)

        threads = [threading.Thread(target=rank, args=(number,)) for number in range(len(found))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return found


def test_ranks_that_measure_otherwise_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """100 seeds: 10 % of noise on what each rank measures of memory and time, on a GPU's path."""
    ranks, ends = Ranks(2), set()
    monkeypatch.setattr(searching, "gather_objects", ranks.gather)
    for seed in range(100):
        draws = [random.Random(f"{seed}/{rank}") for rank in range(2)]
        tried: list[list[int]] = [[], []]

        def noisy(value: float, draws: list[random.Random] = draws) -> float:
            return value * draws[ranks.own.rank].uniform(0.9, 1.1)

        class Made(DrySteps):
            device = torch.device("cuda")  # type: ignore[assignment]

            def on(self, chosen: Any, tried: list[list[int]] = tried, noisy: Any = noisy) -> Dry:
                tokens = 256 * len(chosen)
                tried[ranks.own.rank].append(tokens)
                measured = noisy(1e6 * tokens), noisy(0.5 + tokens / 1e4)
                bytes, seconds = (max(each) for each in zip(*ranks.gather(measured)))
                return Dry(bytes, seconds, tokens)

        monkeypatch.setattr(searching, "available_bytes", lambda _, noisy=noisy: noisy(2.0e9))
        monkeypatch.setattr(searching, "is_sharded", lambda _, seed=seed: seed % 2 == 0)
        policy: Any = None
        found = ranks.run(lambda _: choose_budget(Made(policy, ROWS, PADDED, (1, -1), True), 16, 0))  # noqa: B023
        assert found[0] == found[1], seed
        assert tried[0] == tried[1], seed
        ends.add(found[0])
    assert len(ends) > 3, "the noise changes what is found"


@pytest.mark.slow
def test_ranks_search_together(tmp_path: Path, tiny_folder: str, write_pairs: Any) -> None:
    """First where a GPU's group is the only one, which takes no tensor of the CPU. Then under FSDP2, where one rank
    alone finds the third dry step to be above what is free; in the end each trains its own part."""
    run_ranks(two_searches, (free_port(), tiny_folder, write_pairs(rows=17), str(tmp_path)), 2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    assert first["refused"].startswith("No backend type associated with device type cpu")
    assert first["calls"] == second["calls"]
    assert sum(call.startswith(("all_gather_single", "all_gather_into")) for call in first["calls"]) > 20
    assert (first["budget"], first["tried"]) == (second["budget"], second["tried"])
    assert len(first["tried"]) >= 4, "one budget was given up"
    for found in (first, second):
        assert found["types"] == ["torch.float32 sharded"], "after passes without gradients too"


def test_a_dry_step_is_timed_when_the_device_is_done(monkeypatch: pytest.MonkeyPatch, policy: FullPolicy) -> None:
    events: list[str] = []

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    monkeypatch.setattr(searching, "synchronize", lambda device: events.append("waited"))
    monkeypatch.setattr(searching, "time", SimpleNamespace(perf_counter=clock))
    assert DrySteps(policy, ROWS, PADDED, (1, -1), False).on([0]).seconds == 2.0
    assert events == ["waited", "clock", "waited", "clock"]
