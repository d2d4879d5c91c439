"""What gives completions their scores, and how many are scored: in batches, and so that a killed run goes on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lightning_bnf.datamodules.reading.messages import Messages
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal


class ScoringError(Refusal):
    """A scorer that cannot be used as it is given, or a score that is no number; the message says what is accepted."""


@dataclass(frozen=True)
class Candidates:
    """A prompt, whose last message is the user's, and the texts that answer it."""

    prompt: Messages
    completions: tuple[str, ...]


class Scorer(ABC):
    """Gives each completion of a prompt a number: the higher, the better."""

    @abstractmethod
    def score(self, groups: Sequence[Candidates], work_file: Path) -> list[list[float | None]]:
        """The scores of every group's completions, in their order; None where one is too long to be scored.

        `work_file` (JSONL) keeps every score that was computed, keyed by the scorer's weights and settings and by what
        was scored; what it holds already is not computed again.
        """


@dataclass(frozen=True)
class Entry:
    """One input of a scoring model: token ids, and how many of them are the prompt's."""

    key: str
    ids: list[int]
    prompt_length: int = 0


class ScoreFile:
    """Scores on disk, one JSONL line each, keyed by content. What is there when it is opened is not computed again."""

    def __init__(self, path: Path, name: str, total: int):
        """`name` is the scorer's, for messages and for the bar, of `total` entries less those that are there."""
        self.name = name
        self.store = JsonlStore(path)
        self.bar = Progress(total, name, "score")

    def fill(
        self, entries: Sequence[Entry], compute: Callable[[list[Entry]], list[float]], max_tokens: int
    ) -> dict[str, float]:
        """The scores of the entries, by key; those that are missing are computed, the largest batches first.

        A batch's entries are alike in length, and its padded size stays within `max_tokens` unless a single entry
        exceeds it. Every finished batch is in the file. Raises `ScoringError` for a score that is not finite.
        """
        by_key = {entry.key: entry for entry in entries}
        missing = [entry for key, entry in by_key.items() if key not in self.store]
        self.bar.skip(len(entries) - len(missing))  # so that the time left counts new work only
        plan = StepPlan([[len(entry.ids)] for entry in missing], max(1, len(missing)), max_tokens)
        for rows in plan.micro_batches(0, 0):
            batch = [missing[row] for row in rows]
            scores = {entry.key: score for entry, score in zip(batch, compute(batch), strict=True)}
            for score in scores.values():
                if not math.isfinite(score):
                    raise ScoringError(f"{self.name}: a score must be a finite number, got {score}")
            self.store.add({key: {"score": score} for key, score in scores.items()})
            self.bar.update(len(batch))
        return {key: self.store[key]["score"] for key in by_key}


def right_padded(entries: Sequence[Entry], pad: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and attention mask, each (entries, longest); the mask is made from lengths, never from ids."""
    width = max(len(entry.ids) for entry in entries)
    ids = [entry.ids + [pad] * (width - len(entry.ids)) for entry in entries]
    mask = [[1] * len(entry.ids) + [0] * (width - len(entry.ids)) for entry in entries]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)
