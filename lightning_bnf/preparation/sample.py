"""Sampling that can be killed at any moment: every finished batch is a line of a work file.

A line is keyed by all that its completions depend on (the model's weights, the sampling settings, the batch's prompts),
so a changed setting never meets old samples, and a run that was stopped goes on with the batches that are missing. The
batches are fixed beforehand, hence the result is the same whether or not it was interrupted.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tqdm.auto import tqdm

from lightning_bnf.generation.sampling import Generated, Sampling, batches
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import read_work

Complete = Callable[[list[list[int]], Sampling], list[list[Generated]]]


@dataclass(frozen=True)
class Job:
    """Prompts of one kind (token ids) and how to complete them."""

    name: str
    prompts: list[list[int]]
    sampling: Sampling


def sample_jobs(jobs: Sequence[Job], complete: Complete, identity: str, work_file: Path) -> list[list[list[Generated]]]:
    """Complete every job's prompts; returns per job and prompt its completions.

    `complete` generates one batch, `identity` names the model (`weights_fingerprint`), `work_file` is made if missing.
    """
    work_file.parent.mkdir(parents=True, exist_ok=True)
    known = {line["key"]: line["completions"] for line in read_work(work_file)}
    todo = [(job, batch, _key(identity, job, batch)) for job in jobs for batch in batches(job.prompts, job.sampling)]
    found: dict[str, list[list[Generated]]] = {}
    bar = tqdm(total=sum(len(batch) * job.sampling.samples for job, batch, _ in todo), unit="completion", smoothing=0.1)
    with work_file.open("a", encoding="utf-8") as file, bar:
        for job, batch, key in todo:
            bar.set_description(job.name)
            if key not in known:
                start = time.perf_counter()
                completions = complete([job.prompts[index] for index in batch], job.sampling)
                line = {
                    "key": key,
                    "job": job.name,
                    "seconds": round(time.perf_counter() - start, 1),
                    "completions": [[asdict(one) for one in row] for row in completions],
                }
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
                file.flush()
                known[key] = line["completions"]
            else:
                bar.initial += len(batch) * job.sampling.samples  # so that the time left counts new work only
            found[key] = [[Generated(**one) for one in row] for row in known[key]]
            bar.update(len(batch) * job.sampling.samples)
    results: list[list[list[Generated]]] = []
    for job in jobs:
        rows: list[list[Generated]] = [[] for _ in job.prompts]
        for batch in batches(job.prompts, job.sampling):
            for index, row in zip(batch, found[_key(identity, job, batch)], strict=True):
                rows[index] = row
        results.append(rows)
    return results


def _key(identity: str, job: Job, batch: list[int]) -> str:
    return content_hash([identity, asdict(job.sampling), [job.prompts[index] for index in batch]])
