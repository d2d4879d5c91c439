"""The bench's own rows."""

from lightning_bnf.costs.bench import data


def test_rows_have_the_lengths_that_are_said() -> None:
    rows = data.pairs(64)
    assert rows == data.pairs(64)
    assert all(40 <= len(row["prompt"].split()) <= 160 for row in rows)
    assert all(20 <= len(row[side].split()) <= 120 for row in rows for side in ("chosen", "rejected"))
    assert [row["label"] for row in data.unpaired(rows)[:4]] == [True, False, True, False]
