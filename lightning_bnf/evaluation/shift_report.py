"""What `analyze` found: on disk, as tables, and as the paper's Figures 3 and 4."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_bnf.evaluation.shifts import MEASURES, paired_summary, summary
from lightning_bnf.results.shift_plots import plot_shift_bins, plot_shifts
from lightning_bnf.results.style import save_figure
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

RESULT = "shifts.json"


@dataclass(frozen=True)
class Shifts:
    """Shifts of policies from their reference.

    responses: a line for each policy and response: policy, id, label, and what `shifts.response_shifts` gives
    bins: as `shifts.bin_table` gives it; bins_of: the policy that defines them
    """

    responses: pd.DataFrame
    bins: pd.DataFrame
    bins_of: str

    @property
    def summary(self) -> pd.DataFrame:
        """Mean of every measure with its interval, as `shifts.summary` gives it."""
        return summary(self.responses)

    @property
    def table(self) -> pd.DataFrame:
        """Policies by measures: the mean, and its 95 % interval in brackets."""
        return _texts(self.summary, "")

    def differences(self, of: str) -> pd.DataFrame:
        """What the policy `of` has more than each other on the same prompts, as `shifts.paired_summary` gives it: other
        policies by measures, as in `table`."""
        return _texts(paired_summary(self.responses, of), "+")


def _texts(found: pd.DataFrame, sign: str) -> pd.DataFrame:
    shown = [
        f"{mean:{sign}.3g} [{low:{sign}.3g}, {high:{sign}.3g}]"
        for mean, low, high in zip(found["mean"], found["low"], found["high"])
    ]
    wide = found.assign(text=shown).pivot(index="policy", columns="measure", values="text")
    return wide.loc[found["policy"].unique(), list(MEASURES)].rename(columns=MEASURES)


def write_shifts(folder: Path, shifts: Shifts, about: Mapping[str, Any]) -> None:
    """shifts.json, with what it is `about` (models, data, settings, versions), shifts.png and shift_bins.png."""
    # JSON has no infinity: the outer bins are open, and their outer bounds null
    bins = shifts.bins.astype(object).where(~shifts.bins.isin([math.inf, -math.inf]), None)
    result = {
        **about,
        "summary": shifts.summary.to_dict("records"),
        "bins_of": shifts.bins_of,
        "bins": bins.to_dict("list"),
        "responses": shifts.responses.round(6).to_dict("list"),
    }
    write_text(folder / RESULT, json.dumps(result, indent=1, allow_nan=False) + "\n")
    save_figure(plot_shifts(shifts.responses), folder / "shifts.png")
    save_figure(plot_shift_bins(shifts.bins, shifts.bins_of), folder / "shift_bins.png")


def read_shifts(path: str | Path) -> Shifts:
    """The shifts that `analyze` wrote: its output folder, or the JSON file in it. Raises `Refusal` for others."""
    path = Path(path)
    file = path / RESULT if path.is_dir() else path
    held = json.loads(file.read_text()) if file.is_file() else {}
    if not {"responses", "bins", "bins_of"} <= set(held):
        raise Refusal(f"path must be the folder or the {RESULT} of `python -m lightning_bnf analyze`, got {path}")
    bins = pd.DataFrame(held["bins"]).astype({"above": float, "up_to": float})
    bins = bins.fillna({"above": -math.inf, "up_to": math.inf})
    return Shifts(pd.DataFrame(held["responses"]), bins, held["bins_of"])
