"""From judgments to numbers: a line each, with n, missing, interval, pool, judge, prompt and rules."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lightning_bnf.evaluation.judged import arena_hard_2024, arena_hard_2025, wildbench_reward, wildbench_score
from lightning_bnf.evaluation.judged.alpaca_eval import Gamed, Preferred, length_controlled, win_rate
from lightning_bnf.evaluation.judged.arena_hard_2024 import Rated
from lightning_bnf.evaluation.judged.biases import Biases, biases
from lightning_bnf.evaluation.judged.games import Games, joined
from lightning_bnf.evaluation.judged.wildbench_elo import elo
from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.judging.reading import Judged, as_games, both_orders, column, preferences, scores
from lightning_bnf.runtime.refusal import Refusal

OWN_PROMPT = "not the benchmark's prompt"


@dataclass(frozen=True)
class Line:
    """A number. level: of both intervals, in percent; published: the protocol's own interval, where it has one.

    pool: the models that it was computed with, which joint fits and Elo depend on
    """

    benchmark: str
    model: str
    measure: str
    value: float
    low: float
    high: float
    level: int
    published: tuple[float, float] | None
    n: int
    missing: int
    pool: tuple[str, ...]
    baseline: str
    judge: str
    prompt: str
    rules: str


@dataclass
class Table:
    """All lines, the biases of each judge by what it judged, and what could not be computed, and why."""

    lines: list[Line]
    biases: dict[str, Biases]
    notes: list[str]


@dataclass(frozen=True)
class Given:
    """What numbers depend on beside judgments: AlpacaEval's difficulties, the ratings by model that WildBench's Elo
    starts from (1000 for others), and the seed of draws."""

    gamed: Gamed | None = None
    initial_elo: Mapping[str, float] | None = None
    seed: int = 0


def table(judged: Sequence[Judged], given: Given = Given()) -> Table:
    """Numbers of all pools. Raises `Refusal` for a model that is twice in a pool, and for initial ratings of none."""
    rated = {one.model for one in judged if one.benchmark == "wildbench"}
    if unknown := sorted(set(given.initial_elo or ()) - rated):
        raise Refusal(f"initial_elo must be of models of wildbench ({', '.join(sorted(rated))}), got {unknown[0]!r}")
    pools: dict[tuple[str, ...], list[Judged]] = {}
    for one in judged:
        pools.setdefault(one.pool, []).append(one)
    found = Table([], {}, [])
    for key, pool in pools.items():
        names = [one.model for one in pool]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise Refusal(f"judgments must be of each model once, got {twice} twice, of {key[0]} by {key[2]}")
        _MAKERS[key[0]](pool, found, given)
        if pool[0].own_prompt and key[0] != "pairs":
            found.notes.append(f"{key[0]} by {key[2]}: {OWN_PROMPT}, so these are not its numbers ({key[3]})")
        if key[0] != "wildbench":
            fought = joined([as_games(one, characters=_characters(one)) for one in pool])
            found.biases[f"{key[0]} by {key[2]}"] = biases(fought, given.seed)
    _mixtures(judged, found, given.seed)
    return found


def _characters(one: Judged) -> bool:
    """Whether lengths are known in characters alone."""
    return bool(np.isnan(as_games(one).style[:, 0]).any())


def _line(one: Judged, pool: Sequence[Judged], measure: str, value: Interval, n: int, missing: int) -> Line:
    names = tuple(sorted(other.model for other in pool))
    return Line(
        *(one.benchmark, one.model, measure, value.value, value.low, value.high, 95, None, n, missing),
        *(names, one.baseline, one.judge, one.prompt, one.rules),
    )


def _percent(rate: Interval) -> Interval:
    return Interval(100 * rate.value, 100 * rate.low, 100 * rate.high)


def _rated(pool: Sequence[Judged], rows: Iterable[Rated], measure: str, level: int) -> list[Line]:
    by_model = {one.model: one for one in pool}
    lines = []
    for row in rows:
        line = _line(by_model[row.model], pool, measure, _percent(row.rate), row.n, row.missing)
        published = (100 * row.published.low, 100 * row.published.high)
        lines.append(replace(line, level=level, published=published))
    return lines


def _arena_2024(pool: Sequence[Judged], found: Table, given: Given) -> None:
    games = _fought(pool, found)
    if games is None:
        return
    found.lines += _rated(pool, arena_hard_2024.win_rates(games, given.seed), "WR (%)", 95)
    if _with_lengths(games, pool, found, "LC"):
        found.lines += _rated(pool, arena_hard_2024.length_controlled(games, given.seed), "LC (%), as published", 95)
        found.lines += _rated(pool, arena_hard_2024.at_equal_lengths(games, given.seed), "LC (%), at equal lengths", 95)


def _pairs(pool: Sequence[Judged], found: Table, given: Given) -> None:
    several = {
        "win rate (%)": [as_games(one, characters=True) for one in pool],
        "win rate (%), both orders as one": [games for one in pool if (games := both_orders(one)) is not None],
    }
    for measure, parts in several.items():
        games = joined(parts) if parts else None
        if games is None or not len(games.judged):
            continue
        for name, statistic in (
            ("", arena_hard_2024.win_rates),
            (", at equal lengths", arena_hard_2024.at_equal_lengths),
        ):
            lines = _rated(pool, statistic(games, given.seed), measure + name, 95)
            found.lines += [replace(line, published=None) for line in lines]


def _arena_2025(pool: Sequence[Judged], found: Table, given: Given) -> None:
    games = _fought(pool, found)
    if games is None:
        return
    found.lines += _rated(pool, arena_hard_2025.scores(games, given.seed), "score (%)", 90)
    if _with_lengths(games, pool, found, "style control"):
        found.lines += _rated(
            pool, arena_hard_2025.style_controlled(games, given.seed), "style-controlled score (%)", 90
        )


def _fought(pool: Sequence[Judged], found: Table) -> Games | None:
    games = joined([as_games(one) for one in pool])
    for name in sorted(set(games.pool) - set(games.judged.pool)):
        found.notes.append(f"{pool[0].benchmark} by {pool[0].judge}: no verdict at all of {name}")
    return games if len(games.judged) else None


def _with_lengths(games: Games, pool: Sequence[Judged], found: Table, what: str) -> bool:
    known = not np.isnan(games.style).any() and not np.isnan(games.base_style).any()
    if not known:
        found.notes.append(
            f"{pool[0].benchmark} by {pool[0].judge}: no {what}, which needs lengths in GPT-4o's tokens "
            "(`judge --vocabulary o200k_base.tiktoken`, or `scores --answers` with Arena-Hard's own answer files)"
        )
    return known


def _wildbench(pool: Sequence[Judged], found: Table, given: Given) -> None:
    for one in pool:
        score = scores(one)
        if np.isnan(score).all():
            found.notes.append(f"wildbench by {one.judge}: no score at all of {one.model}")
            continue
        plain = wildbench_score.adjusted_score(score, given.seed)
        found.lines.append(_line(one, pool, "score", plain.value, plain.n, plain.missing))
        tags = [one.rows[line["question"]].get("tags") or [] for line in one.lines]
        if all(tags):
            macro = wildbench_score.task_macro(score, tags, given.seed)
            found.lines.append(_line(one, pool, "task macro (the paper's score)", macro.value, macro.n, macro.missing))
        else:
            found.notes.append(f"wildbench by {one.judge}: no task macro of {one.model}, which needs --questions")
    if len(pool) < 2:
        found.notes.append(f"wildbench by {pool[0].judge}: no Elo, which needs two models or more")
        return
    if given.initial_elo:
        started = ", ".join(f"{name} {rating:g}" for name, rating in sorted(given.initial_elo.items()))
        found.notes.append(f"wildbench by {pool[0].judge}: Elo starts from given ratings: {started}")
    names = sorted({line["question"] for one in pool for line in one.lines})
    score, length = (np.full((len(names), len(pool)), np.nan) for _ in range(2))
    for i, one in enumerate(pool):
        place = np.searchsorted(names, [line["question"] for line in one.lines])
        score[place, i], length[place, i] = scores(one), column(one, "own_characters")
    for one, rating in zip(
        pool, elo(score, length, [one.model for one in pool], given.initial_elo, given.seed), strict=True
    ):
        line = _line(one, pool, "Elo", rating.over_tasks, rating.n, int(np.isnan(scores(one)).sum()))
        found.lines.append(replace(line, published=(rating.published.low, rating.published.high)))


def _wildbench_pairs(pool: Sequence[Judged], found: Table, given: Given) -> None:
    for one in pool:
        games = as_games(one, characters=True)
        if not len(games.judged):
            found.notes.append(f"wildbench_pairs by {one.judge}: no verdict at all of {one.model}")
            continue
        for k in (None, 500, 1000, 1500):
            reward = wildbench_reward.mean_reward(games, k, given.seed)
            name = "reward" if k is None else f"reward, K {k}"
            found.lines.append(_line(one, pool, name, reward.value, reward.n, reward.missing))


def _mixtures(judged: Sequence[Judged], found: Table, seed: int) -> None:
    """The mean reward over baselines, of models that were compared with several by one judge."""
    held: dict[tuple[str, str, str], list[Judged]] = {}
    for one in judged:
        if one.benchmark == "wildbench_pairs" and len(as_games(one).judged):
            held.setdefault((one.model, one.judge, one.prompt), []).append(one)
    for several in held.values():
        if len(several) > 1:
            games = {one.baseline: as_games(one, characters=True) for one in several}
            mixed = wildbench_reward.mixture(games, 500, seed)
            line = _line(several[0], several[:1], "reward, mixture, K 500", mixed.value, mixed.n, mixed.missing)
            found.lines.append(replace(line, baseline=", ".join(sorted(games))))


def _alpaca(pool: Sequence[Judged], found: Table, given: Given) -> None:
    for one in pool:
        preference = preferences(one)
        if (~np.isnan(preference)).sum() < 10:
            found.notes.append(f"alpaca_eval_2 by {one.judge}: fewer than ten preferences of {one.model}")
            continue
        lengths = column(one, "own_characters"), column(one, "base_characters")
        place = column(one, "index")
        if given.gamed is not None and np.isnan(place).any():
            raise Refusal(f"gamed must come with judgments of AlpacaEval's `--questions`, got {one.model} without")
        index = place.astype(int) if given.gamed is not None else None
        made = {"win rate (%)": win_rate(preference)}
        try:
            made["LC win rate (%)"] = length_controlled(preference, *lengths, index, given.gamed, given.seed)
        except Refusal as refused:
            found.notes.append(f"alpaca_eval_2 by {one.judge}: no LC win rate of {one.model}: {refused}")
        found.lines += [_preferred(one, pool, name, row) for name, row in made.items()]


def _preferred(one: Judged, pool: Sequence[Judged], measure: str, row: Preferred) -> Line:
    line = _line(one, pool, measure, row.rate, row.n, row.missing)
    half = 1.959964 * row.error
    return replace(line, published=(row.rate.value - half, row.rate.value + half), rules=row.rules)


_MAKERS: Mapping[str, Callable[[Sequence[Judged], Table, Given], None]] = {
    "pairs": _pairs,
    "arena_hard_v0.1": _arena_2024,
    "arena_hard_v2": _arena_2025,
    "wildbench": _wildbench,
    "wildbench_pairs": _wildbench_pairs,
    "alpaca_eval_2": _alpaca,
}
