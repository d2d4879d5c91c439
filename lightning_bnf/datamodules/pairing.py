"""Pairs that lose a side: how much of a loss's gain needs pairs (Table 6 of the BNF paper)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from lightning_bnf.datamodules.template import TokenizedRow


def with_pairing_ratio(rows: Sequence[TokenizedRow], ratio: float, seed: int) -> list[TokenizedRow]:
    """The rows, of whose pairs only the share `ratio` keeps both sides; each other keeps one, preferred or not.

    Which pairs, and which of their sides, is drawn from `seed`, equally likely. Rows with one label only stay as they
    are. With the same seed, the pairs whole at a ratio are whole at every larger one, and the others keep the same
    side. Raises ValueError for a ratio outside [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"pairing_ratio {ratio}: accepted are numbers from 0 to 1")
    found = list(rows)
    pairs = [i for i, row in enumerate(found) if {one.label for one in row.completions} == {1, -1}]
    drawn = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pairs), generator=drawn).tolist()
    sides = (2 * torch.randint(2, (len(pairs),), generator=drawn) - 1).tolist()
    for place in order[round(ratio * len(pairs)) :]:
        row = found[pairs[place]]
        kept = tuple(one for one in row.completions if one.label == sides[place])
        found[pairs[place]] = replace(row, format="unpaired", completions=kept)
    return found
