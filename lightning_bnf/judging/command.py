"""The verb `judge`: answers -> a judge's verdicts, in a folder that `scores` reads."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lightning_bnf.judging.folder import Judgment, JudgmentFolder, counted
from lightning_bnf.judging.games import Game, games_of
from lightning_bnf.judging.lengths import gpt4o_length
from lightning_bnf.judging.local_judges import TokenJudge, judged_once, play_by_scores
from lightning_bnf.judging.protocols import PROTOCOLS, BenchmarkName, Protocol
from lightning_bnf.judging.server_judge import Budget, JudgeServer, ServerJudge, expected
from lightning_bnf.judging.sides import Pair, pairs, style
from lightning_bnf.judging.templates import OWN, Template, read_template
from lightning_bnf.policies.base import Dtype
from lightning_bnf.preparation.scoring import Scorer
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.refusal import Refusal


def expanded(words: Sequence[str]) -> list[str]:
    """`judge RUN ...` is short for `judge --benchmark pairs --answers RUN ...`."""
    named = words[:1] and not words[0].startswith("-")
    return ["--benchmark", "pairs", "--answers", *words] if named else list(words)


@checked
def judge(
    benchmark: BenchmarkName,
    answers: str,
    output: Path,
    baseline: str | None = None,
    questions: str | None = None,
    category: str | None = None,
    prompt: str | None = None,
    server: JudgeServer | None = None,
    scorer: Scorer | None = None,
    source: str | None = None,
    dtype: Dtype = "float32",
    tie_margin: NonNegativeFloat = 0.0,
    vocabulary: Path | None = None,
    limit: PositiveInt | None = None,
    seed: int = 0,
    max_new_tokens: PositiveInt | None = None,
    max_cost: PositiveFloat | None = None,
    dry_run: bool = False,
) -> None:
    """Let a judge compare a model's answers with a baseline's, for Arena-Hard, WildBench or AlpacaEval 2. Resumable.

    The judge is one of `server` (OpenAI-compatible), `scorer` (a reward model, run here) and `source` (a causal
    language model, run here, by the probabilities of its verdict's token).

    Args:
        benchmark: arena_hard_v0.1, arena_hard_v2, wildbench (scores), wildbench_pairs (reward), alpaca_eval_2, pairs.
        answers: the model's answers, as `generate` or the benchmarks' repositories write them; or a run's folder.
        output: folder for the judgments: new, or of the same judge, prompt and answers, which goes on.
        baseline: the baseline's answers; null for wildbench, and for a run's folder, which has those before training.
        questions: the benchmark's question file, for WildBench's checklists and tags and Arena-Hard's categories.
        category: only questions of this category (arena_hard_v2 has a baseline for each).
        prompt: a checkout of the benchmark's repository, a YAML file, or `own`, which makes another benchmark.
        server: OpenAI-compatible server that judges.
        scorer: reward model or ranker that judges, by class path.
        source: model that judges: hub id, folder, GGUF file or bundled model.
        dtype: type of the weights of `source`.
        tie_margin: difference of scores (`scorer`) or distance from probability 1/2 (`source`) up to which it is a tie.
        vocabulary: file o200k_base.tiktoken, for lengths in GPT-4o's tokens; null: those that the answer files hold.
        limit: only the first questions; null: all.
        seed: of the orders that are drawn.
        max_new_tokens: tokens of a reply; null: the protocol's.
        max_cost: what may be spent at most, earlier runs into the folder included; needs the server's prices.
        dry_run: print calls, tokens and cost, and send nothing.
    """
    protocol = PROTOCOLS[benchmark]
    check_judge(protocol, answers if Path(answers).is_dir() else baseline, prompt, server, scorer, source, max_cost)
    template = read_template(prompt or OWN, protocol, "letters" if source is not None else None)
    asked = pairs(answers, baseline, questions, category)[:limit]
    task = Task(protocol, template, asked, seed, max_new_tokens or protocol.max_tokens, tie_margin, category)
    if server is not None:
        print(expected(server, [game for game in task.games if game.settled is None], task.tokens), flush=True)
    if dry_run:
        print(f"{len(asked)} questions, {len(task.games)} games; nothing was judged")
        return
    length = gpt4o_length(vocabulary) if vocabulary is not None else None
    by_tokens = TokenJudge(source, template.tokens, dtype) if source is not None and template.tokens else None
    settings = task.settings(server, scorer, by_tokens)
    task.play(JudgmentFolder(Path(output), settings, task.about(length)), server, scorer, by_tokens, max_cost)


@dataclass(frozen=True)
class Task:
    """What is judged, and how; by whom is said when it is played."""

    protocol: Protocol
    template: Template
    pairs: Sequence[Pair]
    seed: int
    tokens: int
    tie_margin: float
    category: str | None

    @cached_property
    def games(self) -> list[Game]:
        """All of them, question by question."""
        return games_of(self.pairs, self.protocol, self.template, self.seed)

    def settings(
        self, server: JudgeServer | None, scorer: Scorer | None, by_tokens: TokenJudge | None
    ) -> dict[str, Any]:
        """What tells a folder of judgments from others; no key and no price."""
        base = self.pairs[0].base
        return {
            "benchmark": self.protocol.name,
            "rules": self.protocol.rules,
            "model": self.pairs[0].own.model,
            "baseline": base.model if base is not None else None,
            "category": self.category,
            "judge": _identity(server, scorer, by_tokens, self.tie_margin, self.tokens),
            "server": server.base_url if server is not None else None,
            "prompt": self.template.about if scorer is None else {"name": "none", "source": "a scorer", "hash": ""},
            "seed": self.seed,
            "questions": len(self.pairs),
        }

    def about(self, length: Callable[[str], int] | None) -> list[dict[str, Any]]:
        """The lines of the questions' file."""
        return [_about(pair, length) for pair in self.pairs]

    def play(
        self,
        folder: JudgmentFolder,
        server: JudgeServer | None,
        scorer: Scorer | None,
        by_tokens: TokenJudge | None,
        max_cost: float | None,
    ) -> None:
        """All games that are not done; what is in the folder then is printed, however it ends."""
        todo = [game for game in self.games if game.settled is None or _settle(game, folder)]
        player = None
        if server is not None:
            budget = Budget(max_cost, folder.spent())
            player = ServerJudge(server, self.protocol, self.template, folder, self.tokens, budget)
        try:
            if player is not None:
                player.play(todo)
            elif scorer is not None:
                play_by_scores(judged_once(todo, self.protocol), scorer, self.tie_margin, folder)
            elif by_tokens is not None:
                by_tokens.play(todo, self.tie_margin, folder)
        finally:
            print(f"{counted(folder.lines(), player.failed if player is not None else None)}; in {folder.path}")
            if server is not None and server.price_in is not None:
                print(f"spent: {folder.spent():.4f}")


def check_judge(
    protocol: Protocol,
    baseline: str | None,
    prompt: str | None,
    server: JudgeServer | None,
    scorer: Scorer | None,
    source: str | None,
    max_cost: float | None,
) -> None:
    """Raises `Refusal` for a judge that cannot be asked; nothing is sent."""
    given = [name for name, one in (("server", server), ("scorer", scorer), ("source", source)) if one is not None]
    if len(given) != 1:
        raise Refusal(f"server, scorer, source: one of them must be given, got {' and '.join(given) or 'none'}")
    if (baseline is None) != (protocol.kind == "score"):
        wanted = "null" if protocol.kind == "score" else f"the answers of {protocol.baseline or 'a baseline'}"
        raise Refusal(f"baseline must be {wanted} for {protocol.name}, got {baseline}")
    if protocol.kind == "score" and server is None:
        raise Refusal(f"server must judge {protocol.name}, whose judge writes a score, got {given[0]}")
    if server is not None and prompt is None:
        raise Refusal(f"prompt must be a checkout of {protocol.rules}'s repository, a YAML file or {OWN}, got none")
    if max_cost is not None and (server is None or server.price_in is None or server.price_out is None):
        raise Refusal(f"max_cost must come with server.price_in and server.price_out, got {max_cost:g} without")
    if server is not None:
        server.key()  # refused before anything is read


def _identity(
    server: JudgeServer | None, scorer: Scorer | None, by_tokens: TokenJudge | None, tie_margin: float, tokens: int
) -> dict[str, Any]:
    """What a judge is; no key, no price, no address."""
    if server is not None:
        return {"model": server.model, "max_new_tokens": tokens}
    if scorer is not None:
        return {"model": repr(scorer), "tie_margin": tie_margin}
    assert by_tokens is not None
    return {"model": by_tokens.source, "tie_margin": tie_margin, **by_tokens.identity}


def _about(pair: Pair, length: Callable[[str], int] | None) -> dict[str, Any]:
    """A line of the questions' file. Both answers' contents are named, so that changed ones are seen."""
    sides = {"own": pair.own, "base": pair.base}
    return {
        "question": pair.question,
        "category": pair.category,
        "tags": list(pair.tags),
        "index": pair.index,
        **{f"{name}_style": style(side, length) for name, side in sides.items() if side is not None},
        **{f"{name}_characters": len(side.text) for name, side in sides.items() if side is not None},
        "answers": content_hash([None if side is None else side.text for side in sides.values()]),
    }


def _settle(game: Game, folder: JudgmentFolder) -> bool:
    """Write a verdict that needs no judge; False, as nothing is left to be judged."""
    preferred = 1.5 if game.settled == "A=B" else None
    judgment = Judgment(
        game.pair.question, game.game, game.first, 0, "none", "", game.settled, "settled", preferred, time=time.time()
    )
    folder.add(folder.key(game.pair.question, game.game, "settled", content_hash(asdict(game.pair.own))), judgment)
    return False
