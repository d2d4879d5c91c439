"""Walk the steps of Table 4: what is done is skipped, what was killed goes on, what may be left out is left out."""

import importlib.util
import os
import re
import shlex
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from lightning_bnf.evaluation.benchmarks.evaluate import INSTALL
from lightning_bnf.generation.questions import read_questions
from lightning_bnf.judging.command import check_judge
from lightning_bnf.judging.lengths import gpt4o_length
from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.reading import read_folder
from lightning_bnf.judging.scores import scores
from lightning_bnf.judging.sides import read_answers
from lightning_bnf.judging.templates import OWN, read_template
from lightning_bnf.reproduction.commands import finish, finished, run_command
from lightning_bnf.reproduction.printed import BASE_MODELS, table7
from lightning_bnf.reproduction.table4 import ARENA, ZEROEVAL, Judged, Step, Table4, fit_arguments, steps_of
from lightning_bnf.reproduction.table4_results import write_table
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.processes import ENDS_WITH_PARENT
from lightning_bnf.runtime.refusal import Refusal

_UNJUDGED = "not judged"  # as `read_folder` calls games without a reply


def run_table4(table: Table4, output: Path, dry_run: bool) -> None:
    """All steps that are not skipped, then the table; or what they are and will cost. Raises `Refusal`, before any is
    run, for what is not there, and for steps that were made with other settings."""
    steps = steps_of(table, output)
    for pattern in table.skip:
        if not any(fnmatchcase(step.name, pattern) for step in steps):
            raise Refusal(f"skip must be patterns of steps such as {steps[0].name if steps else ''}, got {pattern!r}")
    skipped = {step.name for step in steps if any(fnmatchcase(step.name, pattern) for pattern in table.skip)}
    check_claim("output", output, "reproduce")
    if dry_run:
        print("\n".join(_forecast(table, steps, skipped)))
        return
    prints = dict[str, str]()
    for step in steps:
        prints[step.name] = step.fingerprint(prints)
    held = {step.name for step in steps if finished(step.mark, prints[step.name]) is not None}
    _check(table, [step for step in steps if step.name not in skipped | held])
    claim("output", output, "reproduce")
    done = [step for step in steps if _walked(step, prints[step.name], held, skipped)]
    judged = [step.makes for step in done if step.kind.startswith("judge_")]
    if judged:
        scores(judged, output / "scores")
    measured = {(step.model, step.method): step.makes for step in done if step.kind == ZEROEVAL}
    write_table(table, output, output / "scores" / "scores.json" if judged else None, measured)


def _check(table: Table4, todo: Sequence[Step]) -> None:
    """Raises `Refusal` for judges that cannot be asked, and files that are not there: hours before they are needed."""
    for benchmark, one in table.judged.items():
        if any(step.benchmark == benchmark for step in todo):
            read_questions(one.questions)
        if any(step.kind == f"judge_{benchmark}" for step in todo):
            protocol = PROTOCOLS[benchmark]
            check_judge(protocol, one.baseline, one.prompt, one.server, None, one.source, one.max_cost)
            read_template(one.prompt or OWN, protocol, "letters" if one.source is not None else None)
            if one.baseline is not None:
                read_answers(one.baseline)
            if one.vocabulary is not None:
                gpt4o_length(one.vocabulary)
    if any(step.kind == ZEROEVAL for step in todo) and importlib.util.find_spec("lm_eval") is None:
        raise Refusal(f"zeroeval must be null without lm-eval, got tasks for it; install it with: {INSTALL}")


def _walked(step: Step, fingerprint: str, held: set[str], skipped: set[str]) -> bool:
    """Whether a step has a result, run now or before; then its name is in `held`."""
    if step.name in held:
        return True
    lacking = [name for name in step.needs if name not in held]
    if lacking or step.name in skipped:
        print(f"{step.name}: {f'left out, as {lacking[0]} is' if lacking else 'skipped'}", flush=True)
        return False
    _run(step, fingerprint)
    held.add(step.name)
    return True


def _run(step: Step, fingerprint: str) -> None:
    """A step's command. One whose judge has left games open is used and not marked: it is asked again the next time."""
    step.folder.mkdir(parents=True, exist_ok=True)
    again = ["--ckpt_path", "last"] if step.kind == "fit" and (step.makes / "config.yaml").is_file() else []
    print(f"{step.name} ...", flush=True)
    started = time.monotonic()
    log = step.folder / f"{step.kind}.log"
    try:
        run_command([*step.words, *again], log, os.environ | {ENDS_WITH_PARENT: "1"}, step.name)
    except Refusal as refused:
        raise Refusal(f"{refused}\nTo go on without it: --table4.skip '[\"{step.name}\"]'") from None
    minutes = (time.monotonic() - started) / 60
    if step.kind.startswith("judge_") and (failed := read_folder(step.makes).reasons[_UNJUDGED]):
        print(f"{step.name}: {failed} games without a reply, which the next run asks again; see {log}", flush=True)
        return
    finish(step.mark, fingerprint, {"minutes": minutes})


