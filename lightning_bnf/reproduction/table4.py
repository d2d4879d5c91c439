"""Table 4 at the paper's size: what its models and benchmarks are, and the steps from nothing to all numbers.

    output/MODEL/METHOD/fit/             a run folder; its policy/ is what answers
    output/MODEL/METHOD/BENCHMARK.jsonl  answers (of WildBench .json)
    output/MODEL/METHOD/BENCHMARK/       what `judge` writes; of zeroeval what `evaluate` writes
    output/MODEL/METHOD/STEP.json        when a step is done: the fingerprint of what it depends on, and its minutes

A step depends on its settings, the contents of its files, and the steps before it. Addresses, prices and speeds are
typed too, and no result depends on them.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from lightning_bnf.judging.protocols import PROTOCOLS, Protocol
from lightning_bnf.judging.server_judge import JudgeServer
from lightning_bnf.judging.templates import OWN, read_template
from lightning_bnf.policies.base import Dtype
from lightning_bnf.reproduction.commands import contents, typed
from lightning_bnf.runtime.arguments import NonNegativeInt, PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import here_or_shipped

ARENA, WILD, ZEROEVAL = "arena_hard_v0.1", "wildbench", "zeroeval"
_FORMATS = {ARENA: "arena_hard", WILD: "wildbench"}
_ANSWERS = {ARENA: f"{ARENA}.jsonl", WILD: f"{WILD}.json"}


@checked
@dataclass(frozen=True)
class Row:
    """A line of the table: a model that is there, or one that is trained.

    Args:
        source: Model that is there: hub id, folder, GGUF file or bundled model; null trains one.
        configs: Configs of `fit`, later ones over earlier ones.
        settings: Dotted settings over them, such as {trainer.devices: 4}.
    """

    source: str | None = None
    configs: list[str] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.source is None) != bool(self.configs):
            raise Refusal(f"source must be a model, or configs those of a fit, got {self.source} and {self.configs}")


@checked
@dataclass(frozen=True)
class Judged:
    """A benchmark whose answers a judge reads: a server, or a language model that runs here.

    Args:
        questions: Its question file.
        count: Its number of questions, for what is said before the file is there.
        prompt: A checkout of its repository, a YAML file, or `own`, which makes another benchmark.
        baseline: The baseline's answers; null for WildBench.
        server: OpenAI-compatible server that judges.
        source: Model that judges: hub id, folder, GGUF file or bundled model.
        vocabulary: File o200k_base.tiktoken, for lengths in GPT-4o's tokens.
        max_cost: What the judgments of one model may cost at most; needs the server's prices.
        read_tokens: Tokens that a call reads on average, assumed for what is said before anything runs.
        written_tokens: Tokens of a judge's reply, assumed likewise.
    """

    questions: str
    count: PositiveInt
    prompt: str | None = None
    baseline: str | None = None
    server: JudgeServer | None = None
    source: str | None = None
    vocabulary: Path | None = None
    max_cost: PositiveFloat | None = None
    read_tokens: NonNegativeInt = 2000
    written_tokens: NonNegativeInt = 500


@checked
@dataclass(frozen=True)
class Reasoning:
    """GSM8K, MATH level 5, MMLU-redux and CRUX, by `evaluate`.

    Args:
        tasks: Only these, by lm-eval's names; null: all.
        files: Task -> JSONL file with its rows, instead of the hub's.
        limit: Rows of each task; null: all.
    """

    tasks: list[str] | None = None
    files: dict[str, str] | None = None
    limit: PositiveInt | None = None


@checked
@dataclass(frozen=True)
class Answering:
    """How models answer; greedily.

    Args:
        base_url: OpenAI-compatible server that answers, asked for each model under its source; null runs it here.
        max_new_tokens: Tokens after which an answer is cut off.
        dtype: Type of the weights of models that run here.
        batch_size: Prompts that are run together.
    """

    base_url: str | None = None
    max_new_tokens: PositiveInt = 4096
    dtype: Dtype = "bfloat16"
    batch_size: PositiveInt = 16


@checked
@dataclass(frozen=True)
class Planned:
    """What `plan` is asked of fits before anything runs.

    Args:
        gpu: A GPU by name.
        gpus: Number of GPUs.
        rows: Number of training rows.
        tokens_per_row: Mean tokens of a row with all its completions.
    """

    gpu: str = "a100-80"
    gpus: PositiveInt = 8
    rows: PositiveInt = 60000
    tokens_per_row: PositiveFloat = 1000.0


@checked
@dataclass(frozen=True)
class Table4:
    """The models and benchmarks of Table 4; a benchmark that is null is left out.

    Args:
        models: Base model -> method -> row; both as the paper calls them, where its numbers are to stand beside.
        arena_hard: Arena-Hard v0.1.
        wildbench: WildBench v2.
        zeroeval: The reasoning benchmarks.
        answering: How models answer.
        planned: What `plan` is asked of fits.
        skip: Steps that are not run, as patterns such as `*/judge_*` or `Gemma-2-9b-it/*`.
    """

    models: dict[str, dict[str, Row]]
    arena_hard: Judged | None = None
    wildbench: Judged | None = None
    zeroeval: Reasoning | None = None
    answering: Answering = field(default_factory=Answering)
    planned: Planned = field(default_factory=Planned)
    skip: list[str] = field(default_factory=list)

    @property
    def judged(self) -> dict[str, Judged]:
        """Benchmark -> it, of those that a judge reads."""
        return {name: one for name, one in ((ARENA, self.arena_hard), (WILD, self.wildbench)) if one is not None}


@dataclass(frozen=True)
class Step:
    """A command. words: what is typed. depends: what its result depends on. files: whose contents count as well.
    needs: names of steps whose results it takes. makes: its file or folder. benchmark: what it is a step of."""

    model: str
    method: str
    kind: str
    words: Sequence[str]
    depends: Any
    folder: Path
    makes: Path
    files: Sequence[str] = ()
    needs: Sequence[str] = ()
    benchmark: str = ""

    @property
    def name(self) -> str:
        """MODEL/METHOD/STEP, by which it is skipped."""
        return f"{self.model}/{self.method}/{self.kind}"

    @property
    def mark(self) -> Path:
        """The file that says that it is done."""
        return self.folder / f"{self.kind}.json"

    def fingerprint(self, before: Mapping[str, str]) -> str:
        """Of its settings, its files' contents and the steps before it (name -> fingerprint)."""
        return content_hash([self.depends, [contents(file) for file in self.files], [before[n] for n in self.needs]])


