"""The verb `reproduce` takes a matrix or Table 4, and not both."""

from pathlib import Path

import pytest

from lightning_bnf.reproduction.command import reproduce
from lightning_bnf.reproduction.table4 import Row, Table4
from lightning_bnf.runtime.refusal import Refusal


def test_a_matrix_or_table_4(tmp_path: Path) -> None:
    table = Table4({"m": {"Base": Row("x")}})
    with pytest.raises(Refusal, match="base and methods must be given, or table4, got no base"):
        reproduce(tmp_path / "out")
    with pytest.raises(Refusal, match="table4 must be without base, methods, seeds and stages, got one of them too"):
        reproduce(tmp_path / "out", seeds=[1], table4=table)
    assert not (tmp_path / "out").exists()
