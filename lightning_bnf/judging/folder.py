"""The folder of one model's judgments by one judge with one prompt.

judge.json        benchmark, rules, model, baseline, judge, prompt, hash of what is judged, versions
questions.jsonl   each question's category, tags, and the style and characters of both answers
judgments.jsonl   a line a reply, written as it comes; a game's verdict is that of its last attempt
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from threading import Lock
from typing import Any

from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import JsonlStore, write_jsonl
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.refusal import Refusal

SETTINGS, QUESTIONS, JUDGMENTS = "judge.json", "questions.jsonl", "judgments.jsonl"
_COMMAND = "judge"
_UNCOMPARED = ("versions", "questions", "server")
"""A server's address may change; its model may not."""


@dataclass(frozen=True)
class Judgment:
    """A judge's reply, or a verdict without one.

    verdict: a label or score as it was said; None with the reason. preference: of the model's answer, in [1, 2], where
    the judge gives probabilities. cost: in the prices' currency.
    """

    question: str
    game: int
    first: bool
    attempt: int
    judge: str
    text: str
    verdict: str | None
    reason: str | None
    preference: float | None = None
    tokens_in: int | None = None
    tokens_out: int | None = None
    cost: float | None = None
    time: float = 0.0


class JudgmentFolder:
    """Judgments on disk: opened again it goes on, and never meets those of another judge, prompt or answer."""

    def __init__(self, path: Path, settings: Mapping[str, Any], questions: Sequence[Mapping[str, Any]]):
        """Raises `Refusal` for a folder of others, or of other settings; it says which."""
        check_folder(path, settings)
        claim("output", path, _COMMAND)
        self.path = path
        self.settings = dict(settings) | {"versions": {"lightning_bnf": version("lightning_bnf")}}
        self._lock = Lock()
        self._answers = {str(one["question"]): one["answers"] for one in questions}
        write_jsonl(path / QUESTIONS, questions)
        write_text(path / SETTINGS, json.dumps(self.settings, indent=1) + "\n")
        self.store = JsonlStore(path / JUDGMENTS)

    def __contains__(self, key: str) -> bool:
        return key in self.store

    def get(self, key: str) -> dict[str, Any]:
        """The stored line of a key."""
        return self.store[key]

    def add(self, key: str, judgment: Judgment) -> None:
        """Written when it returns; from any thread."""
        about = {name: self.settings[name] for name in ("benchmark", "model", "baseline")}
        with self._lock:
            prompt, answers = self.settings["prompt"]["hash"], self._answers[judgment.question]
            self.store.add({key: about | vars(judgment) | {"prompt": prompt, "answers": answers}})

    def lines(self) -> list[dict[str, Any]]:
        """All that is stored of the questions and answers at hand, in the order of writing."""
        return [one for one in self.store.values() if self._answers.get(one["question"]) == one["answers"]]

    def spent(self) -> float:
        """What the replies have cost; those of unknown cost are left out."""
        return float(sum(line["cost"] or 0.0 for line in self.store.values()))

    def key(self, *parts: Any) -> str:
        """Of a call: of the judge and the prompt as well."""
        return content_hash([self.settings["judge"], self.settings["prompt"], *parts])


def check_folder(path: Path, settings: Mapping[str, Any]) -> None:
    """Raises `Refusal` where `JudgmentFolder` would."""
    check_claim("output", path, _COMMAND)
    if (path / SETTINGS).is_file():
        held = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
        differs = [
            name
            for name in settings
            if name not in _UNCOMPARED and held.get(name) != json.loads(json.dumps(settings[name]))
        ]
        if differs:
            raise Refusal(
                f"output must be a new folder or one of the same judgments, got {path}, which has another "
                f"{', another '.join(differs)}"
            )


def last_attempts(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A line for each game: its last attempt's."""
    found: dict[tuple[str, int], Mapping[str, Any]] = {}
    for line in lines:
        at = (line["question"], line["game"])
        if at not in found or line["attempt"] >= found[at]["attempt"]:
            found[at] = line
    return list(found.values())


def counted(lines: Sequence[Mapping[str, Any]], failed: Counter[str] | None = None) -> str:
    """How many games have a verdict, and why the others have none."""
    games = last_attempts(lines)
    without = Counter(str(line["reason"]) for line in games if line["verdict"] is None and line["preference"] is None)
    held = len(games) - sum(without.values())
    parts = [f"{held} verdicts", *(f"{count} without: {reason}" for reason, count in without.most_common())]
    parts += [f"{count} failed: {reason}" for reason, count in (failed or Counter()).most_common()]
    return "; ".join(parts)
