"""Validation rows and the prompts of training: `validation: auto` holds rows out so that none is on both sides."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.tokens.rows import RowView

SHARE = 0.05  # of the rows
AT_LEAST = 16  # rows, so that a metric of them says something
AT_MOST = 0.2  # of the rows: few rows are for training
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
    groups: dict[bytes, list[int]] = {}
    for i in range(len(rows)):
        groups.setdefault(_place(rows.prompt(i), seed), []).append(i)
    held: set[int] = set()
    room = wanted(len(rows))
    for _, group in sorted(groups.items()):
        if len(group) <= room:
            held.update(group)
            room -= len(group)
    if not held:
        return Divided(rows, RowView([]), "validation: none, as no prompt has few enough of the rows to be held out")
    sentence = (
        f"validation: {len(held):,} of the {len(rows):,} rows held out, drawn by their prompts with seed {seed}; no"
        " prompt is on both sides"
    )
    kept = [i in held for i in range(len(rows))]
    return Divided(rows.only(not keep for keep in kept), rows.only(kept), sentence)


def shared_prompts(train: RowView, validation: RowView) -> list[str]:
    """The places of the validation rows that have a prompt that is trained on."""
    trained = {_place(train.prompt(i), 0) for i in range(len(train))} if validation else set()
    return [row.source for row in validation if _place(row.prompt, 0) in trained]


def _place(prompt: Text, seed: int) -> bytes:
    """Where a prompt is in the order of the draw. Plain text is the prompt of one user message, however spaced."""
    turns: Sequence[tuple[str, str]]
    turns = [("user", prompt)] if isinstance(prompt, str) else [(turn["role"], turn["content"]) for turn in prompt]
    spaced = [[role, " ".join(text.split())] for role, text in turns]
    return hashlib.sha256(json.dumps([seed, spaced]).encode()).digest()