def steps_of(table: Table4, output: Path) -> list[Step]:
    """All of them, model by model, in the order in which they are run. Raises `Refusal` for names that make no
    folder."""
    found = []
    for model, rows in table.models.items():
        for method, row in rows.items():
            for name in (model, method):
                if not name or name.startswith(".") or "/" in name or "\\" in name:
                    raise Refusal(f"models must be named without slashes and not begin with a dot, got {name!r}")
            found += list(_of_row(table, model, method, row, output / model / method))
    return found


def _of_row(table: Table4, model: str, method: str, row: Row, folder: Path) -> Iterator[Step]:
    start = Step(model, method, "", (), None, folder, folder)
    source, made, files = row.source or str(folder / "fit" / "policy"), list[str](), [row.source or ""]
    if row.configs:
        fit = fit_arguments(row, folder)
        configs = [str(here_or_shipped(name, "configs")) for name in row.configs]
        start = replace(start, depends=[*row.configs, row.settings], files=configs, makes=folder / "fit")
        if _reference(row) == "cache":
            yield replace(start, kind="cache", words=["cache", *fit])
            start = replace(start, needs=[f"{model}/{method}/cache"])
        yield replace(start, kind="fit", words=["fit", *fit])
        made, files = [f"{model}/{method}/fit"], []
    start = replace(start, depends=None, files=files, needs=made)
    for benchmark, one in table.judged.items():
        yield _answers(start, table.answering, benchmark, one, source)
    if table.zeroeval is not None:
        yield _evaluated(start, table.answering, table.zeroeval, source)
    for benchmark, one in table.judged.items():
        yield _judgments(start, table.answering, benchmark, one)


