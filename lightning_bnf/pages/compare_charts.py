"""Curves of several runs over each other, and what each gained for what it lost."""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bnf.pages.charts import Line, Point, curves, frontier
from lightning_bnf.pages.measures import Measures, measures
from lightning_bnf.pages.run_folder import Run
from lightning_bnf.pages.scores import MOMENTS

NATS = "nats a token"


@dataclass(frozen=True)
class NamedRun:
    """A run under the name that the page gives it, cut to the rows that all runs share; `at`: their measures."""

    name: str
    run: Run
    at: dict[str, Measures]

    @classmethod
    def of(cls, name: str, run: Run) -> "NamedRun":
        """The run with its measures at each moment."""
        start = run.snapshots.get("start")
        return cls(name, run, {moment: measures(run.rows, found, start) for moment, found in run.snapshots.items()})

    @property
    def last(self) -> Measures | None:
        """At the last moment that was scored after the start."""
        found = [moment for moment in MOMENTS[1:] if moment in self.at]
        return self.at[found[-1]] if found else None


def compare_charts(runs: Sequence[NamedRun]) -> list[str]:
    """Figures: margin and shifts of the shared rows, accuracy in training, and two frontiers. Losses and their rewards
    have each a scale of their own, so they are in none."""
    charts = [
        _moments(runs, "Margin gained", "margin_shift"),
        _moments(runs, "Chosen moved", "chosen_shift"),
        _moments(runs, "Rejected moved", "rejected_shift"),
        _accuracy(runs),
        _frontier(runs, "Gained against chosen lost", f"chosen moved ({NATS})", "chosen_shift"),
        _frontier(runs, "Gained against how far it moved", "mean |log-ratio| of a token (nats)", "moved"),
    ]
    return [chart for chart in charts if chart]


def _moments(runs: Sequence[NamedRun], title: str, name: str) -> str | None:
    lines = []
    for i, one in enumerate(runs):
        found = [(one.run.snapshots[moment].step, getattr(at, name)) for moment, at in one.at.items()]
        known = [(step, value) for step, value in found if value is not None]
        if len(known) > 1:
            steps, values = zip(*known)
            lines.append(Line(one.name, steps, values, f"run-{i % 8}", validation=True))
    return curves(title, f"{NATS}, shared rows", lines, zero=True) if lines else None


def _accuracy(runs: Sequence[NamedRun]) -> str | None:
    lines = []
    for i, one in enumerate(runs):
        steps, values = one.run.series("train", "rewards/accuracies")
        if steps:
            lines.append(Line(one.name, steps, values, f"run-{i % 8}"))
    return curves("Accuracy in training", "share of pairs with a margin above 0", lines) if lines else None


def _frontier(runs: Sequence[NamedRun], title: str, x: str, name: str) -> str | None:
    points = []
    for i, one in enumerate(runs):
        gained = one.last.margin_shift if one.last else None
        lost = getattr(one.last, name) if one.last else None
        if gained is not None and lost is not None:
            points.append(Point(one.name, lost, gained, f"run-{i % 8}"))
    return frontier(title, x, f"margin gained ({NATS})", points) if len(points) > 1 else None
