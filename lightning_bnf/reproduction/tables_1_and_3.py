"""Our side of Tables 1 and 3: Wild-Bench's Elo of the models at hand, and what question files hold.

Table 1's judge is GPT-4o. Of runs whose answers verifiers have scored, they are the judge here: a score s in [0, 1] is
1 + 9 s on WildBench's scale. All else is WildBench's: a win by 2 or more, the factor, the orders.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lightning_bnf.evaluation.judged.wildbench_elo import elo
from lightning_bnf.generation.questions import Question
from lightning_bnf.reproduction.scores import BASE
from lightning_bnf.runtime.refusal import Refusal

VERIFIERS = "verifiers, no language model"


def verifiers_elo(runs: Mapping[str, Sequence[Mapping[str, Any]]], split: str = "test") -> pd.DataFrame:
    """Elo of each method's first run by its verifiers, best first: index model, columns elo, low, high (95 %, over
    tasks), n, judge. Greedy answers; the pool is all methods.

    Raises `Refusal` where methods were scored on different prompts.
    """
    scored = {
        method: {one["prompt_id"]: one for one in runs[method][0]["results"]["scores"][split] if _greedy(one)}
        for method in runs
    }
    prompts = list(scored[BASE]) if BASE in scored else list(next(iter(scored.values()), {}))
    if any(set(held) != set(prompts) for held in scored.values()):
        raise Refusal("runs must be scored on the same prompts, got others of some methods")
    score = np.array([[1 + 9 * held[name]["score"] for held in scored.values()] for name in prompts])
    length = np.array([[len(held[name]["text"]) for held in scored.values()] for name in prompts])
    lines = [
        {"model": one.model, "elo": one.over_tasks.value, "low": one.over_tasks.low, "high": one.over_tasks.high}
        | {"n": one.n, "judge": VERIFIERS}
        for one in elo(score, length.astype(float), list(scored))
    ]
    return pd.DataFrame(lines).set_index("model").sort_values("elo", ascending=False)


def _greedy(one: Mapping[str, Any]) -> bool:
    return bool(one["decoding"] == "greedy")


def question_statistics(files: Mapping[str, Sequence[Question]]) -> pd.DataFrame:
    """Table 3's columns of question files: index dataset; tasks, turns (the most of a user), chat_history, and mean
    characters of the last query and of the whole prompt."""
    lines = []
    for name, questions in files.items():
        if not questions:
            raise Refusal(f"files must hold one question or more each, got none of {name}")
        turns = [sum(one["role"] == "user" for one in question.messages) for question in questions]
        whole = [sum(len(str(one["content"])) for one in question.messages) for question in questions]
        lines.append(
            {
                "dataset": name,
                "tasks": len(questions),
                "turns": str(max(turns)) if max(turns) == min(turns) else f"<={max(turns)}",
                "chat_history": "yes" if max(turns) > 1 else "no",
                "query_len": round(float(np.mean([len(str(one.messages[-1]["content"])) for one in questions]))),
                "prompt_len": round(float(np.mean(whole))),
            }
        )
    return pd.DataFrame(lines).set_index("dataset")
