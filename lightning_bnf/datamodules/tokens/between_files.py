"""What the rows of a split's several files have to do with each other: what no report on a file alone can say."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lightning_bnf.datamodules.reading.errors import some_of
from lightning_bnf.datamodules.tokens.columns import among
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import Rows, as_rows, content_keys


def between_files(parts: Sequence[Sequence[TokenizedRow]], votes: Sequence[Mapping[str, str]]) -> list[str]:
    """Sentences on the rows of several files. `votes`: of each the first places of the labels 0 and -1."""
    sentences = []
    if again := repeated_rows(parts):
        sentences.append(f"{len(again):,} rows repeat one of an earlier file (kept): {some_of(again)}")
    if other := contradicted_rows(parts):
        sentences.append(
            f"WARNING: {len(other):,} rows hold an answer that has the other label in an earlier file (kept): "
            f"{some_of(other)}"
        )
    first = {label: place for given in reversed(votes) for label, place in given.items()}
    if len(first) > 1:
        sentences.append(
            f"WARNING: dispreferred answers are labelled 0 in one file (first at {first['0']}) and -1 in another (first"
            f" at {first['-1']}); if 0 means there that nobody voted, take these rows out"
        )
    return sentences


def repeated_rows(parts: Sequence[Sequence[TokenizedRow]]) -> list[str]:
    """The places of rows whose content is in an earlier part too."""
    seen: list[pa.Array] = []
    found: list[str] = []
    for rows in map(as_rows, parts if len(parts) > 1 else ()):
        ids = rows.values("id")
        again = among(ids, pa.chunked_array(seen, type=ids.type))
        found += [rows.source(i) for i in np.flatnonzero(again).tolist()]
        seen += ids.chunks
    return found


def contradicted_rows(parts: Sequence[Sequence[TokenizedRow]]) -> list[str]:
    """The places of rows of one answer that has the other label in an earlier part, after the same prompt."""
    held = [as_rows(rows) for rows in parts]
    labels = [np.unique(rows.columns.label[_single(rows)[1]]) for rows in held]
    if len(parts) < 2 or len(np.unique(np.concatenate(labels))) < 2:
        return []  # without a look at what the rows hold
    seen = {label: np.zeros(0, np.uint64) for label in (1, -1)}
    found: list[str] = []
    for rows in held:
        places, answers = _single(rows)
        keys, label = content_keys(rows)[answers, 0], rows.columns.label[answers]
        again = np.where(label == 1, np.isin(keys, seen[-1]), np.isin(keys, seen[1]))
        found += [rows.source(i) for i in places[again].tolist()]
        seen = {sign: np.union1d(known, keys[label == sign]) for sign, known in seen.items()}
    return found


def _single(rows: Rows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The places of the rows of one answer, and those of their answers."""
    places = np.flatnonzero(rows.columns.completions == 1)
    return places, rows.columns.first[places]
