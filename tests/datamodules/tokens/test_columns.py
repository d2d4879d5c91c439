"""Columns of all rows against the rows one by one, for every kind of sequence of rows."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import slow_rows as slow

from lightning_bnf.datamodules.steps.layout import PACKED, PACKED_SHARED, PADDED, SHARED_PROMPT
from lightning_bnf.datamodules.tokens.columns import (
    Ragged,
    among,
    codes,
    digests,
    hash_order,
    key_bytes,
    key_numbers,
    reduced,
)
from lightning_bnf.datamodules.tokens.columns import content_key as key_of_all
from lightning_bnf.datamodules.tokens.derived import Mismatched, PartlyPaired
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import HeldRows, Rows, RowView, content_keys, rows_fingerprint, spaced
from lightning_bnf.datamodules.tokens.stored import write_rows
from lightning_bnf.runtime.fingerprints import content_key

ROWS = slow.some_rows(300)


def every_kind(folder: Path) -> dict[str, Rows]:
    stored = write_rows(folder / "rows.arrow", ROWS)
    places = np.random.default_rng(1).permutation(500)[:200]
    return {
        "held": HeldRows(ROWS),
        "stored": stored,
        "view": RowView([ROWS[:7], [], stored], places % 307),
        "whole view": RowView([ROWS[:7], stored]),
        "view of a view": RowView([RowView([stored], np.arange(299, 0, -3)), ROWS[:2]], np.array([100, 0, 5, 5, 101])),
        "empty": RowView([]),
        "partly paired": RowView([PartlyPaired(stored, 0.3, 2)], np.arange(250)),
        "mismatched": Mismatched(stored, 11),
        "mismatched, some": RowView([Mismatched(ROWS, 1000), ROWS[:3]]),
    }


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return every_kind(tmp_path_factory.mktemp("rows"))


KINDS = ["held", "stored", "view", "whole view", "view of a view", "empty", "partly paired", "mismatched"]


@pytest.fixture(params=[*KINDS, "mismatched, some"])
def rows(request: pytest.FixtureRequest, kinds: dict[str, Rows]) -> Rows:
    return kinds[request.param]


def test_columns_are_of_the_rows(rows: Rows) -> None:
    found, alone = rows.columns, [*rows]
    assert len(found) == len(rows) == len(alone)
    assert found.completions.tolist() == [len(row.completions) for row in alone]
    assert found.prompt.tolist() == [len(row.prompt_ids) for row in alone]
    for name in ("pairs", "groups", "kept_out"):
        assert getattr(found, name).tolist() == [getattr(row, name) for row in alone]
    assert found.verified.tolist() == [row.verifier is not None for row in alone]
    completions = [one for row in alone for one in row.completions]
    assert found.length.tolist() == [len(one.ids) for one in completions]
    assert found.trained.tolist() == [sum(one.completion_mask) for one in completions]
    assert found.label.tolist() == [one.label for one in completions]
    assert np.array_equal(
        rows.numbers("reward"), [one.numbers.get("reward", np.nan) for one in completions], equal_nan=True
    )
    most = [max([*row.prompt_ids, *(token for one in row.completions for token in one.ids)]) for row in alone]
    assert (found.largest >= np.array(most, dtype=int)).all()
    assert "mismatched" in str(alone[:1]) or len(alone) == 250 or found.largest.tolist() == most


def test_values_and_single_reads_are_of_the_rows(rows: Rows) -> None:
    alone = [*rows]
    assert rows.values("id").to_pylist() == [row.id.encode() for row in alone]
    assert rows.values("family").to_pylist() == [row.family and row.family.encode() for row in alone]
    assert rows.values("spaced").to_pylist() == [spaced(row.prompt).encode() for row in alone]
    assert rows.values("prompt_ids").to_pylist() == [np.array(row.prompt_ids, np.int32).tobytes() for row in alone]
    assert [rows.source(i) for i in range(len(rows))] == [row.source for row in alone]
    assert [rows.prompt(i) for i in range(len(rows))] == [row.prompt for row in alone]
    assert [rows.arrays(i).id for i in range(len(rows))] == [row.id for row in alone]


@pytest.mark.parametrize("tokens", [0, 1, 64, 100])
def test_the_beginning_of_all_prompts(tokens: int, tmp_path: Path) -> None:
    """Stored rows lie in batches of 1,000; a view may know of less in common than its own rows have."""
    common = list(range(1, tokens + 1))
    made = [replace(one, prompt_ids=[*common, 200 + i % 3, *one.prompt_ids]) for i, one in enumerate(ROWS * 4)]
    stored = write_rows(tmp_path / "rows.arrow", made)
    some = [made[3], made[7]]
    for rows in (HeldRows(made), stored, RowView([stored]), RowView([some, [], stored]), Mismatched(stored, 10_000)):
        assert rows.beginning().tolist() == common
    assert HeldRows(some[:1]).beginning().tolist() == some[0].prompt_ids
    assert RowView([stored, [replace(made[0], prompt_ids=common[:50])]]).beginning().tolist() == common[:50]
    assert RowView([]).beginning().tolist() == []
    assert RowView([stored], np.array([0, 3])).beginning().tolist() == common


def test_the_fingerprint_is_that_of_the_rows_one_by_one(rows: Rows) -> None:
    assert rows_fingerprint(rows) == rows_fingerprint([*rows]) == slow.fingerprint([*rows])


def test_keys_in_a_reference_cache_are_those_of_the_completions_one_by_one(rows: Rows) -> None:
    wanted = [content_key(row.prompt_ids, one.ids, one.completion_mask) for row in rows for one in row.completions]
    assert key_bytes(content_keys(rows)) == wanted


def test_no_two_kinds_have_the_same_digest(kinds: dict[str, Rows], tmp_path: Path) -> None:
    """But those of the same content; and the same rows have the same one in another run."""
    digests = {name: rows.digest for name, rows in kinds.items()}
    assert len(set(digests.values())) == len(kinds) - 1
    assert digests["held"] == digests["stored"]
    assert {name: rows.digest for name, rows in every_kind(tmp_path).items()} == digests
    others = [Mismatched(ROWS, 12), Mismatched(ROWS[:-1], 11), PartlyPaired(ROWS, 0.3, 3), RowView([ROWS[:7]])]
    assert not {rows.digest for rows in others} & set(digests.values())


@pytest.mark.parametrize("labels", [(1, -1), (1,), (-1,)])
def test_lengths_in_every_layout(rows: Rows, labels: tuple[int, ...]) -> None:
    alone: dict[Any, Callable[..., Any]] = {
        PADDED: slow.padded_lengths,
        PACKED: slow.padded_lengths,
        SHARED_PROMPT: slow.shared_lengths,
        PACKED_SHARED: slow.shared_lengths,
    }
    for layout, lengths in alone.items():
        found = layout.lengths(rows.columns, labels)
        wanted = [lengths(row, labels) for row in rows]
        assert list(found) == wanted
        assert found[:2] == wanted[:2]
        assert found.sums().tolist() == [sum(some) for some in wanted]
        assert found.largest().tolist() == [max(some, default=0) for some in wanted]
        assert found.sizes(packed=False).tolist() == [len(some) * max(some, default=0) for some in wanted]
        assert np.array_equal(Ragged.of(wanted).values, found.values)


def test_what_has_nothing_is_reduced_to_what_is_said() -> None:
    """Rows of 0, 2, 0, 1 and 0 values: the least of (5, 3) and of (9)."""
    first = np.array([0, 0, 2, 2, 3, 3])
    assert reduced(np.minimum.reduceat, np.array([5, 3, 9]), first, -1).tolist() == [-1, 3, -1, 9, -1]
    assert reduced(np.minimum.reduceat, np.zeros(0, int), np.zeros(3, int), 7).tolist() == [7, 7]


def test_bytes_are_numbered_and_hashed() -> None:
    import hashlib

    values = pa.chunked_array([[b"a", b"b"], [], [b"a", b"", b"c"]], pa.large_binary())
    assert codes(values).tolist() == [0, 1, 0, 2, 3]
    wanted = [hashlib.sha256(b"<%b>" % value).digest() for value in values.to_pylist()]
    assert digests(values, b"<", b">").astype(">u8").tobytes() == b"".join(wanted)
    assert digests(values.slice(1, 2), b"<", b">").astype(">u8").tobytes() == wanted[1] + wanted[2]
    assert hash_order(digests(values, b"<", b">")).tolist() == sorted(range(5), key=wanted.__getitem__)


def test_the_key_of_bytes_is_of_each_and_not_of_their_chunks() -> None:
    def key(*chunks: list[bytes]) -> bytes:
        return key_of_all(pa.chunked_array(chunks, pa.large_binary()))

    values = pa.chunked_array([[b"x", b"ab", b"", b"c", b"y"]], pa.large_binary())
    assert key([b"ab", b"", b"c"]) == key([b"ab"], [], [b"", b"c"]) == key_of_all(values.slice(1, 3))
    others = [key([b"a", b"b", b"c"]), key([b"ab", b"c", b""]), key([b"ab", b"c"]), key([b"ab", b"", b"d"]), key()]
    assert len({key([b"ab", b"", b"c"]), *others}) == 6


@pytest.mark.parametrize("more", [0, 9])
def test_which_bytes_are_among_others(more: int) -> None:
    values = pa.chunked_array([[b"a", b"b"], [b"", b"a"]], pa.large_binary())
    others = pa.chunked_array([[b"a", b"c"], [b"", b"d"] * more], pa.large_binary())
    assert among(values, others).tolist() == [True, False, more > 0, True]
    assert among(values, others.slice(0, 0)).tolist() == [False] * 4


def test_keys_are_numbers_in_the_same_order() -> None:
    keys = [bytes(16), bytes(15) + b"\1", bytes(7) + b"\1" + bytes(8), b"\xff" * 16]
    assert key_numbers(keys).tolist() == [[0, 0], [0, 1], [1, 0], [2**64 - 1, 2**64 - 1]]
    assert key_bytes(key_numbers(keys)) == keys
    assert (key_numbers([]).shape, key_bytes(key_numbers([]))) == ((0, 2), [])


def test_hashes_with_equal_beginnings_are_ordered_by_their_ends() -> None:
    hashes = np.array([[5, 0, 0, 2], [5, 0, 0, 1], [1, 9, 9, 9], [5, 0, 0, 1]], dtype=np.uint64)
    assert hash_order(hashes).tolist() == [2, 1, 3, 0]


def test_a_view_keeps_what_is_asked_for() -> None:
    view = RowView([ROWS[:5], ROWS[5:9]])
    kept = np.array([True, False] * 4 + [True])
    assert [*view.only(kept)] == ROWS[:9:2]
    assert view.only(np.ones(9, dtype=bool)) is view
    assert view.part_of_rows().tolist() == [0] * 5 + [1] * 4
    with_completions: list[TokenizedRow] = [row for row in ROWS[:9] if row.completions]
    assert [*view.with_completions()] == with_completions
