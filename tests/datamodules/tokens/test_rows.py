"""Rows as arrays, and views of several sequences of them, held against plain lists."""

import numpy as np

from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.rows import HeldRows, RowArrays, RowView, content_keys, rows_fingerprint, spaced


def drawn(seed: int, count: int) -> list[TokenizedRow]:
    draw = np.random.default_rng(seed)

    def completion() -> TokenizedCompletion:
        ids = draw.integers(1, 9, draw.integers(1, 5)).tolist()
        return TokenizedCompletion(
            ids, (draw.random(len(ids)) < 0.7).tolist(), int(draw.choice([1, -1])), {"reward": draw.random()}
        )

    rows = []
    for i in range(count):
        prompt = [1, 2, 3, *draw.integers(1, 9, draw.integers(0, 3)).tolist()]
        completions = tuple(completion() for _ in range(draw.integers(0, 3)))
        name = f"{seed}-{i}"
        rows.append(TokenizedRow(name, f"file{seed}:{i}", "paired", prompt, completions, family=f"f{i % 3}"))
    return rows


def test_a_view_gives_what_a_list_gives() -> None:
    parts = [drawn(1, 5), [], drawn(2, 7)]
    whole = [*parts[0], *parts[2]]
    places = np.random.default_rng(0).permutation(12)[:9]
    for view, rows in ((RowView(parts), whole), (RowView(parts, places), [whole[i] for i in places])):
        assert list(view) == rows
        assert view[-1] == rows[-1]
        assert view[2:5] == rows[2:5]
        assert [view.source(i) for i in range(len(rows))] == [row.source for row in rows]
        assert view.values("id").to_pylist() == [row.id.encode() for row in rows]
        answers = [answer for row in rows for answer in row.completions]
        assert view.columns.label.tolist() == [answer.label for answer in answers]
        assert view.columns.trained.tolist() == [sum(answer.completion_mask) for answer in answers]
        assert view.numbers("reward").tolist() == [answer.numbers["reward"] for answer in answers]
        assert np.isnan(view.numbers("tokens")).all()
        begin = [ids[0] for ids in zip(*(row.prompt_ids for row in rows)) if len(set(ids)) == 1]
        assert view.beginning().tolist() == begin == [1, 2, 3]
        assert list(view.with_completions()) == [row for row in rows if row.completions]
        assert rows_fingerprint(view) == rows_fingerprint(rows)


def test_parts_are_told_apart_and_order_is_part_of_what_rows_are() -> None:
    one, other = drawn(1, 3), drawn(2, 2)
    view = RowView([one, other], np.array([4, 0, 3]))
    assert view.part_of_rows().tolist() == [1, 0, 1]
    assert rows_fingerprint([*one, *other]) != rows_fingerprint([*other, *one])
    assert RowView([one, other]).digest != RowView([other, one]).digest


def test_arrays_of_some_completions_are_those_of_a_row_without_the_others() -> None:
    row = next(row for row in drawn(3, 20) if len(row.completions) == 2)
    kept = RowArrays.of(row).only(np.array([False, True]))
    alone = HeldRows([TokenizedRow(row.id, row.source, row.format, row.prompt_ids, row.completions[1:])]).arrays(0)
    for name in ("prompt", "ids", "trained", "length", "label"):
        assert np.array_equal(getattr(kept, name), getattr(alone, name)), name
    assert list(kept.numbers) == list(alone.numbers)


def test_keys_are_of_prompt_and_answer_and_not_of_the_label() -> None:
    def row(prompt: list[int], ids: list[int], label: int) -> TokenizedRow:
        return TokenizedRow("x", "x", "unpaired", prompt, (TokenizedCompletion(ids, [True] * len(ids), label),))

    keys = content_keys([row([1], [2, 3], 1), row([1], [2, 3], -1), row([1, 2], [3], 1), row([1], [2, 4], 1)])
    assert (keys[0] == keys[1]).all()
    assert len({tuple(key) for key in keys.tolist()}) == 3


def test_prompts_that_differ_in_spaces_alone_are_spaced_alike() -> None:
    assert spaced("a  b\n") == spaced(" a b") == spaced(({"role": "user", "content": "a b"},))
    assert spaced("a b") != spaced("ab")
