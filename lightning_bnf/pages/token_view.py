"""The token view of a run, in a notebook."""

import html
from dataclasses import dataclass, field
from pathlib import Path

from lightning_bnf.pages.render import render
from lightning_bnf.pages.run_folder import read_run
from lightning_bnf.pages.scores import MOMENTS
from lightning_bnf.pages.tokens import RunScores, fitting, token_data
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class TokenView:
    """What a notebook's cell shows of the last expression: `page`, a whole HTML file, in a frame of its own, whose
    script sees nothing of the notebook."""

    page: str = field(repr=False)
    height: int

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.page)}" sandbox="allow-scripts" style="width: 100%; '
            f'height: {self.height}px; border: 0" title="token view"></iframe>'
        )


@checked
def token_view(run: str | Path, rows: PositiveInt | None = None, height: PositiveInt = 640) -> TokenView:
    """A run's rows token by token: chosen and rejected answers coloured by BNF's weight, log-ratio or probability.

    Args:
        run: The run folder.
        rows: The most rows to show; null shows all that the run has scored.
        height: Of the frame, in pixels.

    Raises `Refusal` for a folder of no run, and for a run that has scored no rows.
    """
    found = read_run(run, rows)
    if not found.snapshots:
        raise Refusal(f"run must be a run that has scored rows, got {run}: its settings may say --report.rows 0")
    shown, snapshots = found.shown(fitting(found.rows))
    data = token_data(shown, [RunScores(found.loss, found.loss, snapshots)], MOMENTS)
    return TokenView(render("token_view.html", f"{found.loss} on {found.model}", data), height)
