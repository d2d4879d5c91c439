"""Figures, one function each: from tidy tables to a matplotlib figure."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_bnf.results.style import (
    CHOSEN,
    NEUTRAL,
    REJECTED,
    STEPS,
    TYPE,
    key_below,
    looks,
    sheet,
    single,
    styled,
)
from lightning_bnf.runtime.refusal import Refusal

SCALING = "scaling"
_SMOOTH = 5  # steps


def _series(metrics: pd.DataFrame, split: str, metric: str) -> tuple[Any, Any]:
    rows = metrics[(metrics["split"] == split) & (metrics["metric"] == metric)]
    return rows["step"].to_numpy() + 1, rows["value"].to_numpy()


def _draw(axes: Any, metrics: pd.DataFrame, metric: str, color: str, label: str) -> None:
    """A metric at each training step, faint, with its running mean; and on the validation split as points."""
    step, value = _series(metrics, "train", metric)
    if 0 < len(step) < 2 * _SMOOTH:  # of which a running mean would be a level line
        axes.plot(step, value, color=color, label=f"{label}train")
    elif len(step):
        axes.plot(step, value, color=color, alpha=0.25, linewidth=0.8)
        smooth = pd.Series(value).rolling(_SMOOTH, min_periods=1, center=True).mean()
        axes.plot(step, smooth, color=color, label=f"{label}train (mean of {_SMOOTH} steps)")
    step, value = _series(metrics, "val", metric)
    if len(step):
        axes.plot(step, value, "o--", color=color, label=f"{label}validation")


def plot_loss(metrics: pd.DataFrame, loss: str = "loss") -> Figure:
    """What is minimised, at each step and on the validation split; `metrics` as `results.read_metrics` gives them."""
    figure, axes = single(f"{loss}: what is minimised", STEPS, "loss (nats)")
    if loss.startswith("BNF"):  # the value of a weighted log-likelihood moves with its weights
        note = "Its weights are detached, so its value may rise in a run that goes well: see logps.png."
        axes.text(0.0, 1.0, note, transform=axes.transAxes, fontsize=TYPE, verticalalignment="bottom")
        axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=TYPE + 1, pad=18)
    _draw(axes, metrics, "loss", NEUTRAL, "")
    axes.legend(frameon=False)
    return figure


def plot_logps(metrics: pd.DataFrame) -> Figure:
    """Log-probability a token of chosen and rejected completions, and where there is a reference, its shift from it.

    Each step has other rows, so the left panel moves with the data; the right one, against the reference on the same
    rows, shows what training did: both classes falling together is displacement.
    """
    panels = [("logps_mean", "Log-probability", "mean log-probability (nats a token)")]
    if metrics["metric"].str.startswith("logratios_mean/").any():
        panels.append(("logratios_mean", "Shift from the reference", "mean log-ratio (nats a token)"))
    figure = sheet(3.4)
    for axes, (name, title, unit) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        styled(axes, title, STEPS, unit)
        for side, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
            _draw(axes, metrics, f"{name}/{side}", color, f"{side}, ")
        if name == "logratios_mean":
            axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    key_below(figure, 2)
    return figure


def plot_weights(weights: Mapping[str, Any]) -> Figure:
    """The distribution of BNF's token weight, one line per name (such as "steps 1-10"): values in [0, 1]."""
    figure, axes = single(
        "Distribution of BNF's weight", "weight w (1: as in fine-tuning, 0: left alone)", "tokens (%)"
    )
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
    figure, axes = single(f"Gradient on a {kind} token", r"likelihood $\pi(y)$", r"$|\partial L / \partial z_y|$")
    own = curves[curves["label"] == label]
    for name, look in looks(own["loss"]).items():
        rows = own[own["loss"] == name]
        axes.plot(rows["likelihood"], rows["gradient"], label=name, linewidth=2, **look.curve())
    axes.axvline(reference, color=NEUTRAL, linestyle=":", label=r"$\mathrm{ref}(y)$")
    axes.legend(frameon=False)
    return figure


