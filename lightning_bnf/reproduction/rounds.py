"""The verb `rounds`: sample, score and pick, cache the reference, fit, evaluate, and again from the new policy.

    output/round_1/sample/      what `prepare` writes: pairs, prompts, card; sampled from the last round's policy
    output/round_1/fit/         a run folder; its policy/ is what the next round samples and trains on
    output/round_1/STAGE.json   when a stage is done: its fingerprint, its minutes, what it found
    output/rounds.md, .png      metrics over the rounds

A stage's fingerprint is of all that it depends on: its settings, the contents of the files that they name, and the
fingerprint of the stage before it. A stage that is done is skipped; one that was made with others is refused. One that
was killed is begun again, and goes on with what it had finished: samples and scores as they came, a fit from its last
checkpoint.
"""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import yaml

from lightning_bnf.datamodules.reading.records import read_rows
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.evaluation.comparison import choose
from lightning_bnf.evaluation.pass_rates import complete_and_verify, pass_rates, verified_prompts
from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import BUNDLED, placed
from lightning_bnf.reproduction.commands import contents, finish, finished, named_contents, run_command
from lightning_bnf.reproduction.runs import fit_words
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.results.style import looks, save_figure, single
from lightning_bnf.runtime.arguments import NonNegativeInt, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import content_hash, file_fingerprint
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.processes import ENDS_WITH_PARENT
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import here_or_shipped

PAIRS, EVALUATION = "train_pairs.jsonl", "test_prompts.jsonl"
_PREPARES = {"source", "output", "work", "parts", "part", "seed"}
"""Settings of `prepare` that the rounds give."""


@checked
@dataclass(frozen=True)
class Evaluation:
    """What each round's policy is asked: the first round's test prompts, which none is trained on.

    Args:
        trained_prompts: prompts of trained families, from the families in turn; null: all.
        kept_out_prompts: the same of families that are kept out of training.
        dtype: type of the evaluated weights.
        batch_size: completions generated together.
    """

    trained_prompts: NonNegativeInt | None = None
    kept_out_prompts: NonNegativeInt | None = None
    dtype: Dtype = "float32"
    batch_size: PositiveInt = 128


EVALUATED = Evaluation()


@dataclass(frozen=True)
class _Plan:
    output: Path
    fit: Path
    source: str
    rounds: int
    prepare: Mapping[str, Any]
    settings: Mapping[str, Any]
    reference: str
    evaluation: Evaluation
    seed: int


@dataclass
class _Done:
    """What the stages so far came to: the policy, the last stage's fingerprint, and a line of the table per round."""

    policy: str
    fingerprint: str = ""
    lines: list[dict[str, Any]] = field(default_factory=list)


@checked
def rounds(
    output: Path,
    fit: Path,
    prepare: dict[str, Any],
    source: str = BUNDLED,
    rounds: PositiveInt = 2,
    reference: Literal["last", "first"] = "last",
    settings: dict[str, Any] = {},  # noqa: B006 - never changed
    evaluation: Evaluation = EVALUATED,
    seed: int = 1,
    dry_run: bool = False,
) -> None:
    """Align in rounds on the policy's own samples: sample, score, pick, fit, evaluate, and again. Resumable.

    Args:
        output: folder of the rounds: new, empty, or of this command, which goes on in it.
        fit: config of `fit` that all rounds share.
        prepare: settings of `prepare` that all rounds share: families or prompts with a scorer, samples, temperature.
            Its training prompts are dealt to the rounds; its test prompts are the evaluation's, and never trained on.
        source: the first model: hub id, folder, GGUF file or bundled model.
        rounds: how many.
        reference: what a round is held against: the policy that the last round ended with, or the first model.
        settings: dotted settings over `fit`, such as {trainer.max_epochs: 2}.
        evaluation: what each round's policy is asked.
        seed: of the prompts, which no two rounds share, and of their samples; round n trains with seed + n.
        dry_run: print what sampling and scoring take in a round, by `prepare --dry_run`, and write nothing.
    """
    taken = sorted(_PREPARES & set(prepare))
    if taken:
        raise Refusal(f"prepare must be without {', '.join(taken)}, which the rounds give, got {', '.join(prepare)}")
    if (prepare.get("engine") or {}).get("server"):
        raise Refusal("prepare must be without engine.server, which would not have the next round's policy, got one")
    check_claim("output", Path(output), "rounds")
    base = here_or_shipped(str(fit), "configs")
    plan = _Plan(Path(output), base, source, rounds, prepare, settings, reference, evaluation, seed)
    if dry_run:
        _forecast(plan)
        return
    claim("output", Path(output), "rounds")
    done = _Done(source)
    for number in range(1, rounds + 1):
        if not _round(plan, number, done):
            break
    _write_table(plan, done)


