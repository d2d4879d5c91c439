"""Multiple-choice questions, scored as lm-eval scores them: an option's log-prob after the rendered question.

The tasks are lm-eval's YAML files in `benchmarks/tasks`, so that both score the same text. A question is one row with
its options as completions, so the question's tokens are read once for all of them (layout `shared_prompt`).
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jinja2 import BaseLoader, Environment, StrictUndefined
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.formats import Unpaired
from lightning_bnf.datamodules.reading.json_files import read_json_lines
from lightning_bnf.datamodules.reading.options import DATE
from lightning_bnf.datamodules.reading.tables import RawRecord
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.template_code import Clock
from lightning_bnf.evaluation.benchmarks.suites import SUITES, TASKS, SuiteError, SuiteTask, rows_file
from lightning_bnf.runtime.fingerprints import content_hash


@dataclass(frozen=True)
class Question:
    """A question, its options as completions; of the right one the label is +1.

    row: prompt and options as token ids
    task: what tables call its benchmark
    doc: its row in the benchmark's file
    right: the right option's place
    scale: (options,) what log-probs are divided by before they are compared: characters under `acc_norm`, else 1
    """

    row: TokenizedRow
    task: str
    doc: Mapping[str, Any]
    right: int
    scale: tuple[float, ...]

    def passed(self, logps: np.ndarray) -> bool:
        """Whether the right option is the likeliest: (options,) summed log-probs; of equals the first counts."""
        return int(np.argmax(logps / np.array(self.scale))) == self.right

    def ranked(self, logps: np.ndarray) -> float:
        """The share of wrong options that the right one is likelier than, a tie counts half: chance is 0.5. Finer than
        `passed`, and as little moved by a policy that is surer, or less sure, of all options alike."""
        scaled = logps / np.array(self.scale)
        return float((np.sign(scaled[self.right] - np.delete(scaled, self.right)) + 1).mean() / 2)


def choice_tasks() -> dict[str, SuiteTask]:
    """The multiple-choice tasks that need no network, by lm-eval's names."""
    return {one.task: one for one in SUITES["local"] if _definition(one)["output_type"] == "multiple_choice"}


def questions(
    names: Sequence[str], files: Mapping[str, str], tokenizer: PreTrainedTokenizerBase, limit: int | None = None
) -> list[Question]:
    """The questions of some tasks; `limit`: as many as that over all, see `stratified`.

    Raises `SuiteError` for a name that is no such task, and where its rows are not there.
    """
    known = choice_tasks()
    for name in names:
        if name not in known:
            raise SuiteError(f"choices must be of {', '.join(known)}, got {name!r}")
    for name in files:
        if name not in names:
            raise SuiteError(f"files must be of the choices, {', '.join(names) or 'none'}, got {name!r}")
    asked = [_Asked(known[name], record) for name in names for record in _records(known[name], files)]
    kept = stratified([f"{one.task.task} {one.right}" for one in asked], [one.doc for one in asked])[:limit]
    with Clock(DATE).pinned():  # as in training: templates may write the date
        return [asked[place].question(tokenizer, f"{asked[place].task.task}:{place}") for place in kept]


def question_id(task: str, doc: Mapping[str, Any]) -> str:
    """What a row of a benchmark is called: the same in every file that holds it."""
    return content_hash([task, doc])


def stratified(strata: Sequence[str], contents: Sequence[Any]) -> list[int]:
    """An order of places of which every first part holds each stratum in its share, as far as whole rows go: the first
    150 of a benchmark have as many right answers A as all rows have. Within a stratum by the contents' hash."""
    mine: dict[str, list[int]] = defaultdict(list)
    for place, stratum in enumerate(strata):
        mine[stratum].append(place)
    keys = [content_hash(content) for content in contents]
    ranks = {}
    for places in mine.values():
        for rank, place in enumerate(sorted(places, key=lambda one: (keys[one], one))):
            ranks[place] = ((rank + 0.5) / len(places), keys[place], place)
    return sorted(ranks, key=ranks.__getitem__)


class _Asked:
    """A row of a benchmark as its task reads it."""

    def __init__(self, task: SuiteTask, record: RawRecord):
        definition, doc = _definition(task), record.values
        self.task, self.doc = task, doc
        try:
            self.text: str = _read(definition["doc_to_text"], doc)
            self.options: list[str] = _read(definition["doc_to_choice"], doc)
            target = _read(definition["doc_to_target"], doc)
        except SuiteError as error:
            raise SuiteError(f"{record.place}: {error}") from None
        self.right = target if isinstance(target, int) else self.options.index(target)

    def question(self, tokenizer: PreTrainedTokenizerBase, source: str) -> Question:
        """As token ids: lm-eval counts the white space at the end of the prompt to every option, and takes of the ids
        of prompt and option together those behind the prompt's own."""
        asked = [{"role": "user", "content": self.text}]
        text = str(tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True))
        prompt, *whole = (
            tokenizer(one, add_special_tokens=False)["input_ids"]
            for one in (text.rstrip(), *(text + option for option in self.options))
        )
        options = tuple(
            TokenizedCompletion(ids[len(prompt) :], [True] * (len(ids) - len(prompt)), 1 if i == self.right else -1)
            for i, ids in enumerate(whole)
        )
        row = TokenizedRow(question_id(self.task.task, self.doc), source, Unpaired.name, prompt, options)
        normed = self.task.metric.startswith("acc_norm")
        scale = tuple(float(len(option)) if normed else 1.0 for option in self.options)
        return Question(row, self.task.name, self.doc, self.right, scale)


def _records(task: SuiteTask, files: Mapping[str, str]) -> list[RawRecord]:
    path = rows_file(task, files)
    assert path is not None
    return read_json_lines(str(path), path)


def _read(field: Any, doc: Mapping[str, Any]) -> Any:
    """A field of a task: a function of the row, a Jinja template, or the thing itself."""
    if callable(field):
        return field(doc)
    return _TEMPLATES.from_string(field).render(doc) if isinstance(field, str) else field


_TEMPLATES = Environment(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)


class _Loader(yaml.SafeLoader):
    """Reads `!function module.name`, functions beside the tasks' files."""


def _function(loader: yaml.SafeLoader, node: yaml.Node) -> Callable[..., Any]:
    module, _, name = str(node.value).rpartition(".")
    return getattr(import_module(f"lightning_bnf.evaluation.benchmarks.tasks.{module}"), name)


_Loader.add_constructor("!function", _function)


def _definition(task: SuiteTask) -> dict[str, Any]:
    """What the package's file says of a task."""
    path: Path = TASKS / f"{task.task}.yaml"
    return dict(yaml.load(path.read_text(encoding="utf-8"), _Loader))
