"""Rows for the bench: random words, so that nothing but lengths matters."""

import random
import re
from typing import Any

from lightning_bnf.datamodules.reading.options import DataOptions, Rendering

AS_TEXT = DataOptions(rendering=Rendering(strings="text"))
"""How the rows are read: as they are, so that their lengths are those of their words, with a template or without."""

WORDS = re.findall(
    r"\w+",
    "river stone lamp quiet bread seven garden window letter blue market paper engine cloud silver road table song "
    "winter apple bridge field green yellow morning evening house water small large open closed run walk see hear "
    "carry build write read count answer question number first last other many few long short new old",
)


def pairs(count: int = 64, seed: int = 1, scale: int = 1) -> list[dict[str, Any]]:
    """Pairs (prompt, chosen, rejected) with prompts of 40 to 160 words and answers of 20 to 120, `scale` times that."""
    generator = random.Random(seed)

    def text(low: int, high: int) -> str:
        return " ".join(generator.choices(WORDS, k=scale * generator.randint(low, high)))

    return [
        {"prompt": text(40, 160), "chosen": f" {text(20, 120)}", "rejected": f" {text(20, 120)}"} for _ in range(count)
    ]


def unpaired(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same completions one by one, with labels: the chosen and the rejected of a pair one behind the other."""
    return [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row in rows
        for side in ("chosen", "rejected")
    ]
