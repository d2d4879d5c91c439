"""Sampling stopped at any moment goes on to the same result."""

import json

import pytest

from lightning_bnf.generation.sampling import Generated, Sampling, generate_with_lengths
from lightning_bnf.preparation.sample import Job, sample_jobs

pytestmark = pytest.mark.slow

JOBS = [
    Job("short", [[1, 5], [1, 6, 7], [1, 8], [1, 9, 9, 9]], Sampling(0.8, 6, samples=2, seed=1, batch_size=4)),
    Job("long", [[1, 5], [1, 6]], Sampling(0.0, 9, batch_size=1)),
]


class Stopped(Exception):
    pass


class Fake:
    """Completes with the prompt's own numbers; counts its calls and stops at the call `stop`."""

    def __init__(self, stop: int | None = None):
        self.calls, self.stop = 0, stop

    def __call__(self, prompts, sampling):
        if self.calls == self.stop:
            raise Stopped
        self.calls += 1
        return [
            [Generated(f"{prompt} {number} é", len(prompt), True) for number in range(sampling.samples)]
            for prompt in prompts
        ]


def test_results_are_in_the_prompts_order(tmp_path):
    found = sample_jobs(JOBS, Fake(), "model", tmp_path / "work.jsonl")
    assert [[row[0].text for row in job] for job in found] == [
        [f"{prompt} 0 é" for prompt in job.prompts] for job in JOBS
    ]
    assert [[len(row) for row in job] for job in found] == [[2, 2, 2, 2], [1, 1]]


@pytest.mark.parametrize("disable", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 2, 3])
def test_a_stopped_run_goes_on_with_what_is_missing(tmp_path, monkeypatch, stop, disable):
    """With a progress bar or without, as TQDM_DISABLE=1 has it."""
    monkeypatch.setenv("TQDM_DISABLE", str(int(disable)))
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    expected = sample_jobs(JOBS, Fake(), "model", whole)
    with pytest.raises(Stopped):
        sample_jobs(JOBS, Fake(stop), "model", parts)
    rest = Fake()
    assert sample_jobs(JOBS, rest, "model", parts) == expected
    assert rest.calls == 4 - stop
    keys = [[json.loads(line)["key"] for line in path.read_text().splitlines()] for path in (whole, parts)]
    assert keys[0] == keys[1]


def test_a_half_written_last_line_is_discarded(tmp_path):
    """Cut at every byte of the last line, in the middle of the two bytes of é too."""
    work = tmp_path / "work.jsonl"
    expected = sample_jobs(JOBS, Fake(), "model", work)
    content = work.read_bytes()
    start = content[:-1].rfind(b"\n") + 1
    for end in range(start, len(content)):
        work.write_bytes(content[:end])
        rest = Fake()
        assert sample_jobs(JOBS, rest, "model", work) == expected
        assert rest.calls == 1
        assert len(work.read_text().splitlines()) == 4


def test_other_settings_prompts_or_models_do_not_meet_old_samples(tmp_path):
    work = tmp_path / "work.jsonl"
    job = JOBS[0]
    sample_jobs([job], Fake(), "model", work)
    for changed in (
        Job("short", job.prompts, Sampling(0.8, 6, samples=2, seed=2, batch_size=4)),
        Job("short", job.prompts, Sampling(0.7, 6, samples=2, seed=1, batch_size=4)),
        Job("short", [*job.prompts[:3], [1, 2, 3, 4, 5]], job.sampling),
    ):
        again = Fake()
        sample_jobs([changed], again, "model", work)
        assert again.calls >= 1
    other = Fake()
    sample_jobs([job], other, "another model", work)
    assert other.calls == 2


def test_what_is_started_is_started_once_for_what_is_missing_and_not_counted(tmp_path, monkeypatch):
    """The start takes 100 s, each of two batches 1 s."""
    now, work = [0.0], tmp_path / "work.jsonl"
    monkeypatch.setattr("lightning_bnf.preparation.sample.time.perf_counter", lambda: now[0])

    def start():
        now[0] += 100

    def complete(prompts, sampling):
        now[0] += 1
        return Fake()(prompts, sampling)

    sample_jobs(JOBS[:1], complete, "model", work, start)
    assert [line["seconds"] for line in map(json.loads, work.read_text().splitlines())] == [1, 1]
    assert now == [102]
    sample_jobs(JOBS[:1], complete, "model", work, start)
    assert now == [102], "nothing was missing"


def test_a_real_model_resumes_bit_equal(tiny_llama, tokenizer, tmp_path):
    def complete(prompts, sampling):
        return generate_with_lengths(tiny_llama, tokenizer, prompts, sampling)

    expected = sample_jobs(JOBS, complete, "tiny", tmp_path / "whole.jsonl")
    sample_jobs(JOBS[1:], complete, "tiny", tmp_path / "parts.jsonl")
    assert sample_jobs(JOBS, complete, "tiny", tmp_path / "parts.jsonl") == expected
