"""The tables of "As Simple as Fine-tuning: LLM Alignment via Bidirectional Negative Feedback Loss" (ICLR 2025) as data.

Scores, ranks and costs exactly as they are printed; nothing here was measured by this package. Table 2 is formulas:
`losses` holds them. Tables 8 and 9 are texts.
"""

from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from lightning_bnf.runtime.refusal import Refusal

METRICS = {
    "wildbench_elo": "Wild-Bench Elo",
    "wildbench_score": "Wild-Bench score",
    "arenahard_lc": "Arena-Hard LC (%)",
    "arenahard_wr": "Arena-Hard WR (%)",
    "gsm8k": "GSM8K (%)",
    "math_l5": "MATH-L5 (%)",
    "crux": "CRUX (%)",
    "mmlu_redux": "MMLU-redux (%)",
}
"""Columns of Tables 4 and 6 and their titles; more is better in all. Four of alignment, then four of reasoning."""
ALIGNMENT, REASONING = tuple(METRICS)[:4], tuple(METRICS)[4:]
BASE_MODELS = ("Meta-Llama-3-8B-Instruct", "Mistral-7B-Instruct-v0.2", "Gemma-2-9b-it")

_FILES = {
    1: "table1_wildbench_elo",
    3: "table3_benchmarks",
    4: "table4_main",
    5: "table5_output_length",
    6: "table6_pairing_ratio",
    7: "table7_costs",
}


@dataclass(frozen=True)
class PrintedScores:
    """Scores with the ranks that the paper prints beside them.

    scores, ranks: a line for each method (or pairing ratio), a column for each of `METRICS`
    average_rank: the paper's last column, rounded to two digits there
    """

    scores: pd.DataFrame
    ranks: pd.DataFrame
    average_rank: pd.Series


def printed(number: int) -> pd.DataFrame:
    """A table as it is in the data file. Raises `Refusal` for numbers of no such table."""
    if number not in _FILES:
        raise Refusal(f"table must be one of {', '.join(map(str, _FILES))}, got {number}")
    with (files("lightning_bnf.reproduction") / "tables" / f"{_FILES[number]}.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file, keep_default_na=False)


def table1() -> pd.DataFrame:
    """Wild-Bench Elo of known models and of the paper's: index model, column elo."""
    return printed(1).set_index("model")


def table3() -> pd.DataFrame:
    """The two instruction-following benchmarks: index dataset; query_len and prompt_len in characters or tokens, which
    the paper does not say."""
    return printed(3).set_index("dataset")


def table4(base_model: str) -> PrintedScores:
    """The main results for one base model, by method. Raises `Refusal` for a base model that is not there.

    The paper lists R-DPO among its baselines but prints no line for it.
    """
    table = printed(4)
    if base_model not in set(table["base_model"]):
        raise Refusal(f"base_model must be one of {', '.join(BASE_MODELS)}, got {base_model!r}")
    return _scores(table[table["base_model"] == base_model].set_index("method"))


def table5() -> pd.DataFrame:
    """Mean output lengths by method, in the paper's own unit: of Llama-3 and Mistral on Wild-Bench and Arena-Hard."""
    return printed(5).set_index("method")


def table6() -> PrintedScores:
    """BNF on Llama-3 by pairing ratio: the share of pairs of which no response was masked."""
    return _scores(printed(6).set_index("pairing_ratio"))


def table7() -> pd.DataFrame:
    """Costs by base model, on 8 A100-80GB in bf16: index cost (GPU-hours, US dollars), a column for each base model."""
    return printed(7).set_index("cost")


def _scores(table: pd.DataFrame) -> PrintedScores:
    names = list(METRICS)
    ranks = table[[f"{name}_rank" for name in names]].set_axis(names, axis=1)
    return PrintedScores(table[names].astype(float), ranks.astype(int), table["average_rank"].astype(float))
