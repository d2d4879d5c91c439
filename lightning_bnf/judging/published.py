"""The three repositories' own judgment files, so that published models and one's own stand in one table.

    Arena-Hard    model_judgment/JUDGE/MODEL.jsonl    question_id or uid, model, judge, games with a score each
    WildBench     eval_results/.../MODEL.json         session_id, score, model_output; or winner, extent, model_outputs
    AlpacaEval    annotations.json                    output_1, output_2, generator_1, generator_2, preference, index

What a file does not say (Arena-Hard's lengths, WildBench's tags) comes from the answer and question files given beside.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_bnf.datamodules.reading.files import read_raw
from lightning_bnf.generation.questions import Question
from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.reading import Judged
from lightning_bnf.judging.sides import Said, style
from lightning_bnf.judging.verdicts import MARGINS
from lightning_bnf.runtime.refusal import Refusal, reason_of

_COLUMNS = frozenset({"games", "score", "preference", "winner"})
Answers = Mapping[tuple[str, str], Said]
"""Answers by model and question."""


def read_published(path: Path, answers: Answers, questions: Mapping[str, Question]) -> Judged:
    """A repository's file. Raises `Refusal` where it is none of the three."""
    rows = [record.values for record in read_raw(str(path), columns=_COLUMNS)]
    readers: dict[str, Callable[..., Judged]] = {
        "games": _arena,
        "preference": _alpaca,
        "extent": _wildbench_pairs,
        "score": _wildbench,
    }
    for name, read in readers.items():
        if rows and name in rows[0]:
            try:
                return read(path, rows, answers, questions)
            except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
                if isinstance(error, Refusal):
                    raise
                raise Refusal(
                    f"judgments must be a file as its repository writes it, got {path} ({reason_of(error)})"
                ) from None
    raise Refusal(f"judgments must be of Arena-Hard, WildBench or AlpacaEval, or a folder of `judge`, got {path}")


def _arena(path: Path, rows: Sequence[Mapping[str, Any]], answers: Answers, _: Mapping[str, Question]) -> Judged:
    old = "uid" not in rows[0] or "arena-hard-v0.1" in (rows[0].get("category"), *path.parts)
    benchmark = "arena_hard_v0.1" if old else "arena_hard_v2"
    model, lines, about = str(rows[0]["model"]), [], {}
    baseline = str(rows[0].get("baseline") or "gpt-4-0314")
    for row in rows:
        name = str(row.get("uid", row.get("question_id")))
        about[name] = {"category": row.get("category", ""), **_styles(answers, model, baseline, name)}
        for game, held in enumerate(row["games"]):
            said = (held or {}).get("score")
            lines.append(_line(name, game, game == 1, said if said in MARGINS else None))
    return _judged(benchmark, model, baseline, str(rows[0].get("judge", path.parent.name)), about, lines)


def _styles(answers: Answers, model: str, baseline: str, name: str) -> dict[str, Any]:
    own, base = answers.get((model, name)), answers.get((baseline, name))
    found: dict[str, Any] = {}
    for side, said in (("own", own), ("base", base)):
        if said is not None:
            found |= {f"{side}_style": style(said, None), f"{side}_characters": len(said.text)}
    return found


def _alpaca(path: Path, rows: Sequence[Mapping[str, Any]], _: Answers, __: Mapping[str, Question]) -> Judged:
    about, lines = {}, []
    for index, row in enumerate(rows):
        name = str(row.get("index", index))
        about[name] = {"own_characters": len(row["output_2"]), "base_characters": len(row["output_1"]), "index": name}
        given = row["preference"]
        line = _line(name, 0, True, None)
        lines.append(line | {"preference": None if given is None or given != given else float(given) or 1.5})
    judge = str(rows[0].get("annotator", path.parent.name))
    return _judged("alpaca_eval_2", str(rows[0]["generator_2"]), str(rows[0]["generator_1"]), judge, about, lines)


def _wildbench(path: Path, rows: Sequence[Mapping[str, Any]], _: Answers, questions: Mapping[str, Question]) -> Judged:
    about, lines = {}, []
    for row in rows:
        name = str(row["session_id"])
        about[name] = {"own_characters": len(str(row["model_output"]).strip()), "tags": tags(questions.get(name))}
        lines.append(_line(name, 0, True, None if row["score"] in (None, "N/A") else f"{float(row['score']):g}"))
    model = str(rows[0].get("model_test", rows[0].get("generator", path.stem)))
    return _judged("wildbench", model, "", path.parent.name.removeprefix("eval="), about, lines)


def _wildbench_pairs(
    path: Path, rows: Sequence[Mapping[str, Any]], _: Answers, questions: Mapping[str, Question]
) -> Judged:
    names = set(rows[0]["model_outputs"])
    model = next((name for name in names if name.split("/")[-1] == path.stem), None)
    if model is None or len(names) != 2:
        raise Refusal(f"{path}: its name must be that of one of its two models, got {', '.join(sorted(names))}")
    (baseline,) = names - {model}
    about, lines = {}, []
    for row in rows:
        name, texts = str(row["session_id"]), row["model_outputs"]
        lengths = {"own_characters": len(texts[model]), "base_characters": len(texts[baseline])}
        about[name] = {**lengths, "tags": tags(questions.get(name))}
        label = "A=B" if row["winner"] == "tie" else "A" if row["winner"] == model else "B"
        much = {1: "+", 2: "++"}.get(row["extent"], "")
        lines.append(_line(name, 0, True, label if label == "A=B" else label + much))
    judge = path.parent.parent.name.removeprefix("eval=")
    return _judged("wildbench_pairs", model, baseline, judge, about, lines)


def tags(question: Question | None) -> list[str]:
    """A task's primary and secondary tags."""
    columns = question.columns if question is not None else {}
    return [str(tag) for tag in [columns.get("primary_tag"), *(columns.get("secondary_tags") or [])] if tag]


def _line(name: str, game: int, first: bool, verdict: str | None) -> dict[str, Any]:
    return {"question": name, "game": game, "first": first, "verdict": verdict, "preference": None, "reason": None}


def _judged(
    benchmark: str,
    model: str,
    baseline: str,
    judge: str,
    about: Mapping[str, Mapping[str, Any]],
    lines: Sequence[Mapping[str, Any]],
) -> Judged:
    rules, prompt = PROTOCOLS[benchmark].rules, f"{benchmark} (the repository's)"
    missing = sum(one["verdict"] is None and one["preference"] is None for one in lines)
    reasons = Counter({"no verdict in the file": missing}) if missing else Counter[str]()
    return Judged(benchmark, rules, model, baseline, judge, prompt, about, lines, True, reasons)