def plot_constraints(curves: pd.DataFrame) -> Figure:
    """Table 2 of the BNF paper as curves: how the constraint C of each loss depends on the gap, a panel for each loss.

    `curves` as `table2.constraint_curves` gives them: lines are gradients of the losses, dots the printed formulas.
    """
    groups = list(curves.groupby("method", sort=False))
    figure = sheet(2.6)
    for axes, (method, rows) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups):
        styled(axes, method, "gap (nats)", "constraint $C$" if method == groups[0][0] else "")
        axes.plot(rows["gap"], rows["gradient"], color=CHOSEN, label="gradient of the loss")
        few = rows.iloc[:: max(1, len(rows) // 12)]
        axes.plot(few["gap"], few["printed"], "o", color=NEUTRAL, markersize=4, label="as printed")
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    key_below(figure, 2)
    return figure


def plot_bench(rows: list[dict[str, Any]]) -> Figure:
    """Median time and peak memory of every variant, two panels for each case: bars, and against the tokens of a step
    where these are what differs (suite scaling); `rows` as the bench writes them."""
    table = pd.DataFrame(rows)
    table["median"] = [pd.Series(seconds).median() for seconds in table["seconds"]]
    cases = list(table.groupby(["suite", "case"], sort=False))
    heights = [max(len(group), 6 if suite == SCALING else 1) for (suite, _), group in cases]
    figure = sheet(0.8 + 0.3 * sum(heights) + 0.6 * len(cases))
    panels = figure.subplots(len(cases), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for ((suite, case), group), (left, right) in zip(cases, panels):
        left.set_title(f"{suite}: {case}", loc="left", fontsize=TYPE + 1)
        if suite == SCALING:
            _against_tokens(left, right, group.to_dict("records"))
            continue
        for axes, values, unit in ((left, group["median"], "seconds"), (right, group["peak_bytes"] / 1e9, "peak GB")):
            bars = axes.barh(group["variant"], values, color=NEUTRAL, height=0.6)
            axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=TYPE)
            axes.invert_yaxis()
            axes.set_xlabel(unit)
            axes.margins(x=0.15)
            axes.spines[["top", "right"]].set_visible(False)
        right.set_yticks([])
    return figure


def _against_tokens(left: Any, right: Any, rows: list[dict[str, Any]]) -> None:
    """Median time, with the line through it, and peak memory."""
    tokens = [statistics.median(row["tokens"]) for row in rows]
    for axes, unit in ((left, "seconds"), (right, "peak GB")):
        axes.set_xlabel("tokens a step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    left.plot(tokens, [statistics.median(row["seconds"]) for row in rows], "o", color=NEUTRAL)
    right.plot(tokens, [row["peak_bytes"] / 1e9 for row in rows], "o-", color=NEUTRAL)
    right.set_ylim(0, 1.15 * max(row["peak_bytes"] for row in rows) / 1e9)
    left.set(xlim=(0, None), ylim=(0, None))
    right.set_xlim(left=0)
    if len(rows) >= 3:
        line = scaling_line(rows)
        left.axline((0, line.fixed), slope=line.per_token, color=NEUTRAL, linewidth=0.8, label=str(line))
        left.legend(frameon=False, fontsize=TYPE, loc="upper left")


@dataclass(frozen=True)
class Line:
    """seconds = fixed + tokens * per_token; misses: by how much, as a share of what was measured, at most."""

    fixed: float
    per_token: float
    misses: float

    @classmethod
    def through(cls, tokens: Sequence[float], seconds: Sequence[float]) -> "Line":
        """The line of least squared relative errors. Raises `Refusal` for fewer than three points, which show nothing,
        and for times that are not positive."""
        if len(tokens) != len(seconds) or len(tokens) < 3 or min(seconds) <= 0:
            raise Refusal(f"tokens and seconds must be three points or more, of times > 0, got {tokens} and {seconds}")
        x, y = np.asarray(tokens, dtype=float), np.asarray(seconds, dtype=float)
        columns = np.stack([np.ones_like(x), x], axis=1) / y[:, None]
        (fixed, per_token), *_ = np.linalg.lstsq(columns, np.ones_like(y), rcond=None)
        return cls(float(fixed), float(per_token), float(np.abs((fixed + per_token * x) / y - 1).max()))

    def __str__(self) -> str:
        return (
            f"{self.fixed:.2f} s + {1000 * self.per_token:.2f} ms a token (misses by {100 * self.misses:.1f} % at most)"
        )


def scaling_line(rows: list[dict[str, Any]]) -> Line:
    """The line through the median times of the suite scaling against the median tokens of a step.

    Raises `Refusal` where the suite has fewer than three cases.
    """
    own = [row for row in rows if row["suite"] == SCALING]
    tokens, seconds = ([statistics.median(row[name]) for row in own] for name in ("tokens", "seconds"))
    return Line.through(tokens, seconds)


def plot_displacement(changes: pd.DataFrame, bounds: Mapping[str, float]) -> Figure:
    """How log-probs of chosen, rejected and held-out text move under each method: thin a seed, thick their mean. The
    axis is logarithmic below -1 where one of them falls by more than 5 nats a token.

    `changes` as `results.displacement` gives them; `bounds`: kind -> the change at which the alarm fires.
    """
    kinds = {"chosen": "Chosen", "rejected": "Rejected", "held_out": "Held-out text"}
    figure = sheet(3.6)
    panels = figure.subplots(1, len(kinds), sharey=True)
    methods = looks(sorted(changes["method"].unique()))
    collapsed = changes["change"].min() < -5  # by tens of nats, while what matters first is below one
    ticks = [-30, -10, -3, -1, 0, 1]
    while len(ticks) > 3 and ticks[1] <= changes["change"].min():  # no room for what is not there
        del ticks[0]
    for axes, (kind, title) in zip(panels, kinds.items()):
        styled(axes, title, STEPS, "change of log-prob (nats a token)" if kind == "chosen" else "")
        for method, rows in changes[changes["kind"] == kind].groupby("method"):
            for _, one in rows.groupby("seed"):
                axes.plot(one["step"], one["change"], color=methods[method].color, alpha=0.3, linewidth=0.8)
            mean = rows.groupby("step")["change"].mean()
            axes.plot(mean.index, mean, linewidth=1.8, label=method, **methods[method].curve())
        if collapsed:
            axes.set_yscale("symlog", linthresh=1)
            axes.set_yticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        if kind in bounds:
            axes.axhline(bounds[kind], color=NEUTRAL, linewidth=0.8, linestyle=":", label="bound of the alarm")
    key_below(figure, 3)
    return figure


def plot_families(rates: pd.DataFrame) -> Figure:
    """Pass rates as a heat map, `rates` as `strict.family_rates` gives them: trained families above the line, kept-out
    ones below it; left the best constant answer and the best place in the prompt."""
    shown = rates.drop(columns="n").astype(float)
    figure = sheet(1.2 + 0.27 * len(shown))
    axes = figure.subplots()
    image = axes.imshow(shown, cmap="cividis", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(shown.shape):
        value = shown.iat[row, column]
        ink = "white" if value < 0.55 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=TYPE)
    groups = list(shown.index.get_level_values(0))
    axes.axhline(groups.count(groups[0]) - 0.5, color="white", linewidth=3)
    axes.axvline(1.5, color="white", linewidth=3)
    axes.set_yticks(range(len(shown)), [family for _, family in shown.index], fontsize=TYPE)
    axes.set_xticks(range(shown.shape[1]), shown.columns, fontsize=TYPE, rotation=45, ha="left")
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=40)
    bar.set_label("share of prompts that pass", fontsize=TYPE)
    bar.ax.tick_params(labelsize=TYPE)
    return figure


def plot_printed_plane(plane: pd.DataFrame) -> Figure:
    """Gain against tax in points, a panel for each base model, `plane` as `claims.printed_plane` gives it."""
    models, look = list(plane["model"].unique()), looks(plane["method"])
    figure = sheet(3.3)
    for axes, model in zip(figure.subplots(1, len(models), sharex=True, sharey=True, squeeze=False)[0], models):
        styled(axes, model, "change of alignment (points)", "")
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        for line in plane[plane["model"] == model].itertuples():
            axes.scatter(line.gain, line.tax, s=40, zorder=3, label=line.method, **look[line.method].point())
    figure.axes[0].set_ylabel("change of reasoning (points)", fontsize=TYPE)
    key_below(figure, len(look))
    return figure
