"""Validation rows and the prompts of training: `validation: auto` holds rows out so that none is on both sides."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa

from lightning_bnf.datamodules.tokens.columns import Bools, among, codes, content_key, digests, hash_order
from lightning_bnf.datamodules.tokens.kept_arrays import kept_array
from lightning_bnf.datamodules.tokens.rows import RowView

SHARE = 0.05  # of the rows
AT_LEAST = 16  # rows, so that a metric of them says something
AT_MOST = 0.2  # of the rows: few rows are for training
_VERSION = 1  # of the draw, which is kept on disk
ROWS_NEEDED = 40  # with fewer, a fifth are under 8 rows, which say nothing


class Divided(NamedTuple):
    """Rows to train on and those held out, each in file order, and a sentence on the draw."""

    train: RowView
    validation: RowView
    sentence: str


def wanted(rows: int) -> int:
    """How many of so many rows are held out: 5 %, at least 16 but at most a fifth; under 40 rows none."""
    return 0 if rows < ROWS_NEEDED else min(max(AT_LEAST, round(SHARE * rows)), int(AT_MOST * rows))


def hold_out(rows: RowView, seed: int) -> Divided:
    """Draw validation rows from training rows, all rows of a prompt on the same side.

    The prompts are drawn in the order of a hash of seed and prompt, so neither the order of the rows nor anything of
    the run (layout, token budget, devices) changes the draw. A prompt whose rows are more than are still wanted is
    passed over: never more rows than `wanted` says, and fewer where prompts have many rows each.
    """
    if len(rows) < ROWS_NEEDED:
        none = f"validation: none, as {len(rows)} training rows are under {ROWS_NEEDED}; name files of your own for one"
        return Divided(rows, RowView([]), none)
    spaced = rows.values("spaced")
    key = f"{_VERSION} {seed} ".encode() + content_key(spaced)
    kept = kept_array("held_out", key, len(rows), lambda: _drawn(spaced, seed), np.bool_)
    if not kept.any():
        return Divided(rows, RowView([]), "validation: none, as no prompt has few enough of the rows to be held out")
    sentence = (
        f"validation: {int(kept.sum()):,} of the {len(rows):,} rows held out, drawn by their prompts with seed {seed}; "
        "no prompt is on both sides"
    )
    return Divided(rows.only(~kept), rows.only(kept), sentence)


def _drawn(spaced: pa.ChunkedArray, seed: int) -> Bools:
    """(N,) which rows are held out, by their prompts."""
    encoded = spaced.dictionary_encode()
    prompt = codes(encoded)
    places = digests(pa.chunked_array([encoded.chunk(0).dictionary]), f"[{seed}, ".encode(), b"]")
    counts, order = np.bincount(prompt), hash_order(places)
    held = np.zeros(len(counts), dtype=bool)
    room = wanted(len(prompt))
    for place, count in zip(order.tolist(), counts[order].tolist()):
        if count <= room:
            held[place] = True
            room -= count
        if not room:
            break
    return held[prompt]


def shared_prompts(train: RowView, validation: RowView) -> list[str]:
    """The places of the validation rows that have a prompt that is trained on."""
    if not len(train) or not len(validation):
        return []
    shared = among(validation.values("spaced"), train.values("spaced"))
    return [validation.source(i) for i in np.flatnonzero(shared).tolist()]
