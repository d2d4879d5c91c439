"""A run's curves."""

from collections.abc import Mapping

from lightning_bnf.pages.charts import Line, curves
from lightning_bnf.pages.measures import Measures
from lightning_bnf.pages.run_folder import Run

SIDES = ("chosen", "rejected")


def run_charts(run: Run, at: Mapping[str, Measures]) -> list[str]:
    """Figures of what the run has measured: margin, accuracy, shifts, loss, throughput, memory. Where the loss has no
    reference, margin and shifts are those of the shown rows, `at` their moments."""
    charts = [
        _metric(run, "Margin", "chosen \u2212 rejected (\u03b2 \u00d7 log-ratio, nats)", "rewards/margins", zero=True)
        or _moments(run, at, "Margin gained since the start", {"ink": "margin_shift"}),
        _metric(run, "Accuracy", "share of pairs with a margin above 0", "rewards/accuracies"),
        _shifts(run) or _moments(run, at, "Shift since the start", {side: f"{side}_shift" for side in SIDES}),
        _metric(run, f"{run.loss}'s loss", "loss (nats)", "loss"),
        _throughput(run),
        _memory(run),
    ]
    return [chart for chart in charts if chart]


def _lines(run: Run, metric: str, colour: str = "ink", label: str = "") -> list[Line]:
    between = ", " if label else ""
    lines = []
    for split, name in (("train", "training"), ("val", "validation")):
        steps, values = run.series(split, metric)
        if steps:
            lines.append(Line(f"{label}{between}{name}", steps, values, colour, split == "val"))
    return lines


def _metric(run: Run, title: str, unit: str, metric: str, zero: bool = False) -> str | None:
    lines = _lines(run, metric)
    return curves(title, unit, lines, zero=zero) if lines else None


def _shifts(run: Run) -> str | None:
    lines = [line for side in SIDES for line in _lines(run, f"logratios_mean/{side}", side, side)]
    return curves("Shift from the reference", "mean log-ratio (nats a token)", lines, zero=True) if lines else None


def _moments(run: Run, at: Mapping[str, Measures], title: str, names: Mapping[str, str]) -> str | None:
    """A measure of the shown rows at each moment."""
    lines = []
    for colour, name in names.items():
        found = [(run.snapshots[moment].step, getattr(one, name)) for moment, one in at.items()]
        known = [(step, value) for step, value in found if value is not None]
        if len(known) > 1:
            steps, values = zip(*known)
            lines.append(Line("shown rows" if colour == "ink" else colour, steps, values, colour, validation=True))
    return curves(title, "nats a token, shown rows", lines, zero=True) if lines else None


def _throughput(run: Run) -> str | None:
    step, seconds, tokens = (run.steps.get(name, []) for name in ("step", "seconds", "tokens"))
    rates = [(n, count / time) for n, time, count in zip(step, seconds, tokens) if time > 0 and count]
    if len(rates) < 2:
        return None
    steps, values = zip(*rates)
    return curves("Throughput", "completion tokens a second", [Line("training", steps, values)], from_zero=True)


def _memory(run: Run) -> str | None:
    held = run.steps.get("gigabytes", [])
    if len(held) < 2:
        return None
    lines = [Line("memory", run.steps["step"][: len(held)], held)]
    return curves("Memory", "most held until then (GB)", lines, from_zero=True)
