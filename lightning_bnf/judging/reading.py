"""Judgment folders, and the three repositories' own judgment files, as the arrays that statistics read."""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import logit

from lightning_bnf.evaluation.judged.games import STYLE, Games
from lightning_bnf.judging.folder import JUDGMENTS, QUESTIONS, SETTINGS, last_attempts
from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.verdicts import MARGINS
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.refusal import Refusal, refusing

_SURE = 1e-9  # a probability of 0 or 1 has no finite log-odds


@dataclass(frozen=True)
class Judged:
    """One model's judgments by one judge.

    rows: by question, with category, tags, styles and characters of both sides. lines: a game each: question, game,
    first, verdict, preference. published: whether a repository's own file was read
    """

    benchmark: str
    rules: str
    model: str
    baseline: str
    judge: str
    prompt: str
    rows: Mapping[str, Mapping[str, Any]]
    lines: Sequence[Mapping[str, Any]]
    published: bool = False
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def pool(self) -> tuple[str, str, str, str]:
        """What must be alike in one table's pool."""
        return self.benchmark, self.baseline, self.judge, self.prompt

    @property
    def own_prompt(self) -> bool:
        """Whether the prompt is not the benchmark's."""
        return "lightning_bnf" in self.prompt or self.prompt.startswith("none")


def read_folder(folder: Path) -> Judged:
    """A folder of `judge`. Raises `Refusal` for another, and where several models of the server have judged."""
    with refusing(f"judgments must be a folder that `judge` wrote, got {folder}"):
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        rows = [json.loads(line) for line in (folder / QUESTIONS).read_text(encoding="utf-8").split("\n") if line]
        about = {row["question"]: row for row in rows}
        stored = JsonlStore(folder / JUDGMENTS).values()
    lines = [one for one in stored if one["question"] in about and one["answers"] == about[one["question"]]["answers"]]
    games = last_attempts(lines)
    judges = sorted({one["judge"] for one in games} - {"none"})
    if len(judges) > 1:
        raise Refusal(f"judgments must be by one judge, got {', '.join(judges)} in {folder}")
    asked = {(one["question"], one["game"]) for one in games}
    both = PROTOCOLS[settings["benchmark"]].both and any(one["game"] == 1 for one in games)
    unasked = [(name, game) for name in about for game in range(1 + both) if (name, game) not in asked]
    games += [
        {
            "question": name,
            "game": game,
            "first": game == 1,
            "verdict": None,
            "preference": None,
            "reason": "not judged",
        }
        for name, game in unasked
    ]
    prompt = settings["prompt"]
    return Judged(
        settings["benchmark"],
        settings["rules"],
        settings["model"],
        settings["baseline"] or "",
        judges[0] if judges else settings["judge"]["model"],
        f"{prompt['name']} ({prompt['source']})",
        about,
        games,
        reasons=Counter(
            str(one["reason"]) for one in games if one["verdict"] is None and one.get("preference") is None
        ),
    )


def as_games(judged: Judged, characters: bool = False) -> Games:
    """Pairwise verdicts as games; lengths in tokens where they are known, or in characters."""
    none = [None] * len(STYLE)
    verdicts, styles, bases = [], [], []
    for line in judged.lines:
        row = judged.rows.get(line["question"], {})
        verdicts.append(_verdict(line))
        own, base = (list(row.get(f"{side}_style") or none) for side in ("own", "base"))
        if characters:
            own[0], base[0] = row.get("own_characters"), row.get("base_characters")
        styles.append([math.nan if value is None else float(value) for value in own])
        bases.append([math.nan if value is None else float(value) for value in base])
    return Games(
        np.array([line["question"] for line in judged.lines]),
        np.full(len(judged.lines), judged.model),
        np.array([bool(line["first"]) for line in judged.lines]),
        np.array(verdicts, dtype=float),
        np.array(styles).reshape(-1, len(STYLE)),
        np.array(bases).reshape(-1, len(STYLE)),
    )


def _verdict(line: Mapping[str, Any]) -> float:
    """From the judge's view, of A and B, to the model's; of a preference its side of 1.5."""
    said = line["verdict"]
    if said in MARGINS:
        return float(MARGINS[said] if line["first"] else -MARGINS[said])
    if line.get("preference") is not None:
        return float(np.sign(line["preference"] - 1.5))
    return math.nan


def preferences(judged: Judged) -> np.ndarray:
    """AlpacaEval's, in [1, 2], NaN where there is none: (N,)."""
    return np.array(
        [math.nan if line.get("preference") is None else float(line["preference"]) for line in judged.lines]
    )


def both_orders(judged: Judged) -> Games | None:
    """One game a question whose judge gave probabilities in both orders: the side with the higher mean log-odds wins,
    so that what a judge adds to whatever it sees first cancels; equal but for rounding, as of equal answers, is a tie.
    None where it gave none."""
    by_question: dict[str, list[float]] = {}
    for line in judged.lines:
        if line.get("preference") is not None:
            by_question.setdefault(line["question"], []).append(float(line["preference"]) - 1)
    odds = {name: np.mean(logit(np.clip(p, _SURE, 1 - _SURE))) for name, p in by_question.items() if len(p) == 2}
    if not odds:
        return None
    lines = [
        {
            "question": name,
            "game": 0,
            "first": True,
            "verdict": None,
            "preference": 1.5 + float(np.sign(one.round(9))) / 2,
        }
        for name, one in odds.items()
    ]
    return as_games(replace(judged, lines=lines), characters=True)


def scores(judged: Judged) -> np.ndarray:
    """WildBench's, 1 to 10, NaN where there is none: (N,)."""
    return np.array([math.nan if line["verdict"] is None else float(line["verdict"]) for line in judged.lines])


def column(judged: Judged, name: str) -> np.ndarray:
    """A number of each line's question, NaN where it is not known: (N,)."""
    held = [judged.rows.get(line["question"], {}).get(name) for line in judged.lines]
    return np.array([math.nan if value is None else float(value) for value in held])