def _forecast(plan: _Plan) -> None:
    with TemporaryDirectory() as scratch:
        words, log = _sample_words(plan, 1, Path(scratch), plan.source), Path(scratch) / "sample.log"
        run_command([*words, "--dry_run", "true"], log, os.environ | {ENDS_WITH_PARENT: "1"}, "sample")
        print(log.read_text(encoding="utf-8"))
    print(f"That is the first of {plan.rounds} rounds. What their fits take: plan --config {plan.fit}")


def _round(plan: _Plan, number: int, done: _Done) -> bool:
    """One round; whether there can be another."""
    folder = plan.output / f"round_{number}"
    folder.mkdir(exist_ok=True)
    found = _stage(plan, folder, "sample", _sample_words(plan, number, folder, done.policy), done)
    pairs = folder / "sample" / PAIRS
    count = sum(1 for _ in pairs.open(encoding="utf-8"))
    evaluated = plan.output / "round_1" / "sample" / EVALUATION
    if number == 1:
        _evaluate(plan, folder, "start", done.policy, evaluated, 0, done)
    if not count:
        print(
            f"round {number} has no usable pairs: of every prompt all samples score alike, are cut off or the same; the"
            " rounds end here"
        )
        return False
    _refuse_shared(pairs, evaluated)
    words = _fit_words(plan, number, folder, done.policy, pairs)
    if _reference_of(plan) == "cache":
        _stage(plan, folder, "cache", ["cache", *words[1:]], done)
    fitted = _stage(plan, folder, "fit", words, done)
    done.policy = str(folder / "fit" / "policy")
    minutes = found["minutes"] + fitted["minutes"]
    _evaluate(plan, folder, "evaluate", done.policy, evaluated, number, done, pairs=count, minutes=minutes)
    return True


def _sample_words(plan: _Plan, number: int, folder: Path, policy: str) -> list[str]:
    own = {"source": policy, "parts": plan.rounds, "part": number, "seed": plan.seed}
    own |= {"output": str(folder / "sample"), "work": str(folder / "samples")}
    path = folder / "prepare.yaml"
    write_text(path, yaml.safe_dump({**plan.prepare, **own}, sort_keys=False))
    return ["prepare", "--config", str(path)]


def _fit_words(plan: _Plan, number: int, folder: Path, policy: str, pairs: Path) -> list[str]:
    adapter = number > 1 and (Path(policy) / "adapter_config.json").is_file()
    if number > 1 and not adapter and plan.reference == "first":
        raise Refusal("reference must be last where all weights are trained, got first (adapters hold the first model)")
    named = {"model.policy.init_args.source": plan.source if adapter or number == 1 else policy}
    if adapter:
        named |= {"model.policy.init_args.adapter": policy}
        named |= {"model.policy.init_args.reference_of": "base"} if plan.reference == "first" else {}
    seeds = {"seed_everything": plan.seed + number, "data.seed": plan.seed + number}
    own = {"data.train": str(pairs), "trainer.default_root_dir": str(folder / "fit")}
    return fit_words(plan.fit, {**plan.settings, **named, **seeds, **own})


def _reference_of(plan: _Plan) -> Any:
    return plan.settings.get("model.reference", (_shared(plan).get("model") or {}).get("reference"))


def _shared(plan: _Plan) -> dict[str, Any]:
    return yaml.safe_load(plan.fit.read_text(encoding="utf-8")) or {}


def _stage(plan: _Plan, folder: Path, name: str, words: Sequence[str], done: _Done) -> dict[str, Any]:
    """A stage that is a command, run where it is not done yet."""
    depends = [word.replace(str(plan.output), "") for word in words]
    if name == "sample":
        depends.append(content_hash([plan.prepare, plan.seed, plan.rounds]))
        depends.append(content_hash([contents(plan.source), named_contents(plan.prepare)]))
    else:
        named = named_contents(_shared(plan), plan.fit.parent) | named_contents(plan.settings)
        depends.append(content_hash([file_fingerprint(plan.fit), named]))
    held = _held(folder, name, depends, done)
    if held is not None:
        return held
    started = time.monotonic()
    again = ["--ckpt_path", "last"] if name == "fit" and (folder / "fit" / "config.yaml").is_file() else []
    log = folder / f"{name}.log"
    print(f"{folder.name}: {name}; what it says is in {log}", flush=True)
    run_command([*words, *again], log, os.environ | {ENDS_WITH_PARENT: "1"}, f"{folder.name}: {name}")
    return _keep(folder, name, done, {"minutes": (time.monotonic() - started) / 60})


