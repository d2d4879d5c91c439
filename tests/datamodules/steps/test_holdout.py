"""Which rows are held out of training: how many, that a prompt stays on one side, and what the draw depends on."""

from pathlib import Path

import pytest
from support import slow_rows as slow

from lightning_bnf.datamodules.steps.holdout import hold_out, shared_prompts, wanted
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import RowView
from lightning_bnf.datamodules.tokens.stored import write_rows


def rows_of(*prompts: str) -> RowView:
    return RowView([[TokenizedRow(f"{i}", f"x:{i}", "paired", [1], prompt=prompt) for i, prompt in enumerate(prompts)]])


@pytest.mark.parametrize(
    ("rows", "held"),
    # a fifth up to 80 rows, 16 up to 320, then 5 %
    [(0, 0), (39, 0), (40, 8), (79, 15), (80, 16), (320, 16), (340, 17), (1000, 50), (60_000, 3000)],
)
def test_how_many(rows: int, held: int) -> None:
    assert wanted(rows) == held
    divided = hold_out(rows_of(*map(str, range(rows))), seed=1)
    assert (len(divided.validation), len(divided.train)) == (held, rows - held)


def test_every_row_is_on_one_side_and_no_prompt_on_both() -> None:
    # 100 prompts with one to four rows: 250 in all, of which 16 are wanted
    rows = rows_of(*[f"prompt {i}" for i in range(100) for _ in range(1 + i % 4)])
    divided = hold_out(rows, seed=1)
    train, validation = ({row.id for row in side} for side in divided[:2])
    assert train | validation == {row.id for row in rows}
    assert not train & validation
    assert not {row.prompt for row in divided.train} & {row.prompt for row in divided.validation}
    assert 13 <= len(validation) <= 16, "the last prompt that fits leaves at most three rows of room"
    assert [int(row.id) for row in divided.train] == sorted(map(int, train)), "file order"
    assert divided.sentence == (
        f"validation: {len(validation)} of the 250 rows held out, drawn by their prompts with seed 1; no prompt is on "
        "both sides"
    )


def test_the_draw_is_of_seed_and_prompts_alone() -> None:
    prompts = [f"prompt {i}" for i in range(100)]

    def held(order: list[str], seed: int = 1) -> set[object]:
        return {row.prompt for row in hold_out(rows_of(*order), seed).validation}

    assert held(prompts) == held(prompts[::-1])
    assert held(prompts) != held(prompts, seed=2)


def test_a_prompt_is_the_same_as_text_and_as_a_message_however_spaced() -> None:
    message = ({"role": "user", "content": " say \n hello "},)
    texts = [TokenizedRow("t", "x:1", "paired", [1], prompt="say hello")] * 2
    messages = [TokenizedRow("m", "x:2", "paired", [1], prompt=message)] * 2  # type: ignore[arg-type]
    others = list(rows_of(*map(str, range(76))))
    found = {
        len({row.id for row in hold_out(RowView([texts, messages, others]), seed).validation} & {"t", "m"})
        for seed in range(40)
    }
    assert found == {0, 2}, "both or none of them, under some seed each"


@pytest.mark.parametrize("seed", [1, 7])
def test_the_draw_is_that_of_one_row_after_the_other(tmp_path: Path, seed: int) -> None:
    rows = slow.some_rows(500)
    wanted = slow.held_out(rows, seed)
    for given in (rows, write_rows(tmp_path / "rows.arrow", rows)):
        divided = hold_out(RowView([given]), seed)
        assert [row.source for row in divided.validation] == [rows[i].source for i in wanted]
        assert [row.source for row in divided.train] == [row.source for i, row in enumerate(rows) if i not in wanted]
        shared = shared_prompts(divided.train, RowView([rows[:50]]))
        trained = {slow.place(row, 0) for row in divided.train}
        assert shared == [row.source for row in rows[:50] if slow.place(row, 0) in trained]
        assert 0 < len(shared) < 50


def test_where_nothing_can_be_held_out_it_is_said() -> None:
    few = hold_out(rows_of(*map(str, range(39))), seed=1)
    assert few.sentence.startswith("validation: none, as 39 training rows are under 40")
    same = hold_out(rows_of(*["one prompt"] * 100), seed=1)
    assert (len(same.train), len(same.validation)) == (100, 0)
    assert same.sentence == "validation: none, as no prompt has few enough of the rows to be held out"


def test_shared_prompts_are_named_by_rows() -> None:
    found = shared_prompts(rows_of("a", "b"), rows_of("a", " a ", "c", "b"))
    assert found == [rows_of("a", "a", "c", "b")[i].source for i in (0, 1, 3)]
    assert shared_prompts(rows_of("a"), rows_of("b")) == shared_prompts(rows_of("a"), RowView([])) == []
