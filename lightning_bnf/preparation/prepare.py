"""The verb `prepare`: prompts -> samples -> verifiers -> best and worst -> files (on-policy preference data)."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.evaluation.verify import verify
from lightning_bnf.generation.sampling import Complete, Sampling
from lightning_bnf.generation.vllm_engine import Vllm
from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.sources import BUNDLED
from lightning_bnf.preparation.card import Outcome, write_card, yields
from lightning_bnf.preparation.dry_run import Trial, fewest
from lightning_bnf.preparation.dry_run import dry_run as forecast
from lightning_bnf.preparation.engines import Engine, Sampled
from lightning_bnf.preparation.families import Question, draw_questions
from lightning_bnf.preparation.pick import Scored, pick_pair, pick_unpaired, scored
from lightning_bnf.preparation.prompts import PromptFile, draw_prompts, sample_prompts, try_out, write_scored
from lightning_bnf.preparation.sample import Job, longest_of, sample_jobs
from lightning_bnf.preparation.scoring import Scorer
from lightning_bnf.preparation.tasks import FAMILIES
from lightning_bnf.runtime.arguments import PositiveInt
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.jsonl import write_jsonl
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.refusal import Refusal

Row = dict[str, Any]
Drawn = TypeVar("Drawn")
_NONE: list[str] = []  # a default that is never changed
ENGINE = Engine()
_OF_FAMILIES = (  # the settings that the card of families shows
    "families",
    "kept_out",
    "source",
    "revision",
    "train_prompts",
    "validation_prompts",
    "test_prompts",
    "kept_out_prompts",
    "kept_out_validation_prompts",
    "samples",
    "temperature",
    "batch_size",
    "seed",
)


@dataclass(frozen=True)
class Item:
    """A question in its split, with what the model answered."""

    family: str
    split: str
    kept_out: bool
    question: Question
    samples: list[Scored]
    greedy: Scored


def prepare(
    output: Path,
    families: list[str] = _NONE,
    kept_out: list[str] = _NONE,
    prompts: PromptFile | None = None,
    scorer: Scorer | None = None,
    source: str = BUNDLED,
    revision: str | None = None,
    dtype: Dtype = "float32",
    train_prompts: int | None = 100,
    validation_prompts: int = 10,
    test_prompts: int = 25,
    kept_out_prompts: int = 30,
    kept_out_validation_prompts: int = 0,
    samples: int = 5,
    temperature: float = 0.8,
    batch_size: int = 320,
    seed: int = 1,
    engine: Engine = ENGINE,
    parts: PositiveInt = 1,
    part: PositiveInt = 1,
    work: Path = Path("runs/prepare"),
    dry_run: bool = False,
) -> None:
    """Make preference data from a model's own samples, sorted by verifiers, a reward model or a ranker. Resumable.

    Either `families` (questions of the package, sorted by verifiers) or `prompts` (a file, sorted by `scorer`).

    Args:
        output: folder for the finished files: new, empty, or of this command, which replaces its own, each at once.
        families: task families (names) to train on; their questions are split into train, validation and test.
        kept_out: task families (names) that are not trained on: test questions, and validation ones where asked for.
        prompts: file or hub id with prompts, instead of families; they are split at random.
        scorer: reward model or ranker that scores the samples of `prompts`: best against worst.
        source: model to sample from: hub id, folder (also an exported adapter's), GGUF file or bundled model.
        revision: commit of a hub model.
        dtype: type of the sampled model's weights; a GPU is used where there is one.
        train_prompts: training questions per trained family, or prompts of the file; null: all that the file has left.
        validation_prompts: validation questions per trained family, or prompts of the file.
        test_prompts: test questions per trained family, or prompts of the file.
        kept_out_prompts: test questions per kept-out family.
        kept_out_validation_prompts: validation questions per kept-out family.
        samples: completions drawn per question.
        temperature: softmax temperature of the samples.
        batch_size: completions generated together.
        seed: chooses the questions and the samples.
        engine: what draws the samples, and how: vLLM, and of `prompts` also a server, top-p, several seeds.
        parts: parts that the training prompts are dealt into, one for each round of training.
        part: the part that is made; validation and test prompts are of the first.
        work: folder that keeps the raw samples and scores, so that an interrupted run goes on where it was.
        dry_run: print hours, tokens and disk of the whole by the rate of some prompts, and write nothing.
    """
    given = {name: value for name, value in locals().items() if name not in ("output", "work", "dry_run")}
    _check_sources(families, kept_out, prompts, scorer, engine)
    check_claim("output", Path(output), "prepare")
    if dry_run:
        print(forecast(partial(_make, given), Trial(fewest(engine, _sampling(given)))))
        return
    _make(given, Path(output), Path(work) / f"{Path(output).name}.jsonl", Trial())


def _sampling(given: Mapping[str, Any]) -> Sampling:
    drawn = {name: given[name] for name in ("samples", "seed", "batch_size")}
    return Sampling(given["temperature"], **drawn)


def _make(given: Mapping[str, Any], output: Path, work_file: Path, trial: Trial) -> None:
    """Draw the prompts of the part, sample them, and write the files; `given` are the arguments of `prepare`."""
    prompts, scorer, seed, drawn = given["prompts"], given["scorer"], given["seed"], _sampling(given)
    train, validation, test = (given[f"{split}_prompts"] for split in ("train", "validation", "test"))
    model = Sampled(given["source"], given["revision"], given["dtype"])
    if prompts is not None and scorer is not None:
        every = draw_prompts(prompts, train, validation, test, seed)
        asked = trial.of(part_of(every, [(one.split,) for one in every], given["parts"], given["part"]))
        with trial.timed("trying the scorer out"):
            try_out(scorer)
        with trial.timed("sampling"):
            sampled = sample_prompts(prompts, asked, model, drawn, given["engine"], work_file)
        with trial.timed("scoring"):
            write_scored(asked, sampled, scorer, output, work_file.with_suffix(".scores.jsonl"), dict(given))
        return
    kept = given["kept_out_prompts"], seed, given["kept_out_validation_prompts"]
    placed = draw_splits(given["families"], given["kept_out"], train, validation, test, *kept)
    questions = part_of(placed, [(split, name) for name, split, *_ in placed], given["parts"], given["part"])
    items = _answered_by(model, given["engine"].vllm, trial.of(questions), drawn, work_file)
    shown = [*_OF_FAMILIES, *(("parts", "part") if given["parts"] > 1 else ())]
    write_files(items, output, {name: given[name] for name in shown})


def _check_sources(
    families: Sequence[str],
    kept_out: Sequence[str],
    prompts: PromptFile | None,
    scorer: Scorer | None,
    engine: Engine,
) -> None:
    """Refuse (ValueError) what would be ignored: families beside prompts, a scorer without prompts, and neither."""
    if prompts is None and replace(engine, vllm=None) != ENGINE:
        raise Refusal("engine must be left out with families but for vllm, got other settings of it")
    if prompts is None and scorer is not None:
        raise Refusal(f"scorer must be null without prompts, got {scorer}: families are sorted by their verifiers")
    if prompts is None and not families and not kept_out:
        raise Refusal("families must be names of families, or prompts given with a scorer, got []")
    if prompts is not None and (families or kept_out):
        raise Refusal(f"families must be [] (kept_out too) where prompts are given, got {[*families, *kept_out]}")
    if prompts is not None and scorer is None:
        raise Refusal("scorer must be one such as lightning_bnf.preparation.RewardModel with prompts, got null")


def part_of(drawn: Sequence[Drawn], kinds: Sequence[tuple[str, ...]], parts: int, part: int) -> list[Drawn]:
    """The training prompts of a part: of each kind (split, and family where there are some) every so-manieth. All
    others are of the first part. Raises `Refusal` for a part that there is none of."""
    if part > parts:
        raise Refusal(f"part must be at most parts ({parts}), got {part}")
    seen: Counter[Any] = Counter()
    found = []
    for one, kind in zip(drawn, kinds, strict=True):
        place = seen[kind] % parts if kind[0] == "train" else 0
        seen[kind] += 1
        if place == part - 1:
            found.append(one)
    return found


Placed = tuple[str, str, bool, Question]  # family, split, kept out, question


def _answered_by(
    model: Sampled, vllm: Vllm | None, questions: Sequence[Placed], sampling: Sampling, work_file: Path
) -> list[Item]:
    """The questions with a model's verified samples; the model is loaded for it."""
    renderer = Renderer(model.tokenizer())

    def ids(question: Question) -> list[int]:
        return renderer.prompt_ids(tuple(question.messages))

    jobs = jobs_of(questions, ids, sampling)
    with model.running(vllm, longest_of(jobs)) as (complete, identity, start):
        return answer(questions, jobs, complete, identity, work_file, start)


def draw_splits(
    families: Sequence[str],
    kept_out: Sequence[str],
    train: int | None,
    validation: int,
    test: int,
    kept: int,
    seed: int,
    kept_validation: int = 0,
) -> list[Placed]:
    """The questions of every split. One family's questions differ in content, so the splits share no question."""
    check_families([*families, *kept_out])
    if train is None:
        raise Refusal("train_prompts must be a whole number with families, got null (which is for prompts)")
    placed: list[Placed] = []
    for name in families:
        drawn = draw_questions(FAMILIES[name], train + validation + test, seed)
        splits = ["test"] * test + ["validation"] * validation + ["train"] * train
        placed += [(name, split, False, question) for split, question in zip(splits, drawn, strict=True)]
    for name in kept_out:
        drawn = draw_questions(FAMILIES[name], kept + kept_validation, seed)
        splits = ["test"] * kept + ["validation"] * kept_validation
        placed += [(name, split, True, question) for split, question in zip(splits, drawn, strict=True)]
    return placed


def check_families(names: Sequence[str]) -> None:
    """Refuse (ValueError) families that do not exist or are named twice."""
    for name in names:
        if name not in FAMILIES:
            raise Refusal(f"families must be of {', '.join(FAMILIES)}, got {name!r}")
        if names.count(name) > 1:
            raise Refusal(f"families and kept_out must be each family once, got {name!r} twice")


def jobs_of(questions: Sequence[Placed], ids: Callable[[Question], list[int]], sampling: Sampling) -> list[Job]:
    """Two of every family: `sampling.samples` completions of each question, and a greedy one beside them."""
    jobs = []
    for name in _families(questions):
        prompts = [ids(question) for family, _, _, question in questions if family == name]
        limit = FAMILIES[name].max_new_tokens
        greedy = Sampling(0.0, limit, batch_size=sampling.batch_size)
        drawn = Sampling(sampling.temperature, limit, sampling.samples, sampling.seed, sampling.batch_size)
        jobs += [Job(name, prompts, drawn), Job(f"{name}, greedy", prompts, greedy)]
    return jobs


def answer(
    questions: Sequence[Placed],
    jobs: Sequence[Job],
    complete: Complete,
    identity: str,
    work_file: Path,
    start: Callable[[], None] | None = None,
) -> list[Item]:
    """Sample and verify every question; `jobs` are those of `jobs_of`."""
    answers = sample_jobs(jobs, complete, identity, work_file, start)
    items = []
    for position, name in enumerate(_families(questions)):
        mine = [placed for placed in questions if placed[0] == name]
        for (family, split, kept, question), drawn_rows, greedy_rows in zip(
            mine, answers[2 * position], answers[2 * position + 1], strict=True
        ):
            judged = [scored(one, verify(one.text, question.verifier)) for one in [*drawn_rows, *greedy_rows]]
            items.append(Item(family, split, kept, question, judged[:-1], judged[-1]))
    return items


def _families(questions: Sequence[Placed]) -> list[str]:
    return list(dict.fromkeys(name for name, *_ in questions))


def write_files(items: Sequence[Item], output: Path, settings: dict[str, Any]) -> None:
    """Write pairs, unpaired rows and prompts of every split, and the card. Each file appears whole or not at all."""
    claim("output", output, "prepare")
    for split in ("train", "validation", "test"):
        mine = interleaved([item for item in items if item.split == split])
        write_jsonl(output / f"{split}_pairs.jsonl", (row for item in mine if (row := pair_row(item))))
        write_jsonl(output / f"{split}_unpaired.jsonl", (row for item in mine for row in unpaired_rows(item)))
        if split != "train":
            write_jsonl(output / f"{split}_prompts.jsonl", (prompt_row(item) for item in mine))
    outcomes = [
        Outcome(
            item.family,
            item.split,
            item.kept_out,
            item.samples,
            item.greedy,
            pick_pair(item.samples),
            len(unpaired_rows(item)),
            item.question,
        )
        for item in items
    ]
    rates = yields(outcomes)
    write_text(output / "README.md", write_card(outcomes, rates, settings))
    print(rates)


def interleaved(items: Sequence[Item]) -> list[Item]:
    """One item of each family in turn, so that any first part of a file holds all families alike."""
    order: dict[str, int] = {}
    places = []
    for item in items:
        order[item.family] = order.get(item.family, -1) + 1
        places.append(order[item.family])
    return [items[index] for index in sorted(range(len(items)), key=lambda index: (places[index], index))]


def pair_row(item: Item) -> Row | None:
    """A pair as a row of a file, or None where the samples give none."""
    pair = pick_pair(item.samples)
    if pair is None:
        return None
    chosen, rejected = pair
    return {
        "prompt_id": item.question.prompt_id,
        "family": item.family,
        "prompt": item.question.messages,
        "chosen": _completion(chosen),
        "rejected": _completion(rejected),
        **_how_verified(item),
        "score_chosen": round(chosen.score, 4),
        "score_rejected": round(rejected.score, 4),
        "length_chosen": chosen.length,
        "length_rejected": rejected.length,
    }


def unpaired_rows(item: Item) -> list[Row]:
    """Labelled answers as rows of a file: those of the pair, else one."""
    return [
        {
            "prompt_id": item.question.prompt_id,
            "family": item.family,
            "prompt": item.question.messages,
            "completion": _completion(one),
            "label": one.passed,
            **_how_verified(item),
            "score": round(one.score, 4),
            "length": one.length,
        }
        for one in pick_unpaired(item.samples)
    ]


def prompt_row(item: Item) -> Row:
    """The question alone as a row of a file."""
    return {
        "prompt_id": item.question.prompt_id,
        "family": item.family,
        "prompt": item.question.messages,
        **_how_verified(item),
    }


def _completion(one: Scored) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": one.text}]


def _how_verified(item: Item) -> Row:
    return {
        "verifier": item.question.verifier,
        "max_new_tokens": FAMILIES[item.family].max_new_tokens,
        "kept_out": item.kept_out,
    }