def _held(folder: Path, name: str, depends: Any, done: _Done) -> dict[str, Any] | None:
    """What a stage that is done has found. Raises `Refusal` where it was made with other settings."""
    done.fingerprint = content_hash([done.fingerprint, name, depends])
    return finished(folder / f"{name}.json", done.fingerprint)


def _keep(folder: Path, name: str, done: _Done, found: Mapping[str, Any]) -> dict[str, Any]:
    return finish(folder / f"{name}.json", done.fingerprint, found)


def _refuse_shared(pairs: Path, evaluated: Path) -> None:
    """Raises `Refusal` where a pair's prompt is one of the evaluation's."""
    asked = {content_hash(list(row.prompt)) for row in read_rows(str(evaluated), format="prompt")}
    shared = [row.source for row in read_rows(str(pairs)) if content_hash(list(row.prompt)) in asked]
    if shared:
        raise Refusal(f"pairs must be of other prompts than the evaluation's, got {len(shared)} that are shared")


def _evaluate(
    plan: _Plan, folder: Path, name: str, policy: str, evaluated: Path, number: int, done: _Done, **more: Any
) -> None:
    """Greedy pass rates of a policy, as a line of the table."""
    held = _held(folder, name, asdict(plan.evaluation), done)
    if held is None:
        print(f"{folder.name}: {name}", flush=True)
        held = _keep(folder, name, done, {"rates": _rates(plan.evaluation, policy, evaluated)})
    done.lines.append({"round": number, **more, "rates": held["rates"]})


def _rates(about: Evaluation, source: str, evaluated: Path) -> list[dict[str, Any]]:
    if not any(row.verifier for row in read_rows(str(evaluated), format="prompt")):
        return []  # their rewards are in the samples' cards
    policy = exported(source, about.dtype)
    rows, _ = load_rows(str(evaluated), policy.tokenizer, None, policy.end_ids)
    prompts = choose(verified_prompts(rows), about.trained_prompts, about.kept_out_prompts)
    policy.load()
    model = placed(policy.loaded)
    records = complete_and_verify(
        model, policy.tokenizer, prompts, temperature=0.0, batch_size=about.batch_size, progress="Evaluation"
    )
    return [asdict(rate) for rate in pass_rates(records)]


def _write_table(plan: _Plan, done: _Done) -> None:
    """rounds.md and rounds.png: what the policy of each round passes; round 0 is the first model."""
    groups = ("trained", "kept-out")
    rows = []
    for line in done.lines:
        rates = {rate["group"]: rate for rate in line["rates"]}
        cells = [_cell(rates.get(group)) for group in groups]
        tokens = [f"{rates[group]['length']:.1f}" if group in rates else "-" for group in groups]
        minutes = f"{line['minutes']:.1f}" if "minutes" in line else "-"
        rows.append([line["round"], line.get("pairs", "-"), *cells, *tokens, minutes])
    header = ("round", "pairs", "passed, trained", "passed, kept out", "tokens", "tokens, kept out", "minutes")
    table = markdown_table(header, *rows, padded=True)
    held = "the last round's policy" if plan.reference == "last" else "the first model"
    about = f"Greedy pass rates with 95 % intervals: {plan.rounds} rounds from {plan.source}, reference {held}."
    write_text(plan.output / "rounds.md", f"{about}\n\n{table}\n")
    save_figure(plot_rounds(done.lines, groups), plan.output / "rounds.png")
    print(table)


def _cell(rate: Mapping[str, Any] | None) -> str:
    return "-" if rate is None else f"{rate['rate']:.2f} ({rate['low']:.2f} to {rate['high']:.2f}, n {rate['n']})"


def plot_rounds(lines: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> Any:
    """Pass rates over the rounds, a line for each group of prompts."""
    figure, axes = single("what each round's policy passes, greedy", "round (0: the first model)", "pass rate")
    for group, look in looks(groups).items():
        found = [(line["round"], rate) for line in lines for rate in line["rates"] if rate["group"] == group]
        if found:
            x, y = [number for number, _ in found], [rate["rate"] for _, rate in found]
            spans = [
                [rate["rate"] - rate["low"] for _, rate in found],
                [rate["high"] - rate["rate"] for _, rate in found],
            ]
            axes.errorbar(x, y, yerr=spans, label=f"{group} families", color=look.color, capsize=3, marker="o")
    axes.set_xticks([line["round"] for line in lines])
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return figure
