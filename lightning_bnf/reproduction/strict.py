"""The small Table 4, read strictly: its stored answers verified anew, family by family, beside what needs no skill.

The verifiers of data/quickstart pass answers that were not asked for: `highlight` a copy of its own example, the forms
a text about nothing, the choices a guess by position. Here the stored answers are verified again by stricter ones,
which ask for the prompt's topic and for words that are not the prompt's; nothing is generated.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lightning_bnf.evaluation.controls import constant_baseline, positional_baseline
from lightning_bnf.evaluation.verify import verify
from lightning_bnf.runtime.refusal import Refusal

Runs = Mapping[str, Sequence[Mapping[str, Any]]]
Verifier = dict[str, Any]


class Prompt:
    """A prompt of the stored experiment: its family, its text, its verifier as it was, and a stricter one."""

    def __init__(self, row: Mapping[str, Any]):
        self.family = str(row["family"])
        self.text = str(row["prompt"][-1]["content"])
        self.verifier = dict(row["verifier"])

    @property
    def strict(self) -> Verifier:
        """The verifier with what its question asks beside the form; as it was where it asks for nothing else."""
        parts = _BESIDE.get(self.family, lambda prompt: [])(self)
        if self.family == "first_letter":
            return {"name": "only_letter", "answer": self.verifier["answers"][0]}
        return {"name": "all_of", "parts": [self.verifier, *parts]} if parts else self.verifier

    def about(self) -> Verifier:
        """The topic, one of it, or the plural's stem stands in the text."""
        topic = next(found for pattern in _TOPIC for found in [_between(self.text, *pattern)] if found)
        bare = topic.removeprefix("the ")
        return {"name": "mentions", "answers": list(dict.fromkeys([topic, bare, bare.removesuffix("s")]))}

    def own(self, count: int) -> Verifier:
        """Words that are not the prompt's."""
        return {"name": "own_words", "prompt": self.text, "count": count}


_TOPIC = (
    ("about ", (" and highlight", " without", " in exactly", ". ", ", ", ".")),
    ("think of ", ("?",)),
    ("Describe ", (" in ",)),
)
"""What stands before a topic, and what behind it."""


def _between(text: str, before: str, behind: Sequence[str]) -> str:
    if before not in text:
        return ""
    rest = text.split(before, 1)[1]
    return min((rest.split(mark, 1)[0] for mark in behind if mark in rest), key=len, default=rest)


_BESIDE: dict[str, Callable[[Prompt], list[Verifier]]] = {
    "highlight": lambda prompt: [{"name": "sentences", "count": 1}, prompt.about(), prompt.own(2)],
    "end_question": lambda prompt: [{"name": "question"}, {"name": "sentences", "count": 2}, prompt.about()],
    "no_commas": lambda prompt: [prompt.about(), prompt.own(3)],
    "fewer_words": lambda prompt: [prompt.about(), prompt.own(2)],
    "list_items": lambda prompt: [prompt.own(2 * prompt.verifier["count"])],
    "keywords": lambda prompt: [{"name": "sentences", "count": 1}, prompt.own(3)],
    "one_question": lambda prompt: [{"name": "sentences", "count": 1}, prompt.about(), prompt.own(2)],
    "one_sentence": lambda prompt: [prompt.about(), prompt.own(3)],
}
"""What a family's question asks beside its form."""


def read_prompts(path: Path) -> dict[str, Prompt]:
    """The prompts of a file that have a verifier, by id. Raises `Refusal` where it has none."""
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    found = {row["prompt_id"]: Prompt(row) for row in rows if "verifier" in row}
    if not found:
        raise Refusal(f"path must be a file of prompts with verifiers, got {path} without any")
    return found


def rescored(runs: Runs, prompts: Mapping[str, Prompt]) -> dict[str, list[dict[str, Any]]]:
    """The runs with their test answers' scores by the strict verifiers; all else as it was."""
    return {
        method: [
            {
                **run,
                "results": {
                    **run["results"],
                    "scores": {
                        **run["results"]["scores"],
                        "test": [_again(one, prompts) for one in run["results"]["scores"]["test"]],
                    },
                },
            }
            for run in repeats
        ]
        for method, repeats in runs.items()
    }


def _again(record: Mapping[str, Any], prompts: Mapping[str, Prompt]) -> dict[str, Any]:
    score = verify(record["text"], prompts[record["prompt_id"]].strict)
    return {**record, "score": score, "passed": record["finished"] and score == 1.0}


def family_rates(runs: Runs, prompts: Mapping[str, Prompt], strict: bool) -> pd.DataFrame:
    """Greedy pass rates by family: trained families first, then those kept out.

    Columns: group, n (prompts), constant and place (the shares of prompts that the best constant answer and the best
    place in the prompt pass), then each method's mean over its runs. `runs`: as they were scored, strictly or not.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    for group, family in _groups(runs):
        asked = {name: prompt for name, prompt in prompts.items() if prompt.family == family}
        answers = [one for repeats in runs.values() for run in repeats for one in greedy(run, family)]
        shown = {one["prompt_id"] for one in answers}
        questions = [
            (prompt.text, prompt.strict if strict else prompt.verifier)
            for name, prompt in asked.items()
            if name in shown
        ]
        said = dict.fromkeys(one["text"] for one in answers if one["passed"])
        line: dict[str, Any] = {
            "n": len(questions),
            "constant": constant_baseline(questions, list(said)[:_CONSTANTS]).share,
            "place": positional_baseline(questions).share,
        }
        for method, repeats in runs.items():
            passes = [one["passed"] for run in repeats for one in greedy(run, family)]
            line[method] = sum(passes) / len(passes)
        lines[group, family] = line
    return pd.DataFrame(lines).T.rename_axis(index=["group", "family"])


_CONSTANTS = 60


def _groups(runs: Runs) -> list[tuple[str, str]]:
    first = next(iter(runs.values()))[0]
    found = {tuple(one["groups"]) for one in first["results"]["scores"]["test"]}
    return sorted(found, key=lambda group: (group[0] != "trained", group[1]))


def greedy(run: Mapping[str, Any], family: str) -> Iterable[Mapping[str, Any]]:
    """A run's greedy answers to the test prompts of a family."""
    return (
        one for one in run["results"]["scores"]["test"] if one["decoding"] == "greedy" and one["groups"][1] == family
    )


def share_of_gain(rates: pd.DataFrame, families: Sequence[str], base: str = "Base") -> pd.Series:
    """The part of each method's gain over the base in trained families that these families give."""
    trained = rates.loc["trained"]
    gains = trained.drop(columns=["n", "constant", "place", base]).sub(trained[base], axis=0)
    weighted = gains.mul(trained["n"], axis=0)
    return weighted.loc[list(families)].sum() / weighted.sum()
