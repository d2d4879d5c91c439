"""Figures of how far policies have moved from their reference: Figures 3 and 4 of the BNF paper."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from lightning_bnf.results.style import NEUTRAL, TYPE, Look, looks, sheet, single, styled

_ACROSS = 4


def plot_shifts(responses: pd.DataFrame) -> Figure:
    """Figure 3 of the BNF paper: how shifts from the reference are distributed over responses, one color a policy.

    `responses` as `shift_report.read_shifts` gives them. A violin is a policy; its bar is the median. (c) is (b)
    against (a), a panel for each policy with the others in grey.
    """
    policies = looks(responses["policy"])
    colors = {name: look.color for name, look in policies.items()}
    rows = -(-len(policies) // _ACROSS)
    figure = sheet(5.0 + 2.1 * rows)
    grid = figure.add_gridspec(2 + rows, 12, height_ratios=[1.15, *[1] * rows, 1.15])
    places = {
        "logp_shift": (grid[0, :6], "(a) Log-likelihood shift", "nats"),
        "logit_shift": (grid[0, 6:], "(b) Absolute logit shift", "logit units"),
        "logp_shift_per_token": (grid[-1, :4], "(d) Log-likelihood shift,\nper token", "nats a token"),
        "logit_shift_per_token": (grid[-1, 4:8], "(e) Absolute logit shift,\nper token", "logit units a token"),
        "gini_logit": (grid[-1, 8:], "(f) Evenness over tokens", "Gini (0: even) of logit shifts"),
    }
    for measure, (place, title, unit) in places.items():
        axes = styled(figure.add_subplot(place), title, "", unit)
        _violins(axes, [responses.loc[responses["policy"] == name, measure].to_numpy() for name in policies], colors)
        if measure.startswith("logp"):
            axes.axhline(0, color=NEUTRAL, linewidth=0.8)
    shared: Any = None
    for i, (name, look) in enumerate(policies.items()):
        row, column = divmod(i, _ACROSS)
        place = grid[1 + row, 3 * column : 3 * column + 3]
        shared = figure.add_subplot(place, sharex=shared, sharey=shared)
        _both(shared, responses, name, look, first=column == 0, title=f"(c) {name}" if i == 0 else name)
    return figure


def _both(axes: Any, responses: pd.DataFrame, name: str, look: Look, first: bool, title: str) -> None:
    """Both shifts of each response: a policy's own over all others', which could not be told apart in one panel."""
    styled(axes, title, "(a), nats", "(b), logit units" if first else "")
    axes.tick_params(labelleft=first)
    own = responses["policy"] == name
    axes.scatter(*responses.loc[~own, ["logp_shift", "logit_shift"]].to_numpy().T, s=5, color="#dddddd", linewidths=0)
    axes.scatter(
        *responses.loc[own, ["logp_shift", "logit_shift"]].to_numpy().T, s=14, alpha=0.7, linewidths=0, **look.point()
    )
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)


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
    figure, axes = single(title, f"percentile bin of {of}, with its bounds (nats)", "tokens (%)")
    policies = looks(bins["policy"])
    width = 0.8 / len(policies)
    for i, (name, look) in enumerate(policies.items()):
        own = bins[bins["policy"] == name]
        left = own["bin"] + (i - (len(policies) - 1) / 2) * width
        bar = {"color": look.color, "hatch": look.hatch, "edgecolor": "white", "linewidth": 0}
        axes.bar(left, 100 * own["share"], width=width, label=name, **bar)
    axes.axhline(10, color=NEUTRAL, linewidth=0.8, linestyle=":")
    first = bins[bins["policy"] == next(iter(policies))]
    labels = [
        f"{10 * (k - 1)}-{10 * k} %\n{_bound(low)}\nto\n{_bound(high)}"
        for k, low, high in zip(first["bin"], first["above"], first["up_to"])
    ]
    axes.set_xticks(first["bin"], labels, fontsize=TYPE)
    axes.grid(visible=False, axis="x")
    axes.legend(frameon=False, ncols=len(policies))
    return figure


def _bound(nats: float) -> str:
    return "open" if abs(nats) == float("inf") else f"{nats:+.2g}"
