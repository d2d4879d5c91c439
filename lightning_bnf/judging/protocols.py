"""The judged benchmarks as data: what a judge is asked, how, in which order, and how its answer is read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lightning_bnf.judging import verdicts
from lightning_bnf.judging.verdicts import Verdict

BenchmarkName = Literal["pairs", "arena_hard_v0.1", "arena_hard_v2", "wildbench", "wildbench_pairs", "alpaca_eval_2"]
Kind = Literal["pairwise", "choice", "score", "letters"]
"""What is asked: five grades of a pair in brackets, or as JSON; a score of one answer; the better of two as a token."""


@dataclass(frozen=True)
class Protocol:
    """A benchmark's protocol.

    both: whether every pair is shown in both orders; else one is drawn for each question. read: from a judge's text to
    the verdict; None where log-probs are read. attempts: requests for a verdict in all. max_tokens: of a judge's reply.
    """

    name: BenchmarkName
    rules: str
    kind: Kind
    both: bool
    temperature: float
    max_tokens: int
    read: Callable[[str], Verdict] | None
    attempts: int = 1
    json_object: bool = False
    first: int = 0
    baseline: str | None = None


PROTOCOLS: dict[str, Protocol] = {
    one.name: one
    for one in (
        Protocol(
            "pairs",
            "any pairs, in both orders; Arena-Hard's verdicts of 2025",
            "pairwise",
            True,
            0.0,
            1024,
            verdicts.arena_hard_2025,
        ),
        Protocol(
            "arena_hard_v0.1",
            "Arena-Hard v0.1, rules of 2024",
            "pairwise",
            True,
            0.0,
            4096,
            verdicts.arena_hard_2024,
            attempts=2,
            baseline="gpt-4-0314",
        ),
        Protocol(
            "arena_hard_v2",
            "Arena-Hard v2.0, rules of 2025",
            "pairwise",
            True,
            0.0,
            16000,
            verdicts.arena_hard_2025,
            baseline="o3-mini-2025-01-31 (hard prompts), gemini-2.0-flash-001 (creative writing)",
        ),
        Protocol(
            "wildbench", "WildBench v2, score", "score", False, 0.0, 1024, verdicts.wildbench_score, json_object=True
        ),
        Protocol(
            "wildbench_pairs",
            "WildBench v2, pairs",
            "choice",
            False,
            0.0,
            1024,
            verdicts.wildbench_choice,
            json_object=True,
        ),
        Protocol(
            "alpaca_eval_2", "AlpacaEval 2", "letters", False, 1.0, 1, None, first=5, baseline="gpt4_1106_preview"
        ),
    )
}
