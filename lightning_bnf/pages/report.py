"""The page of a run."""

from collections.abc import Sequence
from pathlib import Path

from lightning_bnf.pages.changes import Change, most_telling, read_changes
from lightning_bnf.pages.measures import Measures, measures
from lightning_bnf.pages.render import inline, render, write_page
from lightning_bnf.pages.run_charts import run_charts
from lightning_bnf.pages.run_folder import Run, flattened, read_run
from lightning_bnf.pages.scores import MOMENTS
from lightning_bnf.pages.tokens import RunScores, fitting, token_data
from lightning_bnf.runtime.arguments import NonNegativeInt, checked

NAME = "report.html"
MOST_CHANGES = 40
LEAVE_OUT = "--report.rows 0 leaves them out when a run is made, --rows 0 when the page is written anew."


@checked
def report(run: str, rows: NonNegativeInt | None = None) -> None:
    """Write the page of a run anew, from the files in the run's folder alone.

    Args:
        run: The run folder.
        rows: The most rows that the page shows token by token, of those that the run has scored; 0 leaves out all that
            is data: rows, prompts and answers. Null shows what the run kept.
    """
    print(f"The page of the run is {write_report(run, rows)}")


def expanded(words: Sequence[str]) -> list[str]:
    """`report RUN ...` is short for `report --run RUN ...`."""
    return ["--run", *words] if words and not words[0].startswith("-") else list(words)


def write_report(folder: str | Path, rows: int | None = None) -> Path:
    """Write `report.html` into a run folder; `rows` as in `report`. Raises `Refusal` for a folder of no run."""
    path = Path(folder) / NAME
    write_page(path, page(read_run(folder, rows)), "run must be a folder whose report.html is a page of lightning_bnf")
    return path


def page(run: Run) -> str:
    """A run as one HTML file."""
    start = run.snapshots.get("start")
    at = {name: measures(run.rows, found, start) for name, found in run.snapshots.items()}
    kept = fitting(run.rows) if run.snapshots else []
    rows, snapshots = run.shown(kept)
    changes = most_telling(read_changes(run.completions), MOST_CHANGES)
    return render(
        "report.html",
        title=f"{run.loss} on {run.model}",
        tokens=token_data(rows, [RunScores(run.loss, run.loss, snapshots)], MOMENTS) if rows else None,
        subtitle=_subtitle(run),
        holds=_holds(len(rows), run, changes),
        tiles=_tiles(at, len(run.rows)),
        facts=facts(run),
        charts=[inline(chart) for chart in run_charts(run, at)],
        tokens_text=_tokens_text(run, len(rows)),
        changes=changes,
        answers_text=_answers_text(run, changes),
        chosen=run.about.get("chosen", []),
        settings=flattened(run.config),
        data_report=run.data_report,
        footer=_footer(run),
    )


def _subtitle(run: Run) -> str:
    step, steps = run.about.get("step"), run.about.get("steps")
    where = f"Run folder {run.folder.resolve().name}"
    if step is None:
        return where
    if steps and step < steps:
        return f"{where}: under way, step {step:,} of {steps:,} when this page was written."
    return f"{where}: {step:,} steps."


def _holds(rows: int, run: Run, changes: list[Change]) -> str:
    counts = (
        (rows, "row of the data", "rows of the data"),
        (len(changes), "prompt with answers", "prompts with answers"),
    )
    held = [f"{count} {one if count == 1 else more}" for count, one, more in counts if count]
    if not held and not run.data_report:
        return ""
    return f"This file holds data: {' and '.join(held) or 'samples of the rows'}. {LEAVE_OUT}"


