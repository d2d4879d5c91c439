"""Options are refused in full sentences: argument, value, what is accepted."""

from typing import Any

import pytest

from lightning_bnf.datamodules.reading.options import DataOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 1}, "max_length must be >= 2, got 1"),
        (
            {"max_prompt_length": 0},
            "max_prompt_length must be >= 1, got 0",
        ),
        (
            {"max_length": 8, "max_prompt_length": 8},
            r"max_prompt_length must be below max_length \(8\), .*got 8",
        ),
        ({"truncation": "cut"}, "truncation must be 'drop' or 'trim', got 'cut'"),
        ({"allow_drop": 5}, r"allow_drop must be in \[0, 1\], got 5"),
        ({"allow_drop": float("nan")}, r"allow_drop must be a finite number in \[0, 1\], got nan"),
        (
            {"format": "pairs"},
            r"format must be 'auto', .*'paired', .* or the class path of a Format, got 'pairs'",
        ),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DataOptions(**options)
