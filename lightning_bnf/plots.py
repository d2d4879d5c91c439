"""Figures, one function each: from tidy tables to a matplotlib figure."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

CHOSEN, REJECTED, NEUTRAL = "#1b7837", "#b2182b", "#4d4d4d"


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _series(metrics: pd.DataFrame, split: str, metric: str) -> tuple[Any, Any]:
    rows = metrics[(metrics["split"] == split) & (metrics["metric"] == metric)]
    return rows["step"].to_numpy() + 1, rows["value"].to_numpy()


def plot_loss(metrics: pd.DataFrame, loss: str = "loss") -> Figure:
    """What is minimised, at each step and on the validation split; `metrics` as `results.read_metrics` gives them."""
    figure, axes = _axes(f"{loss}: training loss", "optimizer step", "loss (nats)")
    axes.plot(*_series(metrics, "train", "loss"), color=NEUTRAL, label="train")
    step, value = _series(metrics, "val", "loss")
    if len(step):
        axes.plot(step, value, "o--", color="#2166ac", label="validation")
    axes.legend(frameon=False)
    return figure


def plot_logps(metrics: pd.DataFrame) -> Figure:
    """Mean token log-probability of chosen and rejected completions: both falling together is displacement."""
    figure, axes = _axes("Log-probability of completions", "optimizer step", "mean log-probability (nats a token)")
    for side, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
        step, value = _series(metrics, "train", f"logps_mean/{side}")
        if not len(step):
            continue
        smooth = pd.Series(value).rolling(5, min_periods=1, center=True).mean()
        axes.plot(step, value, color=color, alpha=0.25, linewidth=0.8)
        axes.plot(step, smooth, color=color, label=f"{side} (train, mean of 5 steps)")
        step, value = _series(metrics, "val", f"logps_mean/{side}")
        if len(step):
            axes.plot(step, value, "o--", color=color, label=f"{side} (validation)")
    axes.legend(frameon=False)
    return figure


def plot_weights(weights: Mapping[str, Any]) -> Figure:
    """The distribution of BNF's token weight, one line per name (such as "steps 1-10"): values in [0, 1]."""
    figure, axes = _axes("Distribution of BNF's weight", "weight w (1: as in fine-tuning, 0: left alone)", "tokens (%)")
    shades = ("#bdbdbd", "#6baed6", "#08519c")
    bins = [i / 20 for i in range(21)]
    for (name, values), color in zip(weights.items(), shades[-len(weights) :]):
        share = [100 / max(len(values), 1)] * len(values)
        axes.hist(values, bins=bins, weights=share, histtype="step", linewidth=1.6, color=color, label=name)
    axes.set_yscale("log")
    axes.legend(frameon=False, loc="upper left")
    return figure


def plot_feedback(curves: pd.DataFrame, reference: float, label: int = -1) -> Figure:
    """Figure 1 of the BNF paper: |dL/dz_y| against the likelihood pi(y), one line a loss, for one label.

    `curves` as `gradients.feedback_curves` gives them.
    """
    kind = "dispreferred" if label < 0 else "preferred"
    figure, axes = _axes(f"Gradient on a {kind} token", "likelihood pi(y)", "|dL/dz_y|")
    for (name, rows), color in zip(
        curves[curves["label"] == label].groupby("loss", sort=False), (REJECTED, CHOSEN, NEUTRAL)
    ):
        axes.plot(rows["likelihood"], rows["gradient"], label=name, color=color)
    axes.axvline(reference, color=NEUTRAL, linestyle=":", label="ref(y)")
    axes.legend(frameon=False)
    return figure