def _forecast(table: Table4, steps: Sequence[Step], skipped: set[str]) -> list[str]:
    """Each step with its command and what it takes, and what all of them take."""
    lines, hours, calls, costs, unknown = [], 0.0, 0, 0.0, set[str]()
    for step in steps:
        state = "done" if step.mark.is_file() else "skipped" if step.name in skipped else "to do"
        takes = ""
        if step.kind == "fit" and state == "to do":
            planned, takes = _gpu_hours(table, step)
            hours += planned or 0.0
            unknown |= set() if planned is not None else {"GPU-hours of fits that cannot be planned"}
        if step.kind.startswith("judge_") and state == "to do":
            one = table.judged[step.benchmark]
            count, cost, takes = _calls(step.benchmark, one)
            calls, costs = calls + count, costs + (cost or 0.0)
            unknown |= set() if cost is not None else {f"the cost of {step.benchmark}: no prices are given"}
        lines += [f"{step.name}: {state}{takes}", f"    python -m lightning_bnf {shlex.join(step.words)}"]
    states = [sum(step.mark.is_file() for step in steps), sum(step.name in skipped for step in steps)]
    lines.append(f"{len(steps)} steps, {states[0]} done, {states[1]} skipped; nothing was run")
    lines.append(f"to do: {hours:.0f} GPU-hours of fits, {calls:,} calls of judges, {costs:.2f} for those with prices")
    return [*lines, *(f"not counted: {one}" for one in sorted(unknown))]


def _gpu_hours(table: Table4, step: Step) -> tuple[float | None, str]:
    """By `plan`, and as the paper reports them."""
    how, row = table.planned, table.models[step.model][step.method]
    about = ["--gpu", how.gpu, "--gpus", str(how.gpus), "--rows", str(how.rows)]
    words = ["plan", *fit_arguments(row, step.folder), *about, "--tokens_per_row", f"{how.tokens_per_row:g}"]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "plan.log"
        with suppress(Refusal):  # it does not fit, which it says, or cannot be planned
            run_command(words, log, os.environ | {ENDS_WITH_PARENT: "1"}, "plan")
        said = log.read_text(errors="replace") if log.is_file() else ""
    found = re.search(r"^time: (\S+) hours", said, re.MULTILINE)
    verdict = next((line for line in said.splitlines() if line.startswith(("fits:", "does not fit:"))), None)
    paper = _paper(step.model, "training_gpu_hours_per_run")
    if found is None:
        last = (said.strip().splitlines() or ["it said nothing"])[-1]
        return None, f"; GPU-hours not planned: {last}{paper}"
    hours = float(found[1]) * how.gpus
    return hours, f"; {hours:.2g} GPU-hours planned on {how.gpus} x {how.gpu} ({verdict}){paper}"


def _calls(benchmark: str, one: Judged) -> tuple[int, float | None, str]:
    """Calls, their cost where prices are given, and both in words."""
    count = len(read_questions(one.questions)) if Path(one.questions).is_file() else one.count
    calls = count * (2 if PROTOCOLS[benchmark].both else 1)
    if one.server is None:
        return 0, 0.0, f"; {calls:,} games by {one.source}, which runs here"
    cost = one.server.cost(calls * one.read_tokens, calls * one.written_tokens)
    each = f"{one.read_tokens:,} tokens read and {one.written_tokens:,} written by each"
    text = f"; {calls:,} calls to {one.server.model}, {each}"
    priced = "no prices are given (server.price_in, server.price_out)" if cost is None else f"some {cost:.2f}"
    row = "arenahard_api_usd_per_run" if benchmark == ARENA else "wildbench_api_usd_per_run"
    return calls, cost, f"{text} (assumed): {priced}{_paper(BASE_MODELS[0], row)}"


def _paper(model: str, row: str) -> str:
    """What Table 7 prints."""
    if model not in BASE_MODELS:
        return ""
    value = table7().loc[row].iloc[BASE_MODELS.index(model)]
    return f"; the paper reports {value:g}" + (" dollars" if "usd" in row else "")
