"""Layouts: how completions are laid out as a model's inputs. Losses and metrics lie above and cannot tell."""

from collections.abc import Sequence

import torch

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.template import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses.base import Examples


def padded(rows: Sequence[TokenizedRow], labels: Sequence[int] = (1, -1)) -> MicroBatch:
    """One model row for each completion, prompt first, padded on the right.

    Padding has token id 0, which no mask relies on: where completion tokens are follows from lengths alone. Only
    completions with one of `labels` are taken; a row whose chosen and rejected completion are both there is a pair.
    """
    taken: list[tuple[TokenizedRow, TokenizedCompletion]] = []
    pairs: list[tuple[int, int]] = []
    for row in rows:
        kept = [completion for completion in row.completions if completion.label in labels]
        if row.format == "paired" and len(kept) == 2:
            pairs.append((len(taken), len(taken) + 1))
        taken += [(row, completion) for completion in kept]
    lengths = [len(row.prompt_ids) + len(completion.ids) for row, completion in taken]
    width = max(lengths, default=1)
    # A micro-batch without completions still gives the model one token: its ranks must not skip a collective.
    input_ids = torch.zeros(max(len(taken), 1), width, dtype=torch.long)
    position: list[int] = []
    target: list[int] = []
    owner: list[int] = []
    for i, (row, completion) in enumerate(taken):
        input_ids[i, : lengths[i]] = torch.tensor(row.prompt_ids + completion.ids)
        first = i * width + len(row.prompt_ids)
        for t, (token, trained) in enumerate(zip(completion.ids, completion.completion_mask)):
            if trained:
                position.append(first + t - 1)  # the hidden state before a token predicts it
                target.append(token)
                owner.append(i)
    length = torch.tensor([sum(completion.completion_mask) for _, completion in taken], dtype=torch.long)
    mask = torch.arange(width) < torch.tensor(lengths or [1], dtype=torch.long)[:, None]
    return MicroBatch(
        inputs={"input_ids": input_ids, "attention_mask": mask.long()},
        position=torch.tensor(position, dtype=torch.long),
        target=torch.tensor(target, dtype=torch.long),
        row=torch.tensor(owner, dtype=torch.long),
        length=length,
        examples=Examples(
            label=torch.tensor([completion.label for _, completion in taken], dtype=torch.long),
            pair=torch.tensor(pairs, dtype=torch.long).reshape(-1, 2) if pairs or not taken else None,
        ),
        row_ids=tuple(row.id for row, _ in taken),
    )
