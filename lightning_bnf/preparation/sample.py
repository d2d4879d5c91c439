"""Sampling that can be killed at any moment: every finished batch is a line of a work file.

A line is keyed by all that its completions depend on (the model's weights, the sampling settings, the batch's prompts),
so a changed setting never meets old samples, and a run that was stopped goes on with the batches that are missing. The
batches are fixed beforehand, hence the result is the same whether or not it was interrupted.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lightning_bnf.generation.sampling import Complete, Generated, Sampling, batches
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.progress import Progress


@dataclass(frozen=True)
class Job:
    """Prompts of one kind (token ids) and how to complete them."""

    name: str
    prompts: list[list[int]]
    sampling: Sampling


def sample_jobs(
    jobs: Sequence[Job],
    complete: Complete,
    identity: str,
    work_file: Path,
    start: Callable[[], None] | None = None,
) -> list[list[list[Generated]]]:
    """Complete every job's prompts; returns per job and prompt its completions.

    `complete` generates one batch, `identity` names the model (`weights_fingerprint`), `work_file` is made if missing.
    `start` is called before the first batch, if there is one to generate; its seconds count for none.
    """
    store = JsonlStore(work_file)
    planned = [(job, batch, _key(identity, job, batch)) for job in jobs for batch in batches(job.prompts, job.sampling)]
    counts = {key: len(batch) * job.sampling.samples for job, batch, key in planned}
    done = sum(count for key, count in counts.items() if key in store)  # so that the time left counts new work only
    with Progress(sum(counts.values()), "Completions", "completion", initial=done) as bar:
        for job, batch, key in planned:
            if key in store:
                continue
            if start is not None:
                start()
                start = None
            bar.rename(job.name)
            begun = time.perf_counter()
            completions = complete([job.prompts[index] for index in batch], job.sampling)
            seconds = round(time.perf_counter() - begun, 3)
            fields = [[asdict(completion) for completion in row] for row in completions]
            store.add({key: {"job": job.name, "seconds": seconds, "completions": fields}})
            bar.update(counts[key])
    results: list[list[list[Generated]]] = []
    for job in jobs:
        rows: list[list[Generated]] = [[] for _ in job.prompts]
        for batch in batches(job.prompts, job.sampling):
            stored = store[_key(identity, job, batch)]["completions"]
            for index, row in zip(batch, stored, strict=True):
                rows[index] = [Generated(**completion) for completion in row]
        results.append(rows)
    return results


def longest_of(jobs: Sequence[Job]) -> int:
    """Tokens of the longest prompt with its completion, at most."""
    return max((len(ids) + job.sampling.max_new_tokens for job in jobs for ids in job.prompts), default=1)


def _key(identity: str, job: Job, batch: list[int]) -> str:
    return content_hash([identity, sampling_key(job.sampling), [job.prompts[index] for index in batch]])


def sampling_key(sampling: Sampling) -> dict[str, Any]:
    """What samples depend on beside model and prompts; all of the distribution is not named, as when there was no
    choice."""
    named = asdict(sampling)
    if sampling.top_p == 1:
        del named["top_p"]
    return named
