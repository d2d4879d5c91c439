"""Tokenized rows as Arrow record batches: how they lie on disk, and how they are read from there."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lightning_bnf.datamodules.reading.answers import Text
from lightning_bnf.datamodules.reading.formats import format_of
from lightning_bnf.datamodules.tokens.columns import Ints, RowColumns, starts_of
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.rows import Name, RowArrays, content_of_numbers, spaced

_ROWS, _BYTES = 2**15, 2**26  # of a batch: so large that there are few, and so small that memory holds some

_IDS, _NUMBERS = pa.list_(pa.int32()), pa.map_(pa.string(), pa.float64())
_COMPLETION = pa.struct(
    [
        ("ids", _IDS),
        ("completion_mask", pa.list_(pa.bool_())),
        ("trained", pa.int32()),  # tokens
        ("label", pa.int8()),
        ("numbers", _NUMBERS),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("format", pa.string()),
        ("family", pa.string()),
        ("kept_out", pa.bool_()),
        ("prompt_ids", _IDS),
        ("completions", pa.list_(_COMPLETION)),
        ("largest", pa.int32()),  # token id
        ("spaced", pa.string()),  # the prompt, as rows are held out by it
        ("prompt", pa.string()),  # as JSON, as the following are
        ("prompt_id", pa.string()),
        ("max_new_tokens", pa.string()),
        ("verifier", pa.string()),
    ]
)


def batch_of(rows: Sequence[TokenizedRow]) -> pa.RecordBatch:
    """Some rows."""
    completions = [completion for row in rows for completion in row.completions]
    prompts, answers = [row.prompt_ids for row in rows], [completion.ids for completion in completions]
    ends = starts_of([len(ids) for ids in answers])
    masks = chain.from_iterable(completion.completion_mask for completion in completions)
    mask = np.fromiter(masks, dtype=bool, count=ends[-1])
    before = starts_of(mask)
    numbers = [completion.numbers for completion in completions]
    given = [(name, float(value)) for each in numbers for name, value in each.items()]
    struct = pa.StructArray.from_arrays(
        [
            _lists(answers),
            pa.ListArray.from_arrays(_offsets(ends), pa.array(mask)),
            pa.array(np.diff(before[ends]), pa.int32()),
            pa.array([completion.label for completion in completions], pa.int8()),
            pa.MapArray.from_arrays(
                _offsets(starts_of([len(each) for each in numbers])),
                pa.array([name for name, _ in given], pa.string()),
                pa.array([value for _, value in given], pa.float64()),
            ),
        ],
        fields=list(_COMPLETION),
    )
    columns = {
        "prompt_ids": _lists(prompts),
        "completions": pa.ListArray.from_arrays(_offsets(starts_of([len(row.completions) for row in rows])), struct),
        "largest": [max(chain(row.prompt_ids, *(one.ids for one in row.completions)), default=0) for row in rows],
        "spaced": [spaced(row.prompt) for row in rows],
        "prompt": [json.dumps(row.prompt, ensure_ascii=False) for row in rows],
    }
    for name in ("prompt_id", "max_new_tokens", "verifier"):
        values = [getattr(row, name) for row in rows]
        columns[name] = [None if value is None else json.dumps(value, ensure_ascii=False) for value in values]
    for name in ("id", "source", "format", "family", "kept_out"):
        columns[name] = [getattr(row, name) for row in rows]
    arrays = [
        found if isinstance(found := columns[field.name], pa.Array) else pa.array(found, field.type) for field in SCHEMA
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def merged(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in few batches, as what is done with a batch at once is fast."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(one.num_rows for one in held) >= _ROWS or sum(one.nbytes for one in held) >= _BYTES:
            yield _one(held)
            held = []
    if held:
        yield _one(held)


def _one(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    (found,) = pa.Table.from_batches(batches).combine_chunks().to_batches()
    return found


def _offsets(ends: Ints) -> pa.Array:
    return pa.array(ends, pa.int32())


def _lists(values: Sequence[Sequence[int]]) -> pa.Array:
    ends = starts_of([len(some) for some in values])
    flat = np.fromiter(chain.from_iterable(values), dtype=np.int32, count=ends[-1])
    return pa.ListArray.from_arrays(_offsets(ends), pa.array(flat))


class StoredBatch:
    """A record batch of a mapped file: arrays that look into it, so that reading a row is a few slices of them."""

    def __init__(self, batch: pa.RecordBatch):
        self._batch = batch
        prompt, completions = batch.column("prompt_ids"), batch.column("completions")
        self.prompt, self.prompt_at = prompt.values.to_numpy(), _indices(prompt)
        ids, mask, trained, label, self._numbers = completions.values.flatten()
        self.completion_at, self.numbers_at = _indices(completions), _indices(self._numbers)
        self.ids, self.ids_at = ids.values.to_numpy(), _indices(ids)
        self.label, self._trained = label.to_numpy(), trained.to_numpy()
        self.length = np.diff(np.asarray(self.ids_at))
        self._bits = np.frombuffer(mask.values.buffers()[1] or b"", dtype=np.uint8)  # a bit for each token
        formats = batch.column("format").dictionary_encode()
        kinds = [format_of(name) for name in formats.dictionary.to_pylist()]
        self._kind = formats.indices.to_numpy()
        self._pairs, self._groups = ([bool(getattr(kind, name)) for kind in kinds] for name in ("pairs", "groups"))

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    def columns(self) -> RowColumns:
        """What decides on its rows."""
        batch, first = self._batch, np.asarray(self.completion_at)
        return RowColumns(
            first=first.astype(np.int64),
            prompt=np.diff(np.asarray(self.prompt_at)),
            largest=batch.column("largest").to_numpy(),
            pairs=np.array(self._pairs, dtype=bool)[self._kind],
            groups=np.array(self._groups, dtype=bool)[self._kind],
            kept_out=batch.column("kept_out").to_numpy(zero_copy_only=False),
            verified=batch.column("verifier").is_valid().to_numpy(zero_copy_only=False),
            length=self.length,
            trained=self._trained,
            label=self.label,
        )

    def arrays(self, at: int) -> RowArrays:
        """Of the row at a place."""
        first, stop = self.completion_at[at], self.completion_at[at + 1]
        begin, end = self.ids_at[first], self.ids_at[stop]
        bits = np.unpackbits(self._bits[begin // 8 : end // 8 + 1], bitorder="little")
        return RowArrays(
            id=self._batch.column("id")[at].as_py(),
            pairs=self._pairs[self._kind[at]],
            prompt=self.prompt[self.prompt_at[at] : self.prompt_at[at + 1]],
            ids=self.ids[begin:end],
            trained=bits[begin % 8 : begin % 8 + end - begin].view(bool),
            length=self.length[first:stop].astype(np.int64),
            label=self.label[first:stop].astype(np.int64),
            numbers=self._numbers_of(first, stop),
        )

    def row(self, at: int) -> TokenizedRow:
        """The row at a place."""
        arrays = self.arrays(at)
        ids, trained, stops = arrays.ids.tolist(), arrays.trained.tolist(), np.cumsum(arrays.length).tolist()
        completions = tuple(
            TokenizedCompletion(ids[start:stop], trained[start:stop], label, numbers)
            for start, stop, label, numbers in zip([0, *stops], stops, arrays.label.tolist(), arrays.numbers)
        )
        given = {name: self.value(name, at) for name in ("id", "source", "format", "family", "kept_out")}
        decoded: dict[str, Any] = {
            name: None if (text := self.value(name, at)) is None else json.loads(text)
            for name in ("prompt_id", "max_new_tokens", "verifier")
        }
        prompt = arrays.prompt.tolist()
        return TokenizedRow(**given, **decoded, prompt_ids=prompt, completions=completions, prompt=self.text(at))

    def value(self, name: str, at: int) -> Any:
        """Of the row at a place, as it is stored."""
        return self._batch.column(name)[at].as_py()

    def text(self, at: int) -> Text:
        """The prompt of the row at a place."""
        found = json.loads(self.value("prompt", at))
        prompt: Text = tuple(found) if isinstance(found, list) else found
        return prompt

    def _numbers_of(self, first: int, stop: int) -> list[dict[str, float]]:
        if self.numbers_at[first] == self.numbers_at[stop]:
            return [{}] * (stop - first)
        return [dict(given) for given in self._numbers[first:stop].to_pylist()]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """(C,) what its completions have under a name; NaN where they have nothing."""
        found = np.full(len(self.length), np.nan)
        given = pc.equal(self._numbers.keys, name).to_numpy(zero_copy_only=False)
        owner = np.repeat(np.arange(len(found)), np.diff(np.asarray(self.numbers_at)))
        found[owner[given]] = self._numbers.items.to_numpy()[given]
        return found

    def values(self, name: Name) -> pa.Array:
        """As `Rows.values`."""
        if name == "prompt_ids":
            return _bytes(self.prompt, 4 * np.asarray(self.prompt_at, dtype=np.int64))
        return self._batch.column(name).cast(pa.binary()).cast(pa.large_binary())

    def content(self, rows: Ints) -> bytes:
        """As `Rows.content`: each row's arrays, the length of each before it, joined without a loop over rows."""
        first = np.asarray(self.completion_at)
        ids, trained = np.asarray(self.ids_at, dtype=np.int64)[first], np.unpackbits(self._bits, bitorder="little")
        parts: list[pa.Array] = []
        for values, at in (
            (self.prompt, np.asarray(self.prompt_at)),
            (self.ids, ids),
            (trained, ids),
            (self.length.astype(np.int64), first),
            (self.label.astype(np.int64), first),
        ):
            counts = np.diff(at)
            parts.append(_bytes(counts.astype(">i8"), 8 * np.arange(len(self) + 1)))
            parts.append(_bytes(values, values.itemsize * at.astype(np.int64)))
        if self.numbers_at[-1]:
            numbers = [self._numbers_of(start, stop) for start, stop in zip(first.tolist(), first[1:].tolist())]
            parts.append(pa.array([content_of_numbers(each) for each in numbers], pa.large_binary()))
        taken = [part.take(pa.array(rows)) for part in parts]
        joined = pc.binary_join_element_wise(*taken, pa.scalar(b"", pa.large_binary()))
        _, offsets, content = joined.buffers()
        return content.to_pybytes()[: np.frombuffer(offsets, np.int64)[len(rows)]] if content is not None else b""


def _indices(lists: Any) -> memoryview:
    """Where each list begins: numbers of Python, which are faster than numpy's where one is asked for."""
    return memoryview(lists.offsets.to_numpy())


def _bytes(values: NDArray[Any], ends: Ints) -> pa.Array:
    """The bytes of some values, cut at these places."""
    held = np.ascontiguousarray(values)
    buffers = [None, pa.py_buffer(np.ascontiguousarray(ends, dtype=np.int64)), pa.py_buffer(held)]
    return pa.Array.from_buffers(pa.large_binary(), len(ends) - 1, buffers)
