"""Runs beside each other on one page."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightning_bnf.pages.changes import Change, read_changes
from lightning_bnf.pages.compare_charts import NamedRun, compare_charts
from lightning_bnf.pages.render import inline, render, write_page
from lightning_bnf.pages.run_folder import Run, flattened, read_run
from lightning_bnf.pages.scores import MOMENTS
from lightning_bnf.pages.tokens import RunScores, fitting, token_data
from lightning_bnf.runtime.arguments import NonNegativeInt, checked
from lightning_bnf.runtime.refusal import Refusal

MOST_PROMPTS = 30
_NOT_COMPARED = ("trainer.default_root_dir", "trainer.callbacks", "trainer.logger", "seed_everything")


@checked
def compare(runs: list[str], output: str = "compare.html", rows: NonNegativeInt | None = None) -> None:
    """Put runs on one page: their curves, what each gained and lost, the same prompts and the same tokens.

    Args:
        runs: Run folders, two or more, that share rows which their pages show.
        output: The page to write. A file that is there is replaced only if it is such a page.
        rows: The most rows that the page shows token by token; 0 leaves out all that is data. Null shows all that the
            runs share.
    """
    html = page([read_run(run, 0 if rows == 0 else None) for run in runs], rows)
    write_page(Path(output), html, "output must be a new file or a page of lightning_bnf")
    print(f"The page of {len(runs)} runs is {output}")


def expanded(words: Sequence[str]) -> list[str]:
    """`compare RUN RUN ...` is short for `compare --runs '["RUN", "RUN"]' ...`."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return ["--runs", json.dumps(list(words[:count])), *words[count:]] if count else list(words)


def page(runs: Sequence[Run], rows: int | None = None) -> str:
    """Runs as one HTML file. Raises `Refusal` for fewer than two, and for runs that share no data."""
    if len(runs) < 2:
        raise Refusal(f"runs must be two run folders or more, got {[str(run.folder) for run in runs]}")
    shared = sharing(runs, rows)
    named = [NamedRun.of(name, run) for name, run in zip(names(runs), shared)]
    shown = shared[0].rows
    prompts = same_prompts(named)
    scores = [RunScores(one.name, one.run.loss, one.run.snapshots) for one in named]
    return render(
        "compare.html",
        title=_title(named),
        tokens=token_data(shown, scores, MOMENTS) if shown and all(run.snapshots for run in shared) else None,
        subtitle=f"{len(named)} runs: " + ", ".join(f"{one.name} ({one.run.folder.resolve().name})" for one in named),
        holds=_holds(len(shown), len(prompts)),
        heads=[one.name for one in named],
        table=_table(named),
        charts=[inline(chart) for chart in compare_charts(named)],
        tokens_text=_tokens_text(runs, len(shown)),
        prompts=prompts[:MOST_PROMPTS],
        prompts_text=_prompts_text(len(prompts)),
        differences=differences(runs),
    )


