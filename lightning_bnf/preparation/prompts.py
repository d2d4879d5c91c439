"""Preference data from a file of prompts: sampled from a model, scored by a reward model or a ranker, best and worst.

This is how the BNF paper's training sets were made (Section 4, after SimPO): five samples at temperature 0.8, scored by
ArmoRM or PairRM, the highest chosen and the lowest rejected.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from lightning_bnf.datamodules.reading.messages import Message, Messages
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.reading.records import read_file
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Generated, Sampling
from lightning_bnf.preparation.engines import Engine, Sampled, draw
from lightning_bnf.preparation.pick import Scored, pick_extremes, scored, usable
from lightning_bnf.preparation.scoring import Candidates, Scorer
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import write_jsonl
from lightning_bnf.runtime.ownership import claim
from lightning_bnf.runtime.refusal import Refusal

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class PromptFile:
    """Prompts to be answered; a plain string is one user message. Of equal ones the first is taken.

    Args:
        path: JSONL or Parquet file, dataset folder, or hub id.
        split: split of a hub id or dataset folder.
        subset: configuration of hub data that has several.
        revision: commit, tag or branch of hub data.
        column_map: the file's column names to ours, such as `{question: prompt}`.
        max_new_tokens: tokens after which an answer is cut off (it is then in no row).
        rendering: how prompts become token ids; what happens to system messages, and arguments of the template.
    """

    path: str
    split: str | None = None
    subset: str | None = None
    revision: str | None = None
    column_map: dict[str, str] | None = None
    max_new_tokens: int = 2048
    rendering: Rendering = field(default_factory=lambda: Rendering(strings="chat"))


@dataclass(frozen=True)
class Prompt:
    """A prompt in its split."""

    split: str
    messages: Messages

    @property
    def prompt_id(self) -> str:
        return content_hash(self.messages)


def draw_prompts(file: PromptFile, train: int | None, validation: int, test: int, seed: int) -> list[Prompt]:
    """The different prompts of a file, dealt to the splits at random; `train` None takes all that are left.

    Raises `Refusal` where the file has fewer.
    """
    rows = read_file(file.path, file.split, file.column_map, "prompt", (), file.subset, file.revision).rows
    found = list(dict.fromkeys(content_hash(as_messages(row.prompt)) for row in rows))
    by_hash = {content_hash(as_messages(row.prompt)): as_messages(row.prompt) for row in rows}
    wanted = validation + test + (0 if train is None else train)
    if wanted > len(found) or (train is None and wanted == len(found)):
        raise Refusal(
            f"train_prompts, validation_prompts and test_prompts must be at most {len(found)} in all, the "
            "different prompts of "
            f"{file.path}, got {train}, {validation} and {test}"
        )
    Random(f"{seed}/prompts").shuffle(found)
    left = len(found) - wanted if train is None else train
    splits = ["test"] * test + ["validation"] * validation + ["train"] * left
    return [Prompt(split, by_hash[key]) for split, key in zip(splits, found)]


def as_messages(prompt: Messages | str) -> Messages:
    """A prompt as messages: a plain string is the user's."""
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else prompt


def sample_prompts(
    file: PromptFile,
    prompts: Sequence[Prompt],
    model: Sampled,
    sampling: Sampling,
    engine: Engine,
    work_file: Path,
) -> list[list[Generated]]:
    """The samples of every prompt; those in `work_file` are not drawn again. The model is let go afterwards."""
    renderer = Renderer(model.tokenizer(), file.rendering)
    drawn = replace(sampling, max_new_tokens=file.max_new_tokens)
    return draw(engine, model, renderer, [prompt.messages for prompt in prompts], drawn, work_file)


@dataclass(frozen=True)
class Answered:
    """A prompt, how many samples it had, how many of those were usable but too long for the scorer, and the others."""

    prompt: Prompt
    samples: int
    unscored: int
    scored: list[Scored]

    @property
    def pair(self) -> tuple[Scored, Scored] | None:
        return pick_extremes(self.scored)


def try_out(scorer: Scorer) -> None:
    """Score two short answers, so that a scorer that cannot be had or used is refused before hours of sampling."""
    question: Messages = ({"role": "user", "content": "Is the sea salty?"},)
    with TemporaryDirectory() as scratch:
        scorer.score([Candidates(question, ("Yes.", "No."))], Path(scratch) / "scores.jsonl")


