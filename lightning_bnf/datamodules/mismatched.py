"""Mismatched rows: each prompt with another row's completions, from which KTO estimates a KL divergence."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from lightning_bnf.datamodules.template import TokenizedCompletion, TokenizedRow


def mismatched(rows: Sequence[TokenizedRow], max_length: int) -> list[TokenizedRow]:
    """For each row its prompt with its partner's completions, cut to `max_length` tokens in all.

    The partner is fixed by the rows' contents: the next one with another prompt in the order of the hashes of their
    ids, whatever the order of training is. Where all prompts are equal there is none, and the row has no completions.
    """
    order = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].id.encode()).digest())
    found: dict[int, TokenizedRow] = {}
    for place, i in enumerate(order):
        others = (rows[order[(place + step) % len(rows)]] for step in range(1, len(rows)))
        partner = next((other for other in others if other.prompt_ids != rows[i].prompt_ids), None)
        found[i] = _with_completions_of(rows[i], partner, max_length)
    return [found[i] for i in range(len(rows))]


def _with_completions_of(row: TokenizedRow, partner: TokenizedRow | None, max_length: int) -> TokenizedRow:
    room = max_length - len(row.prompt_ids)
    cut = [_cut(completion, room) for completion in partner.completions] if partner else []
    kept = tuple(completion for completion in cut if any(completion.completion_mask))
    return replace(row, id=f"{row.id} (mismatched)", format="unpaired", completions=kept)


def _cut(completion: TokenizedCompletion, room: int) -> TokenizedCompletion:
    return replace(completion, ids=completion.ids[:room], completion_mask=completion.completion_mask[:room])