def fit_arguments(row: Row, folder: Path) -> list[str]:
    """What is typed behind `fit`, `cache` and `plan`."""
    given = {**row.settings, "trainer.default_root_dir": str(folder / "fit")}
    words = [word for name in row.configs for word in ("--config", name)]
    return [*words, *(word for name, value in given.items() for word in typed(name, value))]


def _reference(row: Row) -> Any:
    """What the configs and settings say of it; the last one counts."""
    found = None
    for name in row.configs:
        path = here_or_shipped(name, "configs")
        if not path.is_file():
            raise Refusal(f"configs must be YAML files of `fit`, got {name}, which is none")
        held = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        found = (held.get("model") or {}).get("reference", found)
    return row.settings.get("model.reference", found)


def _answers(start: Step, how: Answering, benchmark: str, one: Judged, source: str) -> Step:
    path = start.folder / _ANSWERS[benchmark]
    given: dict[str, Any] = {"format": _FORMATS[benchmark], "questions": one.questions, "output": str(path)}
    given |= {"name": f"{start.model}/{start.method}", "max_new_tokens": how.max_new_tokens}
    depends = [given["format"], given["name"], how.max_new_tokens, how.dtype, source if not start.needs else ""]
    given |= {"work": str(start.folder / "work")}
    if how.base_url is None:
        given |= {"source": source, "dtype": how.dtype, "batch_size": how.batch_size}
    else:
        given |= {"server.base_url": how.base_url, "server.model": source}
    return replace(
        start,
        kind=f"answers_{benchmark}",
        words=["generate", *_words(given)],
        depends=depends,
        makes=path,
        files=[*start.files, one.questions],
        benchmark=benchmark,
    )


def _evaluated(start: Step, how: Answering, one: Reasoning, source: str) -> Step:
    path = start.folder / ZEROEVAL
    what = {"suite": ZEROEVAL, "dtype": how.dtype, "tasks": one.tasks, "files": one.files, "limit": one.limit}
    given = {**what, "source": source, "output": str(path), "batch_size": how.batch_size}
    return replace(
        start,
        kind=ZEROEVAL,
        words=["evaluate", *_words(given)],
        depends=[what, source if not start.needs else ""],
        makes=path,
        files=[*start.files, *(one.files or {}).values()],
        benchmark=ZEROEVAL,
    )


def _judgments(start: Step, how: Answering, benchmark: str, one: Judged) -> Step:
    path = start.folder / benchmark
    given = {"benchmark": benchmark, "answers": str(start.folder / _ANSWERS[benchmark]), "output": str(path)}
    held = {name: getattr(one, name) for name in ("questions", "baseline", "prompt", "source", "max_cost")}
    if one.server is not None:
        held |= {f"server.{each.name}": getattr(one.server, each.name) for each in fields(one.server)}
    held |= {"vocabulary": None if one.vocabulary is None else str(one.vocabulary)}
    judge = [one.source, one.server.model if one.server is not None else None, one.vocabulary is not None]
    return replace(
        start,
        kind=f"judge_{benchmark}",
        words=["judge", *_words(given | held)],
        depends=[benchmark, judge, template_hash(benchmark, one)],
        makes=path,
        files=[name for name in (one.questions, one.baseline, one.source) if name is not None],
        needs=[f"{start.model}/{start.method}/answers_{benchmark}"],
        benchmark=benchmark,
    )


def template_hash(benchmark: str, one: Judged) -> str:
    """Of what the judge is asked; the prompt's name where it cannot be read yet."""
    protocol: Protocol = PROTOCOLS[benchmark]
    try:
        return read_template(one.prompt or OWN, protocol, "letters" if one.source is not None else None).hash
    except Refusal:
        return str(one.prompt)


def _words(given: Mapping[str, Any]) -> list[str]:
    """Settings as they are typed; those that are null are left out."""
    return [word for name, value in given.items() if value is not None for word in typed(name, value)]