def write_scored(
    prompts: Sequence[Prompt],
    samples: Sequence[Sequence[Generated]],
    scorer: Scorer,
    output: Path,
    work_file: Path,
    settings: dict[str, Any],
) -> None:
    """Score the samples and write pairs, unpaired rows and prompts of every split, and the card."""
    rows = [usable([scored(one, 0.0) for one in row]) for row in samples]  # of equal texts one is scored
    groups = [Candidates(prompt.messages, tuple(one.text for one in row)) for prompt, row in zip(prompts, rows)]
    scores = scorer.score(groups, work_file)
    answered = []
    for prompt, drawn, row, values in zip(prompts, samples, rows, scores, strict=True):
        known = [replace(one, score=value) for one, value in zip(row, values, strict=True) if value is not None]
        answered.append(Answered(prompt, len(drawn), len(row) - len(known), known))
    claim("output", output, "prepare")
    for split in SPLITS:
        mine = [one for one in answered if one.prompt.split == split]
        write_jsonl(output / f"{split}_pairs.jsonl", [pair_row(one) for one in mine if one.pair])
        write_jsonl(output / f"{split}_unpaired.jsonl", [row for one in mine for row in unpaired_rows(one)])
        if split != "train":
            write_jsonl(output / f"{split}_prompts.jsonl", [prompt_row(one.prompt) for one in mine])
    write_text(output / "README.md", card(answered, settings))


def prompt_row(prompt: Prompt) -> dict[str, Any]:
    """A prompt alone as a row of a file."""
    return {"prompt_id": prompt.prompt_id, "prompt": list(prompt.messages)}


def pair_row(answered: Answered) -> dict[str, Any]:
    """The best and the worst answer as a row of a file, beside all that were scored."""
    assert answered.pair is not None
    chosen, rejected = answered.pair
    return {
        **prompt_row(answered.prompt),
        "chosen": [Message(role="assistant", content=chosen.text)],
        "rejected": [Message(role="assistant", content=rejected.text)],
        "score_chosen": chosen.score,
        "score_rejected": rejected.score,
        "length_chosen": chosen.length,
        "length_rejected": rejected.length,
        "all_generated_responses": [one.text for one in answered.scored],
        "all_rm_scores": [one.score for one in answered.scored],
    }


def unpaired_rows(answered: Answered) -> list[dict[str, Any]]:
    """The pair's two answers as labelled rows; none where there is no pair, since nothing says which label is right."""
    return [
        {
            **prompt_row(answered.prompt),
            "completion": [Message(role="assistant", content=one.text)],
            "label": label,
            "score": one.score,
            "length": one.length,
        }
        for one, label in zip(answered.pair or (), (True, False))
    ]


_COLUMNS = (
    *("split", "prompts", "samples", "not usable", "too long to be scored", "pairs"),
    *("score of chosen", "score of rejected", "tokens of chosen", "tokens of rejected"),
)


def card(answered: Sequence[Answered], settings: dict[str, Any]) -> str:
    """The data card: what was made, how, and how the scores and lengths came out."""
    rows = []
    for split in SPLITS:
        mine = [one for one in answered if one.prompt.split == split]
        pairs = [one.pair for one in mine if one.pair]
        drawn, unscored = sum(one.samples for one in mine), sum(one.unscored for one in mine)
        means = [
            f"{mean(getattr(pair[side], name) for pair in pairs):.{digits}f}" if pairs else "-"
            for name, digits in (("score", 3), ("length", 1))
            for side in (0, 1)
        ]
        left_out = drawn - unscored - sum(len(one.scored) for one in mine)
        rows.append([split, len(mine), drawn, left_out, unscored, len(pairs), *means])
    shown = "".join(f"- `{name}`: {value}\n" for name, value in settings.items())
    engine: Engine = settings["engine"]
    told = {
        "seeds": ", ".join(map(str, engine.seeds or (settings["seed"],))),
        "cut_off": "Answers that were cut off at the token limit are "
        + ("not scored" if engine.cut_off == "drop" else "scored as if they had ended there"),
    }
    return _CARD.format(**settings, **told, table=markdown_table(_COLUMNS, *rows), shown=shown)


_CARD = """# Preference data, sampled from the model and scored

Every prompt of `{prompts.path}` was answered {samples} times by `{source}` at temperature {temperature} (no top-k,
top-p {engine.top_p:g}; seeds: {seeds}) and the answers were scored by {scorer}. A pair is the answer with the highest
score (`chosen`) against the one with the lowest (`rejected`), among equals the two closest in length; prompts whose
answers all score alike give none. {cut_off}, and of identical ones one is scored. The splits share no prompt.
Licence: that of the prompts, the sampled model and the scorer.

{table}

Columns, in means over the pairs: lengths are tokens with the end of turn. Where the lengths of chosen and rejected
differ much, part of what is learned is length.

## Settings

{shown}"""
