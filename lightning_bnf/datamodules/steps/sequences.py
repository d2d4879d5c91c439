"""Where the sequences of a micro-batch lie, as kernels for sequences of any length ask for it."""

from collections.abc import Sequence

import numpy as np
import torch

from lightning_bnf.batch import Document, Sequences


def sequences_of(documents: Sequence[Document], shape: Sequence[int]) -> Sequences:
    """The sequences of documents that lie in (rows, T) tokens, in their order, each row's from its first token on.

    Documents that have their row's beginning in common are of one row, whose first document that beginning is. Padding
    behind the last document of a row counts as the end of its last sequence, which no other token sees. A row without
    a document is a sequence alone.
    """
    rows, width = shape
    placed = list(documents) or [Document(row, 0, width) for row in range(rows)]
    starts = [document.row * width + document.start for document in placed]
    most = max(max(len(document.completions), 1) for document in placed)
    keys: list[np.ndarray] = []
    occurrences: list[tuple[int, int, int, int]] = []  # which copy of its tokens keys are, where both begin, how many
    common: list[np.ndarray] = []
    queries, seen, count = [0], [0], 0
    for start, stop, document in zip(starts, [*starts[1:], rows * width], placed):
        prompt, completions = document.prompt, document.completions or (0,)
        at = start + prompt + completions[0]
        for copy, length in enumerate(completions):
            last = copy == len(completions) - 1
            end = stop if last else at + (length if copy else 0)
            if copy and end == at:
                continue
            if document.common:
                keys.append(np.arange(document.common))
                common.append(np.arange(count, count + document.common))
                count += document.common
            runs = [(copy, start, prompt)] if copy and prompt else []
            begin = at if copy else start
            for which, first, tokens in [*runs, (0, begin, end - begin)]:
                keys.append(np.arange(first, first + tokens))
                occurrences.append((which, first, count, tokens))
                count += tokens
            queries.append(end)
            seen.append(count)
            at = end
    copies = np.full((most, rows * width), count, dtype=np.int64)
    for copy, start, place, tokens in occurrences:
        copies[copy, start : start + tokens] = np.arange(place, place + tokens)
    repeated = count > rows * width
    return Sequences(
        documents=tuple(documents),
        query_ends=torch.tensor(queries, dtype=torch.int32),
        key_ends=torch.tensor(seen, dtype=torch.int32),
        keys=torch.from_numpy(np.concatenate(keys)) if repeated else None,
        copies=torch.from_numpy(copies) if repeated else None,
        common=torch.from_numpy(np.stack(common)) if common else None,
        longest_query=int(np.diff(queries).max()),
        longest_key=int(np.diff(seen).max()),
    )
