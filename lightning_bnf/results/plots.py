"""Figures, one function each: from tidy tables to a matplotlib figure."""

import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_bnf.runtime.files import replacing
from lightning_bnf.runtime.refusal import Refusal

SCALING = "scaling"
STEPS = "optimizer step"
CHOSEN, REJECTED, NEUTRAL = "#1b7837", "#b2182b", "#4d4d4d"
OKABE_ITO = ("#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
"""Colours that stay apart for colour-blind eyes; with them always a marker or a line style."""
METHOD_LOOKS = {
    method: {"color": color, "marker": marker}
    for method, color, marker in zip(
        ("BNF", "DPO", "IPO", "KTO", "ORPO", "SimPO", "R-DPO", "SLiC-HF"), OKABE_ITO, "osD^vPX*"
    )
}
"""A method has one colour and one marker in all figures."""
_SMOOTH = 5  # steps
_POLICIES = (CHOSEN, "#2166ac", REJECTED, "#e08214", "#762a83", "#01665e", "#8c510a", NEUTRAL)


class NotebookFigure(Figure):
    """A figure that shows itself as a cell's last expression, also where `%matplotlib inline` was not called."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as the PNG `path`, which appears whole or stays as it was."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=120)


def _axes(title: str, x: str, y: str) -> tuple[Figure, Any]:
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    return figure, _styled(figure.subplots(), title, x, y)


def _styled(axes: Any, title: str, x: str, y: str) -> Any:
    axes.set_title(title, loc="left")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if x == STEPS:  # there is no step 1.5
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def _series(metrics: pd.DataFrame, split: str, metric: str) -> tuple[Any, Any]:
    rows = metrics[(metrics["split"] == split) & (metrics["metric"] == metric)]
    return rows["step"].to_numpy() + 1, rows["value"].to_numpy()


def _draw(axes: Any, metrics: pd.DataFrame, metric: str, color: str, label: str) -> None:
    """A metric at each training step, faint, with its running mean; and on the validation split as points."""
    step, value = _series(metrics, "train", metric)
    if len(step):
        axes.plot(step, value, color=color, alpha=0.25, linewidth=0.8)
        smooth = pd.Series(value).rolling(_SMOOTH, min_periods=1, center=True).mean()
        axes.plot(step, smooth, color=color, label=f"{label}train (mean of {_SMOOTH} steps)")
    step, value = _series(metrics, "val", metric)
    if len(step):
        axes.plot(step, value, "o--", color=color, label=f"{label}validation")


def plot_loss(metrics: pd.DataFrame, loss: str = "loss") -> Figure:
    """What is minimised, at each step and on the validation split; `metrics` as `results.read_metrics` gives them."""
    figure, axes = _axes(f"{loss}: what is minimised", STEPS, "loss (nats)")
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
    figure = NotebookFigure(figsize=(5.4 * len(panels), 4.0), layout="constrained")
    for axes, (name, title, unit) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        _styled(axes, title, STEPS, unit)
        for side, color in (("chosen", CHOSEN), ("rejected", REJECTED)):
            _draw(axes, metrics, f"{name}/{side}", color, f"{side}, ")
        if name == "logratios_mean":
            axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        axes.legend(frameon=False, fontsize="small")
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


def plot_constraints(curves: pd.DataFrame) -> Figure:
    """Table 2 of the BNF paper as curves: how the constraint C of each loss depends on the gap, a panel for each loss.

    `curves` as `table2.constraint_curves` gives them: lines are gradients of the losses, dots the printed formulas.
    """
    groups = list(curves.groupby("method", sort=False))
    figure = Figure(figsize=(3.0 * len(groups), 3.2), layout="constrained")
    for axes, (method, rows) in zip(figure.subplots(1, len(groups), squeeze=False)[0], groups):
        _styled(axes, method, "gap of log-likelihoods (nats)", "constraint C" if method == groups[0][0] else "")
        axes.plot(rows["gap"], rows["gradient"], color=CHOSEN, label="gradient of the loss")
        few = rows.iloc[:: max(1, len(rows) // 12)]
        axes.plot(few["gap"], few["printed"], "o", color=NEUTRAL, markersize=4, label="as printed")
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    figure.axes[0].legend(frameon=False, fontsize="small", loc="upper right")
    return figure


def plot_bench(rows: list[dict[str, Any]]) -> Figure:
    """Median time and peak memory of every variant, two panels for each case: bars, and against the tokens of a step
    where these are what differs (suite scaling); `rows` as the bench writes them."""
    table = pd.DataFrame(rows)
    table["median"] = [pd.Series(seconds).median() for seconds in table["seconds"]]
    cases = list(table.groupby(["suite", "case"], sort=False))
    heights = [max(len(group), 6 if suite == SCALING else 1) for (suite, _), group in cases]
    figure = Figure(figsize=(10.0, 1.2 + 0.4 * sum(heights) + 0.7 * len(cases)), layout="constrained")
    panels = figure.subplots(len(cases), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for ((suite, case), group), (left, right) in zip(cases, panels):
        left.set_title(f"{suite}: {case}", loc="left", fontsize="medium")
        if suite == SCALING:
            _against_tokens(left, right, group.to_dict("records"))
            continue
        for axes, values, unit in ((left, group["median"], "seconds"), (right, group["peak_bytes"] / 1e9, "peak GB")):
            bars = axes.barh(group["variant"], values, color=NEUTRAL, height=0.6)
            axes.bar_label(bars, fmt="%.2f", padding=3, fontsize="small")
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
        left.legend(frameon=False, fontsize="small", loc="upper left")


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
    """How log-probs of chosen, rejected and held-out text move under each method: thin a seed, thick their mean.

    `changes` as `results.displacement` gives them; `bounds`: kind -> the change at which the alarm fires.
    """
    kinds = {"chosen": "Chosen", "rejected": "Rejected", "held_out": "Held-out text"}
    figure = Figure(figsize=(12.0, 4.2), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True)
    colors = ("#1b7837", "#92c5de", "#4393c3", "#2166ac", "#b2182b", NEUTRAL)
    for axes, (kind, title) in zip(panels, kinds.items()):
        _styled(axes, title, STEPS, "change of mean log-prob (nats a token)" if kind == "chosen" else "")
        for (method, rows), color in zip(changes[changes["kind"] == kind].groupby("method"), colors):
            for _, one in rows.groupby("seed"):
                axes.plot(one["step"], one["change"], color=color, alpha=0.3, linewidth=0.8)
            mean = rows.groupby("step")["change"].mean()
            axes.plot(mean.index, mean, color=color, linewidth=2, label=method)
        axes.set_yscale("symlog", linthresh=1)  # collapses reach tens of nats, what matters first is below one
        axes.set_yticks([-30, -10, -3, -1, 0, 1], ["-30", "-10", "-3", "-1", "0", "+1"])
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        if kind in bounds:
            axes.axhline(bounds[kind], color=NEUTRAL, linewidth=0.8, linestyle=":", label="bound of the alarm")
    panels[0].legend(frameon=False, fontsize="small")
    return figure


def plot_means(tidy: pd.DataFrame, unit: str = "rate and 95 % interval", reference: str | None = None) -> Figure:
    """Means with their 95 % intervals, a panel for each metric and a line for each method; `tidy` as `matrix.means`.

    A dotted line goes through the mean of the method `reference`.
    """
    metrics, methods = list(tidy["metric"].unique()), list(tidy["method"].unique())
    figure = Figure(figsize=(3.1 * len(metrics) + 0.8, 1.3 + 0.32 * len(methods)), layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0], metrics):
        _styled(axes, metric, unit, "")
        own = tidy[tidy["metric"] == metric].set_index("method").loc[methods]
        axes.hlines(range(len(methods)), own["low"], own["high"], color=NEUTRAL, linewidth=1.4)
        axes.scatter(own["score"], range(len(methods)), color=CHOSEN, zorder=3)
        if reference is not None:
            axes.axvline(own.loc[reference, "score"], color=NEUTRAL, linestyle=":", linewidth=1)
        axes.set_yticks(range(len(methods)), methods)
    figure.axes[0].invert_yaxis()  # shared by all panels
    return figure


def plot_tradeoff(runs: pd.DataFrame, gain: str, tax: str) -> Figure:
    """Gain against tax, `runs` as `matrix.tradeoff` gives them: small points are runs, hollow where their setting was
    not picked, and a large one is the mean of a method's picked runs.

    Up is less tax, right is more gain; (0, 0) is the base.
    """
    figure, axes = _axes("Every run against the base", f"change of the pass rate, {gain}", f"change, {tax}")
    figure.set_size_inches(8.0, 4.8)
    for i, (method, own) in enumerate(runs.groupby("method", sort=False)):
        color = _POLICIES[i % len(_POLICIES)]
        kept, left = own[own["picked"]], own[~own["picked"]]
        axes.scatter(left[gain], left[tax], s=22, facecolors="none", edgecolors=color, alpha=0.6, linewidths=0.8)
        axes.scatter(kept[gain], kept[tax], s=22, color=color, alpha=0.6, linewidths=0)
        axes.scatter(kept[gain].mean(), kept[tax].mean(), s=120, color=color, label=method, zorder=3)
    axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def plot_printed_plane(plane: pd.DataFrame) -> Figure:
    """Gain against tax in points, a panel for each base model, `plane` as `claims.printed_plane` gives it."""
    models, methods = list(plane["model"].unique()), [name for name in METHOD_LOOKS if name in set(plane["method"])]
    figure = Figure(figsize=(7.5, 3.3), dpi=200, layout="constrained")
    for axes, model in zip(figure.subplots(1, len(models), sharey=True, squeeze=False)[0], models):
        _styled(axes, model, "", "")
        axes.set_title(model, loc="left", fontsize=9)
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        for line in plane[plane["model"] == model].itertuples():
            axes.scatter(line.gain, line.tax, s=40, zorder=3, label=line.method, **METHOD_LOOKS[line.method])
        axes.set_xlabel("change of alignment (points)", fontsize=9)
    figure.axes[0].set_ylabel("change of reasoning (points)")
    handles = {label: handle for axes in figure.axes for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(
        [handles[name] for name in methods],
        methods,
        frameon=False,
        loc="outside lower center",
        ncols=len(methods),
        fontsize=9,
    )
    return figure


def plot_shifts(responses: pd.DataFrame) -> Figure:
    """Figure 3 of the BNF paper: how shifts from the reference are distributed over responses, one color a policy.

    `responses` as `shift_report.read_shifts` gives them. A violin is a policy; its bar is the median.
    """
    figure = Figure(figsize=(12.0, 7.0), layout="constrained")
    (a, b, c), (d, e, f) = figure.subplots(2, 3)
    policies = list(responses["policy"].unique())
    colors = dict(zip(policies, [_POLICIES[i % len(_POLICIES)] for i in range(len(policies))]))
    panels = (
        (a, "logp_shift", "(a) Log-likelihood shift", "nats"),
        (b, "logit_shift", "(b) Absolute logit shift", "logit units"),
        (d, "logp_shift_per_token", "(d) Log-likelihood shift, length-normalised", "nats a token"),
        (e, "logit_shift_per_token", "(e) Absolute logit shift, length-normalised", "logit units a token"),
        (f, "gini_logit", "(f) Gini coefficient of token logit shifts", "Gini (0: even over tokens)"),
    )
    for axes, measure, title, unit in panels:
        _styled(axes, title, "", unit)
        _violins(axes, [responses.loc[responses["policy"] == name, measure].to_numpy() for name in policies], colors)
        if measure.startswith("logp"):
            axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    _styled(c, "(c) Logit against log-likelihood shift", "log-likelihood shift (nats)", "absolute logit shift")
    for name in policies:
        own = responses[responses["policy"] == name]
        c.scatter(own["logp_shift"], own["logit_shift"], s=9, alpha=0.45, color=colors[name], label=name, linewidths=0)
    c.axvline(0, color=NEUTRAL, linewidth=0.8)
    c.legend(frameon=False, fontsize="small", markerscale=2)
    return figure


def _violins(axes: Any, values: list[Any], colors: Mapping[str, str]) -> None:
    """One violin a policy with its median; of equal values, which have no density, the median alone."""
    for place, (own, color) in enumerate(zip(values, colors.values())):
        if len(own) > 1 and own.max() > own.min():
            body = axes.violinplot(own, [place], widths=0.8, showextrema=False)["bodies"][0]
            body.set(facecolor=color, alpha=0.6)
        axes.hlines(pd.Series(own).median(), place - 0.2, place + 0.2, color=color, linewidth=2.5)
    axes.set_xticks(range(len(values)), list(colors))
    middle, half = (len(values) - 1) / 2, max(len(values), 3) / 2  # a single violin need not fill the panel
    axes.set_xlim(middle - half, middle + half)


def plot_shift_bins(bins: pd.DataFrame, of: str) -> Figure:
    """Figure 4 of the BNF paper: how each policy's token shifts fall into the percentile bins of the policy `of`.

    `bins` as `shift_report.read_shifts` gives them. The policy that defines the bins has 10 % in each.
    """
    title = f"Token log-likelihood shifts in the percentile bins of {of}"
    figure, axes = _axes(title, f"percentile bin of {of}, with its bounds (nats)", "tokens (%)")
    figure.set_size_inches(10.0, 4.2)
    policies = list(bins["policy"].unique())
    width = 0.8 / len(policies)
    for i, name in enumerate(policies):
        own = bins[bins["policy"] == name]
        left = own["bin"] + (i - (len(policies) - 1) / 2) * width
        axes.bar(left, 100 * own["share"], width=width, color=_POLICIES[i % len(_POLICIES)], label=name)
    axes.axhline(10, color=NEUTRAL, linewidth=0.8, linestyle=":")
    first = bins[bins["policy"] == policies[0]]
    labels = [
        f"{10 * (k - 1)}-{10 * k} %\n{_bound(low)} to\n{_bound(high)}"
        for k, low, high in zip(first["bin"], first["above"], first["up_to"])
    ]
    axes.set_xticks(first["bin"], labels, fontsize="small")
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, ncols=len(policies))
    return figure


def _bound(nats: float) -> str:
    return "open" if abs(nats) == float("inf") else f"{nats:+.2g}"
