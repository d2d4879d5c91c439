"""The verb `scores`: judgments -> a table with intervals, and a plot."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd

from lightning_bnf.evaluation.judged.alpaca_eval import Gamed
from lightning_bnf.evaluation.statistics.intervals import Interval
from lightning_bnf.generation.questions import Question, read_questions
from lightning_bnf.judging.lengths import gpt4o_length
from lightning_bnf.judging.lines import Given, Line, Table, table
from lightning_bnf.judging.plot import plot
from lightning_bnf.judging.published import read_published
from lightning_bnf.judging.reading import Judged, read_folder
from lightning_bnf.judging.sides import Said, read_answers
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.results.style import save_figure
from lightning_bnf.runtime.arguments import checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.refusal import Refusal, refusing


def expanded(words: Sequence[str]) -> list[str]:
    """`scores FOLDER FOLDER ...` is short for `scores --judgments '["FOLDER", "FOLDER"]' ...`."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return ["--judgments", json.dumps(list(words[:count])), *words[count:]] if count else list(words)


@checked
def scores(
    judgments: list[Path],
    output: Path = Path("runs/scores"),
    answers: list[str] | None = None,
    questions: str | None = None,
    vocabulary: Path | None = None,
    gamed: Path | None = None,
    initial_elo: dict[str, float] | None = None,
    seed: int = 0,
) -> None:
    """Print the scores of judged answers with intervals and the judge's biases; write them as a table and a plot.

    Args:
        judgments: folders of `judge`, and judgment files of Arena-Hard's, WildBench's and AlpacaEval's repositories.
        output: folder for scores.md, scores.csv, scores.json and scores.png: new, empty, or of this command.
        answers: Arena-Hard's answer files, for the lengths and styles that its judgment files do not hold.
        questions: WildBench's question file, for the tags that its judgment files do not hold.
        vocabulary: file o200k_base.tiktoken, for their lengths in GPT-4o's tokens; null: those that they hold.
        gamed: AlpacaEval's df_gamed.csv, for its length-controlled win rate; null: a fit without difficulties.
        initial_elo: model -> the rating that WildBench's Elo starts from; 1000 for others.
        seed: of draws.
    """
    if not judgments:
        raise Refusal("judgments must be one folder or file or more, got none")
    check_claim("output", Path(output), "scores")
    said = _answers(answers or (), vocabulary)
    asked = {one.id: one for one in read_questions(questions)} if questions is not None else {}
    judged = [_read(Path(path), said, asked) for path in judgments]
    found = table(judged, Given(_gamed(gamed) if gamed is not None else None, initial_elo, seed))
    text = as_markdown(found, judged)
    claim("output", Path(output), "scores")
    write_text(Path(output) / "scores.md", text)
    write_text(Path(output) / "scores.csv", as_csv(found.lines))
    write_text(Path(output) / "scores.json", as_json(found))
    if found.lines:
        save_figure(plot(found.lines), Path(output) / "scores.png")
    print(text, end="")
    print(f"\nin {output}: scores.md, scores.csv, scores.json, scores.png")


def _answers(paths: Sequence[str], vocabulary: Path | None) -> dict[tuple[str, str], Said]:
    length = gpt4o_length(vocabulary) if vocabulary is not None else None
    found = [one for path in paths for one in read_answers(path)]
    counted = found if length is None else [replace(one, tokens=length(one.text)) for one in found]
    return {(one.model, one.question): one for one in counted}


def _read(path: Path, answers: dict[tuple[str, str], Said], questions: dict[str, Question]) -> Judged:
    return read_folder(path) if path.is_dir() else read_published(path, answers, questions)


def _gamed(path: Path) -> Gamed:
    with refusing(f"gamed must be AlpacaEval's df_gamed.csv, got {path}"):
        held = pd.read_csv(path)
        columns = ("index", "instruction_difficulty", "std_delta_len", "preference")
        return Gamed(*(held[name].to_numpy() for name in columns))


def as_markdown(found: Table, judged: Sequence[Judged]) -> str:
    """The numbers, the judges' biases, what is missing, and notes."""
    rows = [
        (
            line.benchmark,
            line.model,
            line.measure,
            f"{line.value:.1f}",
            f"{line.low:.1f} to {line.high:.1f} ({line.level} %)",
            "" if line.published is None else f"{line.published[0]:.1f} to {line.published[1]:.1f}",
            line.n,
            line.missing,
            len(line.pool),
            line.baseline,
            line.judge,
        )
        for line in sorted(found.lines, key=lambda line: (line.benchmark, line.judge, line.measure, -line.value))
    ]
    head = ("benchmark", "model", "measure", "value", "interval", "published interval", "n", "missing", "pool")
    parts = [markdown_table((*head, "baseline", "judge"), *rows, padded=True), _biases(found)]
    rules = sorted({f"{line.benchmark}: {line.rules}; prompt {line.prompt}" for line in found.lines})
    reasons = [
        f"{one.benchmark} of {one.model} by {one.judge}: {count} without a verdict: {reason}"
        for one in judged
        for reason, count in one.reasons.most_common()
    ]
    notes = [f"- {note}" for note in (*rules, *found.notes, *reasons)]
    return "\n\n".join(part for part in (*parts, "\n".join(notes)) if part) + "\n"


def _biases(found: Table) -> str:
    if not found.biases:
        return ""

    def shown(share: Interval | None) -> str:
        return "" if share is None else f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]"

    rows = [
        (name, shown(one.first_wins), shown(one.agreement), shown(one.longer_wins))
        for name, one in found.biases.items()
    ]
    head = ("judge", "the first answer wins", "both orders agree", "the longer answer wins")
    return markdown_table(head, *rows, padded=True)


def as_csv(lines: Sequence[Line]) -> str:
    """A row a number."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = ("benchmark", "model", "measure", "value", "low", "high", "level", "published_low", "published_high", "n")
    writer.writerow((*names, "missing", "pool", "baseline", "judge", "prompt", "rules"))
    for line in lines:
        published = line.published or ("", "")
        numbers = (line.value, line.low, line.high, line.level, *published, line.n, line.missing)
        pool = " ".join(line.pool)
        writer.writerow(
            (
                line.benchmark,
                line.model,
                line.measure,
                *numbers,
                pool,
                line.baseline,
                line.judge,
                line.prompt,
                line.rules,
            )
        )
    return file.getvalue()


def as_json(found: Table) -> str:
    """All of it."""
    held = {
        "scores": [asdict(line) for line in found.lines],
        "biases": {name: asdict(one) for name, one in found.biases.items()},
        "notes": found.notes,
    }
    return json.dumps(held, indent=1) + "\n"