def sharing(runs: Sequence[Run], rows: int | None = None) -> list[Run]:
    """The runs cut to the rows that all of them show, in the first one's order, and of these to as many as fit.

    Raises `Refusal` where they share none, unless none of them holds rows and all were trained on the same files.
    """
    places = [{row.key: i for i, row in enumerate(run.rows)} for run in runs]
    common = [row.key for row in runs[0].rows if all(row.key in held for held in places[1:])]
    if not common:
        trained = [str(run.config.get("data", {}).get("train")) for run in runs]
        if any(run.rows for run in runs) or len(set(trained)) > 1:
            said = "; ".join(f"{run.folder} with {len(run.rows)} rows of {text}" for run, text in zip(runs, trained))
            raise Refusal(f"runs must share rows that their pages show, got {said}")
    if rows is not None and len(common) > rows:
        common = [common[i * len(common) // rows] for i in range(rows)]
    first = [runs[0].rows[places[0][key]] for key in common]
    common = [common[i] for i in fitting(first, len(runs))]
    found = []
    for run, held in zip(runs, places):
        kept, snapshots = run.shown([held[key] for key in common])
        found.append(replace(run, rows=kept, snapshots=snapshots))
    return found


def names(runs: Sequence[Run]) -> list[str]:
    """A name for each run: its loss, with the folder's name where several minimised the same, in full if need be."""
    found = [run.loss for run in runs]
    for longer in (lambda run: f"{run.loss} ({run.folder.resolve().name})", lambda run: f"{run.loss} ({run.folder})"):
        often = Counter(found)
        found = [longer(run) if often[name] > 1 else name for name, run in zip(found, runs)]
    return found


def differences(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Settings that are not the same in all runs: name, and each run's value."""
    settings = [dict(flattened(run.config)) for run in runs]
    keys = list(dict.fromkeys(key for held in settings for key in held if not key.startswith(_NOT_COMPARED)))
    found = [(key, [held.get(key, "\u2013") for held in settings]) for key in keys]
    return [(key, values) for key, values in found if len(set(values)) > 1]


@dataclass(frozen=True)
class SharedPrompt:
    """A prompt that all runs completed: the answer before training, and each run's after it."""

    prompt: str
    before: str
    before_passed: bool | None
    after: Sequence[tuple[str, Change]]

    @property
    def verdicts(self) -> int:
        """How many different verdicts there are among the runs."""
        return len({change.after_passed for _, change in self.after})

    @property
    def texts(self) -> int:
        """How many different answers."""
        return len({"".join(text for _, text in change.after) for _, change in self.after})


def same_prompts(runs: Sequence[NamedRun]) -> list[SharedPrompt]:
    """The prompts that all runs completed, those first on which they disagree most: in verdicts, then in words."""
    each = [
        {(change.prompt_id, change.decoding, change.prompt): change for change in read_changes(one.run.completions)}
        for one in runs
    ]
    keys = [key for key in each[0] if all(key in held for held in each[1:])]
    found = []
    for key in keys:
        first = each[0][key]
        before = "".join(text for _, text in first.before)
        after = [(one.name, held[key]) for one, held in zip(runs, each)]
        found.append(SharedPrompt(first.prompt, before, first.before_passed, after))
    return sorted(found, key=lambda one: (-one.verdicts, -one.texts))


def _title(runs: Sequence[NamedRun]) -> str:
    models = sorted({one.run.model for one in runs})
    listed = ", ".join(one.name for one in runs[:-1])
    return f"{listed} and {runs[-1].name} on {' and '.join(models)}"


def _holds(rows: int, prompts: int) -> str:
    if not rows and not prompts:
        return ""
    prompts = min(prompts, MOST_PROMPTS)
    return f"This file holds data: {rows} rows and {prompts} prompts with answers. --rows 0 leaves them out."


def _table(runs: Sequence[NamedRun]) -> list[tuple[str, list[str]]]:
    """What each run gained and lost on the rows that all share, and what it took."""
    measured = (
        ("margin gained (nats a token)", "margin_shift", "+.2f"),
        ("rows whose margin grew", "accuracy", ".0%"),
        ("chosen moved (nats a token)", "chosen_shift", "+.2f"),
        ("rejected moved (nats a token)", "rejected_shift", "+.2f"),
        ("mean |log-ratio| of a token", "moved", ".2f"),
    )
    rows = [_written(len(one.run.rows) if one.last else None, ",") for one in runs]
    lines = [("rows that all runs share", rows)] + [
        (title, [_written(getattr(one.last, name) if one.last else None, form) for one in runs])
        for title, name, form in measured
    ]
    lines.append(("prompts that pass, before \u2192 after", [_pass_rates(one.run.completions) for one in runs]))
    lines.append(("optimizer steps", [_written(one.run.about.get("step"), ",") for one in runs]))
    minutes = [one.run.about.get("seconds", {}).get("run") for one in runs]
    lines.append(("minutes", [_written(seconds / 60 if seconds else None, ".1f") for seconds in minutes]))
    memory = [max(one.run.steps.get("gigabytes", []), default=None) for one in runs]
    lines.append(("most memory (GB)", [_written(held, ".1f") for held in memory]))
    return [(title, values) for title, values in lines if set(values) != {"\u2013"}]


def _written(value: float | None, form: str) -> str:
    return "\u2013" if value is None else format(value, form).replace("-", "\u2212")


def _pass_rates(records: Sequence[Mapping[str, Any]]) -> str:
    judged = [record for record in records if record.get("after_passed") is not None]
    if not judged:
        return "\u2013"
    before, after = (sum(bool(record.get(name)) for record in judged) for name in ("before_passed", "after_passed"))
    return f"{before} \u2192 {after} of {len(judged)}"


def _tokens_text(runs: Sequence[Run], shown: int) -> str:
    most = max(len(run.rows) for run in runs)
    of = f" of {most}" if shown < most else ""
    return (
        f"The {shown}{of} rows that all runs have scored. The weight is BNF's, of each run's policy against its own "
        "start: what BNF would leave alone from there on. The middle is each run's own."
    )


def _prompts_text(count: int) -> str:
    shown = f"{MOST_PROMPTS} of {count}" if count > MOST_PROMPTS else str(count)
    return (
        f"{shown} prompts, those first on which the runs disagree. Shaded: words that the answer before training lacks."
    )
