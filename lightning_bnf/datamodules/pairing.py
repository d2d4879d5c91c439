"""Pairs that lose a side: how much of a loss's gain needs pairs (Table 6 of the BNF paper)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lightning_bnf.datamodules.rows import Rows
from lightning_bnf.datamodules.template import TokenizedRow


class PartlyPaired(Rows):
    """Rows of which only the share `ratio` of the pairs keeps both sides; each other pair keeps one, preferred or not.

    Which pairs, and which of their sides, is drawn from `seed`, equally likely. Other rows stay as they are. With the
    same seed, the pairs whole at a ratio are whole at every larger one, and the others keep the same side. Rows are
    read when they are asked for. Raises ValueError for a ratio outside [0, 1].
    """

    def __init__(self, rows: Sequence[TokenizedRow], ratio: float, seed: int):
        if not 0 <= ratio <= 1:
            raise ValueError(f"pairing_ratio {ratio}: accepted are numbers from 0 to 1")
        self._rows = rows
        pairs = [i for i, row in enumerate(rows) if row.format == "paired"]
        drawn = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(pairs), generator=drawn).tolist()
        sides = (2 * torch.randint(2, (len(pairs),), generator=drawn) - 1).tolist()
        whole = round(ratio * len(pairs))
        self._kept = {pairs[place]: sides[place] for place in order[whole:]}
        self.report = f"pairing_ratio {ratio:g}: {whole} of {len(rows)} rows are pairs"

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, index: int) -> TokenizedRow:
        row, side = self._rows[index], self._kept.get(index)
        if side is None:
            return row
        kept = tuple(one for one in row.completions if one.label == side)
        return replace(row, format="unpaired", completions=kept)