def _tiles(at: dict[str, Measures], rows: int) -> list[dict[str, str]]:
    """The rows' numbers at the last moment, against the start."""
    last = [moment for moment in MOMENTS if moment in at][-1:]
    if not last or last == ["start"]:
        return []
    now, start = at[last[0]], at.get("start")
    unit, found = "nats a token", []

    def tile(name: str, value: float | None, form: str, note: str, kind: str = "") -> None:
        if value is not None:
            found.append(
                {"name": name, "value": format(value, form).replace("-", "\u2212"), "note": note, "kind": kind}
            )

    tile("Margin gained", now.margin_shift, "+.2f", f"{unit}, chosen against rejected")
    tile("Rows that gained", now.accuracy, ".0%", f"of {rows:,} have a larger margin than at the start")
    tile("Chosen moved", now.chosen_shift, "+.2f", f"{unit} since the start", "chosen")
    tile("Rejected moved", now.rejected_shift, "+.2f", f"{unit} since the start", "rejected")
    tile("BNF's weight, chosen", now.chosen_weight, ".2f", "1: learns as in fine-tuning", "chosen")
    tile("BNF's weight, rejected", now.rejected_weight, ".2f", "0: left alone", "rejected")
    return found if start else []


def facts(run: Run) -> list[tuple[str, str]]:
    """What was trained on what, as names and words; what is not known is left out."""
    about, steps = run.about, run.steps
    seconds = about.get("seconds", {}).get("run")
    tokens, memory = sum(steps.get("tokens", [])), max(steps.get("gigabytes", []), default=0)
    done, planned = about.get("step"), about.get("steps")
    facts = [
        ("model", about.get("model")),
        ("policy", about.get("policy")),
        ("loss", about.get("formula") or run.loss),
        ("reference", about.get("reference")),
        ("training rows", _count(about.get("train_rows"))),
        ("validation rows", _count(about.get("validation_rows"))),
        ("optimizer steps", f"{_count(done)} of {_count(planned)}" if planned and done != planned else _count(done)),
        ("rows a step", _count(about.get("examples_per_step"))),
        ("completion tokens trained", _count(int(tokens)) if tokens else None),
        ("time", _duration(seconds) if seconds else None),
        ("most memory", f"{memory:.1f} GB" if memory else None),
        ("device", about.get("device")),
        ("precision", about.get("precision")),
    ]
    return [(name, str(value)) for name, value in facts if value not in (None, "")]


def _count(value: int | None) -> str | None:
    return None if value is None else f"{value:,}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _tokens_text(run: Run, shown: int) -> str:
    split = {"validation": "validation", "train": "training"}.get(str(run.about.get("split")), "scored")
    total = run.about.get("validation_rows" if split == "validation" else "train_rows")
    of = f" of {total:,}" if total else ""
    cut = (
        f" ({len(run.rows):,} were scored; evenly spaced ones are shown, so that this file stays small)"
        if shown < len(run.rows)
        else ""
    )
    text = f"{shown:,}{of} {split} rows, evenly apart{cut}."
    if "start" not in run.snapshots:
        return f"{text} The policy as it was at the start was not scored, so there are probabilities alone."
    own = "" if run.loss == "BNF" else f" This run minimised {run.loss}; the weight is what BNF's would be."
    return (
        f"{text} BNF multiplies each token's gradient with w = min(1, odds(\u03c0) / odds(ref)): 1 while the policy is "
        "at or above the reference, and towards 0 once a token has fallen below it, which is then left alone. The "
        f"reference is the policy before its first step.{own} Point at a token for its numbers."
    )


def _answers_text(run: Run, changes: list[Change]) -> str:
    rule = (
        "those whose verdict changed first" if any(change.verdict for change in changes) else "those that changed first"
    )
    text = (
        f"{len(changes)} of {len(run.completions)}, {rule}."
        if len(changes) < len(run.completions)
        else f"{len(changes)}, {rule}."
    )
    return f"{text} Struck through: words that are gone. Shaded: words that are new."


def _footer(run: Run) -> str:
    cost = run.about.get("seconds", {})
    total = cost.get("run")
    text = "Written by lightning_bnf. This file needs no network and no other file."
    if not total:
        return text
    scoring, rendering = cost.get("scoring", 0.0), cost.get("rendering", 0.0)
    return (
        f"{text} Until it was written, scoring rows for it had taken {scoring:.1f} s, {100 * scoring / total:.1f} % of "
        f"the run, and writing it {rendering:.1f} s, {100 * rendering / total:.1f} %."
    )
