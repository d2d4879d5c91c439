"""The paper's tables: what is in the data files, against numbers read off the paper."""

import tomllib
from pathlib import Path

import pytest

from lightning_bnf.reproduction.printed import (
    ALIGNMENT,
    BASE_MODELS,
    METRICS,
    REASONING,
    printed,
    table1,
    table3,
    table4,
    table5,
    table6,
    table7,
)

ROOT = Path(__file__).parents[2]


def test_the_tables_have_the_papers_shapes() -> None:
    """Table 4 has 8 methods for two base models and 4 for Gemma-2; Table 6 the base and four ratios."""
    assert [len(table4(name).scores) for name in BASE_MODELS] == [8, 8, 4]
    assert set(printed(4)["base_model"]) == set(BASE_MODELS)
    assert list(table6().scores.index) == ["Base", "0%", "25%", "50%", "100%"]
    assert len(METRICS) == 8
    assert tuple(METRICS) == ALIGNMENT + REASONING
    for one in (*map(table4, BASE_MODELS), table6()):
        assert list(one.scores) == list(one.ranks) == list(METRICS)
        assert one.scores.notna().all(axis=None)


def test_numbers_read_off_the_paper() -> None:
    """One number of every table, and the differences that Section 5.2 states in words: at a pairing ratio of 0 %,
    +6.8 on Wild-Bench, +12.3 % on Arena-Hard, +1.6 % on GSM8K, +2.6 % on MATH-L5."""
    assert table1().loc["Gemma-2-9B-BNF", "elo"] == 1186
    assert table3().loc["Wild-Bench", "prompt_len"] == 3402
    assert table4("Gemma-2-9b-it").scores.loc["BNF", "arenahard_lc"] == 77.5
    assert table4("Mistral-7B-Instruct-v0.2").average_rank["SimPO"] == 4.13
    assert table5().loc["SLiC-HF", "llama3_arenahard"] == 469
    assert table7().loc["training_gpu_hours_total", "gemma2_9b"] == 700
    gain = table6().scores.loc["0%"] - table6().scores.loc["Base"]
    assert gain[["wildbench_score", "arenahard_wr", "gsm8k", "math_l5"]].tolist() == pytest.approx(
        [6.8, 12.3, 1.6, 2.6]
    )


def test_tables_agree_with_each_other() -> None:
    """BNF on Llama-3 is a line of Table 4 and of Table 6; Gemma-2's Elos are in Tables 1 and 4."""
    assert table4(BASE_MODELS[0]).scores.loc["BNF"].equals(table6().scores.loc["100%"].rename("BNF"))
    assert table4(BASE_MODELS[0]).scores.loc["Base"].equals(table6().scores.loc["Base"])
    gemma = table4("Gemma-2-9b-it").scores["wildbench_elo"]
    for method in ("BNF", "SimPO", "DPO"):
        assert table1().loc[f"Gemma-2-9B-{method}", "elo"] == gemma[method]
    assert list(table5().index) == list(table4(BASE_MODELS[0]).scores.index)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match=r"table must be one of 1, 3, 4, 5, 6, 7.*, got 2"):
        printed(2)
    with pytest.raises(ValueError, match=r"base_model must be one of Meta-Llama-3-8B-Instruct, Mistral.*, got 'llama'"):
        table4("llama")


def test_a_wheel_holds_the_tables() -> None:
    """The patterns of the project's package data match every file in the folder."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = setuptools["package-data"]["lightning_bnf.reproduction"]
    folder = ROOT / "lightning_bnf/reproduction"
    held = {path for pattern in patterns for path in folder.glob(pattern)}
    assert held == set((folder / "tables").iterdir())
    assert len(held) == 6
