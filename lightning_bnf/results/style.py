"""How figures look: sizes and type that are read at a page's width, colours that stay apart for colour-blind eyes, and
one look a method in all of them."""

import io
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_bnf.runtime.files import replacing

WIDTH = 7.5
"""Inches, of a figure as wide as a notebook or a page."""
DPI = 200
TYPE = 9
"""Points of the smallest type."""
STEPS = "optimizer step"
CHOSEN, REJECTED, NEUTRAL = "#0072B2", "#D55E00", "#4d4d4d"


class Look(NamedTuple):
    """Of a method: its colour, and what tells it apart without: marker, line style, and hatch of a bar."""

    color: str
    marker: str
    line: Any
    hatch: str

    def point(self) -> dict[str, str]:
        """Arguments of a scatter plot."""
        return {"color": self.color, "marker": self.marker}

    def curve(self) -> dict[str, Any]:
        """Arguments of a line."""
        return {"color": self.color, "linestyle": self.line}


_DASHED, _LONG, _DOTTED, _MIXED, _TWICE = (0, (4, 2)), (0, (8, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (3, 1, 1, 1))
_KNOWN = {
    "base": Look(NEUTRAL, "d", "-", ""),  # no method
    "bnf": Look("#D55E00", "o", "-", ""),
    "dpo": Look("#0072B2", "s", _DASHED, "//"),
    "ipo": Look("#009E73", "D", _MIXED, ".."),
    "kto": Look("#E69F00", "^", _DOTTED, "xx"),
    "orpo": Look("#CC79A7", "v", _LONG, "\\\\"),
    "simpo": Look("#56B4E9", "P", _TWICE, "++"),
    "rdpo": Look("#8F8400", "X", _DASHED, "||"),
    "slichf": Look("#000000", "*", _DOTTED, "--"),
    "nllpll": Look("#7F3C00", "<", _MIXED, "oo"),
    "sft": Look("#808080", "h", _LONG, "OO"),
    "bnfrestore": Look("#F2945A", ">", _DASHED, "**"),
}
_OTHERS = [
    Look("#56B4E9", "p", _DOTTED, "--"),
    Look("#0072B2", "d", _MIXED, "\\\\"),
    Look("#004468", "H", _DASHED, "xx"),
    Look("#CC79A7", "8", _LONG, "++"),
    Look("#009E73", "s", _TWICE, "||"),
    Look("#E69F00", "D", "-", "oo"),
    Look("#000000", "^", _DOTTED, "**"),
]


def looks(names: Iterable[str]) -> dict[str, Look]:
    """The look of each name, different ones for all: methods of the field have always the same, however they are
    written (`SLiC-HF`, `nll_pll`), others take turns in what is left."""
    found, free = {}, 0
    for name in dict.fromkeys(names):
        known = _KNOWN.get(re.sub(r"[^a-z]", "", name.lower()) if not re.search(r"\d", name) else "")
        found[name] = known or _OTHERS[free % len(_OTHERS)]
        free += known is None
    return found


class NotebookFigure(Figure):
    """A figure that shows itself as a cell's last expression, also where `%matplotlib inline` was not called."""

    def _repr_png_(self) -> bytes:
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


def sheet(height: float, width: float = WIDTH) -> NotebookFigure:
    """An empty figure, its sizes in inches."""
    return NotebookFigure(figsize=(width, height), dpi=DPI, layout="constrained")


def single(title: str, x: str, y: str, height: float = 3.6) -> tuple[Figure, Any]:
    """A figure of one panel, and the panel."""
    figure = sheet(height)
    return figure, styled(figure.subplots(), title, x, y)


def styled(axes: Any, title: str, x: str, y: str) -> Any:
    """A panel with its title and the names of its axes."""
    axes.set_title(title, loc="left", fontsize=TYPE + 1)
    axes.set_xlabel(x, fontsize=TYPE)
    axes.set_ylabel(y, fontsize=TYPE)
    axes.tick_params(labelsize=TYPE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    if x == STEPS:  # there is no step 1.5
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return axes


def key_below(figure: Figure, columns: int) -> None:
    """One key for all panels, below them; what has the same name in several is shown once."""
    handles = {name: handle for axes in figure.axes for handle, name in zip(*axes.get_legend_handles_labels())}
    figure.legend(
        list(handles.values()),
        list(handles),
        loc="outside lower center",
        ncols=min(columns, max(1, len(handles))),
        frameon=False,
        fontsize=TYPE,
    )


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as the PNG `path`, which appears whole or stays as it was."""
    with replacing(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=DPI)
