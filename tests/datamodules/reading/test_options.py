"""Options are refused in full sentences: argument, value, what is accepted."""

from typing import Any

import pytest

from lightning_bnf.datamodules.reading.options import DataOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1}, r"max_length 1: accepted are whole numbers from 2 \(tokens\)"),
        (
            {"max_prompt_length": 0},
            r"max_prompt_length 0: accepted are whole numbers from 1 to below max_length \(4096\)",
        ),
        ({"max_length": 8, "max_prompt_length": 8}, r"max_prompt_length 8: .* below max_length \(8\)"),
        ({"truncation": "cut"}, "truncation 'cut': accepted are 'drop', 'trim'"),
        ({"allow_drop": 5}, r"allow_drop 5: accepted are shares from 0 to 1"),
        ({"allow_drop": float("nan")}, r"allow_drop nan: accepted are shares from 0 to 1"),
        (
            {"format": "pairs"},
            "format 'pairs': accepted are 'auto', 'paired', 'grouped', 'unpaired', 'demonstration', ",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)
