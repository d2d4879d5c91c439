"""Figures of the frontier and of what BNF's weight does."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_bnf.results.style import CHOSEN, NEUTRAL, REJECTED, TYPE, key_below, looks, sheet, styled

LABELS = {
    "passes": "greedy answers that pass",
    "passes_kept_out": "passes, kept-out families",
    "choices_ranked": "wrong options below the right one",
    "choices": "questions answered right",
    "prose": "log-prob of prose (nats)",
    "kl_base": "KL(base || policy) (nats a sample)",
}
_STYLES = ("-", "--", ":", "-.")
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#E69F00")


def plot_frontier(
    points: pd.DataFrame, y: str, x: str = "passes", columns: int = 3, lowest: float | None = None
) -> Figure:
    """A panel for each method: its measure `y` against `x` from the base through the moments of its runs, one line for
    each learning rate (means over seeds, with bars from the lowest to the highest of both), over all other methods in
    grey. A panel's title says of how many seeds.

    `points` as `reproduction.curves.points` gives them; `lowest`: where the vertical axis ends, and a panel says how
    far its lines go on. Distances from the base are on a logarithmic axis from 1 nat on: they differ by orders.
    """
    methods = list(dict.fromkeys(points["method"]))
    rates = sorted(points["rate"].unique())
    rows = -(-len(methods) // columns)
    figure, drawn_as = sheet(0.6 + 2.2 * rows), looks(methods)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flatten()
    means, least, most = (_wide(points, x, y, how) for how in ("mean", "min", "max"))
    for axes, method in zip(panels, methods):
        styled(axes, f"{method}, {_seeds(points, method)}", "", "")
        if x.startswith("kl_"):
            axes.set_xscale("symlog", linthresh=1)
        for other in methods:
            for rate in rates:
                if other != method and (other, rate) in means.index:
                    axes.plot(*_line(means, other, rate, x, y), color="#d9d9d9", linewidth=0.8, zorder=1)
        look = drawn_as[method].point()
        for rate, style in zip(rates, _STYLES):
            if (method, rate) in means.index:
                middle, low, high = (_line(frame, method, rate, x, y) for frame in (means, least, most))
                along, up = (np.abs(np.array([middle[i] - low[i], high[i] - middle[i]])) for i in (0, 1))
                lines = {"linestyle": style, "markersize": 4, "linewidth": 1.4, "elinewidth": 0.6}
                axes.errorbar(*middle, up, along, **look, **lines)
        deepest = means.loc[method][y].min()
        if lowest is not None and deepest < lowest:
            axes.annotate(f"down to {deepest:.2f}", (0.03, 0.04), xycoords="axes fraction", fontsize=TYPE)
    if lowest is not None:
        panels[0].set_ylim(bottom=lowest)
    for axes in panels[len(methods) :]:
        axes.set_visible(False)
    handles = [panels[0].plot([], [], color=NEUTRAL, linestyle=style)[0] for _, style in zip(rates, _STYLES)]
    figure.legend(
        handles,
        [f"rate {_rate(rate)}" for rate in rates],
        loc="outside lower center",
        ncols=4,
        fontsize=TYPE,
        frameon=False,
    )
    for axes in panels[max(0, len(methods) - columns) : len(methods)]:
        axes.set_xlabel(LABELS.get(x, x), fontsize=TYPE)
        axes.tick_params(labelbottom=True)  # below it may be no panel
    figure.supylabel(LABELS.get(y, y), fontsize=TYPE + 1)
    return figure


def _seeds(points: pd.DataFrame, method: str) -> str:
    """ "2 seeds", or "1 to 2 seeds" where rates have different numbers of them."""
    counts = points[points["method"] == method].groupby("rate")["seed"].nunique()
    few, many = counts.min(), counts.max()
    return f"{few} to {many} seeds" if few < many else f"{many} seed{'s' if many > 1 else ''}"


def _rate(rate: float) -> str:
    """All in one form: 1e-4, not 0.0001 beside 5e-05."""
    digits, power = f"{rate:e}".split("e")
    return f"{float(digits):g}e{int(power)}"


def _wide(points: pd.DataFrame, x: str, y: str, how: str) -> pd.DataFrame:
    """Index (method, rate, share), columns x and y, over seeds."""
    kept = points[points["measure"].isin([x, y])]
    return kept.pivot_table(index=["method", "rate", "share"], columns="measure", values="value", aggfunc=how)


def _line(frame: pd.DataFrame, method: str, rate: float, x: str, y: str) -> tuple[np.ndarray, np.ndarray]:
    mine = frame.loc[(method, rate)].sort_index()
    return mine[x].to_numpy(), mine[y].to_numpy()


def plot_tax(table: pd.DataFrame, of: str, measures: Sequence[str]) -> Figure:
    """What `of` keeps more than each other method at matched alignment, with 95 % intervals; filled where Holm's
    corrected p is below 0.05. `table` as `reproduction.frontier.tax` gives it."""
    figure, drawn_as = sheet(1.0 + 0.32 * table["method"].nunique()), looks(table["method"])
    for axes, measure in zip(figure.subplots(1, len(measures), squeeze=False, sharey=True)[0], measures):
        styled(axes, "", LABELS.get(measure, measure), "")
        axes.axvline(0, color=NEUTRAL, linewidth=0.8)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        for place, line in enumerate(table[table["metric"] == measure].itertuples()):
            look = drawn_as[line.method].point()
            known = np.isfinite(line.low)
            spread = [[line.difference - line.low], [line.high - line.difference]] if known else None
            sure = known and line.corrected < 0.05
            axes.errorbar(
                [line.difference], [place], xerr=spread, **look, markerfacecolor=look["color"] if sure else "white"
            )
        axes.set_yticks(range(table["method"].nunique()), [f"{of} - {one}" for one in dict.fromkeys(table["method"])])
        axes.set_ylim(table["method"].nunique() - 0.5, -0.5)  # the first on top, none on the border
    return figure


def plot_power(seen: Mapping[str, pd.DataFrame]) -> Figure:
    """The smallest difference that is told from 0 in four of five experiments against the number of seeds: a panel for
    each measure, a line for each column of its frame, whose index are seeds."""
    figure = sheet(3.0)
    for axes, (name, frame) in zip(figure.subplots(1, len(seen), squeeze=False)[0], seen.items()):
        styled(axes, name, "seeds of each method", "")
        for column, color, style, marker in zip(frame, _COLORS, _STYLES, "osD^"):
            axes.plot(frame.index, frame[column], color=color, linestyle=style, marker=marker, label=column)
        axes.set_ylim(bottom=0)
    figure.supylabel("smallest difference seen", fontsize=TYPE)
    key_below(figure, columns=2)
    return figure


def plot_flows(flows: pd.DataFrame) -> Figure:
    """How far a dispreferred token's logit has moved, against time: BNF by the power of its weight, DPO by beta.

    `flows` as `reproduction.weight_flow.flows` gives them.
    """
    figure = sheet(3.2)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (kind, symbol) in zip(panels, (("BNF", r"\alpha"), ("DPO", r"\beta"))):
        styled(axes, kind, "time (learning rate times steps)", "")
        axes.set_xscale("log")
        mine = flows[flows["kind"] == kind]
        color = looks([kind])[kind].color
        for (strength, line), style in zip(mine.groupby("strength"), _STYLES):
            axes.plot(
                line["time"],
                line["moved"],
                color=color,
                linestyle=style,
                label=f"${symbol}={strength:g}$",
                linewidth=1.6,
            )
        axes.legend(frameon=False, fontsize=TYPE)
    panels[0].set_ylabel("logit minus its start (nats)")
    panels[0].set_ylim(-30, 1)
    return figure


def plot_near_duplicates(toy: pd.DataFrame) -> Figure:
    """Chosen and rejected log-probs of the toy against time. `toy` as `reproduction.weight_flow.near_duplicates`."""
    figure, drawn_as = sheet(3.0), looks(toy["method"])
    panels = figure.subplots(1, 2)
    for axes, side in zip(panels, ("chosen", "rejected")):
        styled(
            axes, f"the {side} answer's token", "time (learning rate times steps)", "log-prob minus its start (nats)"
        )
        for method, line in toy.groupby("method", sort=False):
            axes.plot(line["time"], line[side], **drawn_as[method].curve(), label=method, linewidth=1.6)
        axes.set_xscale("symlog", linthresh=0.01)
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    panels[0].legend(frameon=False, fontsize=TYPE)
    panels[1].set_ylim(-8, 0.5)
    return figure


def plot_pair(tokens: pd.DataFrame) -> Figure:
    """What a model gives the tokens of a pair's answers, which lie over each other. `tokens` as
    `reproduction.figure2.token_table` gives them; tokens that differ are hatched and bold, with their probability."""
    figure = sheet(3.4)
    panels = figure.subplots(2, 1, sharey=True)
    for axes, side, color in zip(panels, ("chosen", "rejected"), (CHOSEN, REJECTED)):
        mine = tokens[tokens["side"] == side].reset_index()
        total = mine["logp"].sum()
        styled(axes, f"{side}: {total:.1f} nats in all", "", "probability")
        bars = axes.bar(mine.index, np.exp(mine["logp"]), color=color, alpha=0.35)
        for bar, differs in zip(bars, mine["differs"]):
            if differs:
                bar.set(alpha=1.0, edgecolor="black", hatch="//")
                low = (bar.get_x(), max(bar.get_height(), 0.02))
                axes.annotate(f"{bar.get_height():.1g}", low, (2, 2), textcoords="offset points", fontsize=TYPE)
        axes.grid(visible=False, axis="x")
        axes.set_xticks(mine.index, [token.strip() or "·" for token in mine["token"]], fontsize=TYPE, rotation=60)
        for label, differs in zip(axes.get_xticklabels(), mine["differs"]):
            label.set_fontweight("bold" if differs else "normal")
    panels[0].set_ylim(0, 1.05)
    return figure
