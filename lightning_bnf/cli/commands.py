"""What can be typed after `python -m lightning_bnf`: a table, so that no command is imported to list them all."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

PROGRAM = "lightning_bnf" if Path(sys.argv[0]).stem == "lightning_bnf" else "python -m lightning_bnf"
"""What was typed to start: the console script, or the module."""


class Command(NamedTuple):
    """Where a command's function or class is, as `module:name`, and the first line of its docstring, which the overview
    of all commands shows without importing it; `shorthand` is a function from what may be typed instead to what it is
    short for."""

    target: str
    summary: str
    shorthand: str | None = None


TRAINER_COMMANDS = {
    "fit": Command("lightning_bnf.cli.trainer_commands:Fit", "Align a policy with a loss on preference data."),
    "validate": Command(
        "lightning_bnf.cli.evaluation_commands:Validate",
        "Measure a policy, or the plain base, on the validation split, with verifier pass rates.",
    ),
    "test": Command(
        "lightning_bnf.cli.evaluation_commands:Test",
        "Measure a policy, or the plain base, on the test split, with verifier pass rates.",
    ),
    "predict": Command(
        "lightning_bnf.cli.evaluation_commands:Predict", "Write completions of the test split's prompts as JSONL."
    ),
    "cache": Command(
        "lightning_bnf.cli.cache:Cache",
        "Compute the reference's log-probs of a fit config's data once, for `reference: cache`.",
    ),
    "export": Command(
        "lightning_bnf.cli.export:Export",
        "Write the policy of a run's checkpoint as a folder, with --merge as one model.",
    ),
    "plan": Command(
        "lightning_bnf.cli.plan:Plan", "Say what memory and time a fit takes, from the model's config alone."
    ),
}
"""Classes that read the config of a fit."""

VERBS = {
    "analyze": Command(
        "lightning_bnf.evaluation.analyze:analyze",
        "Measure how far policies have moved from a reference: log-likelihood and logit shifts (Section 5.3 of the "
        "paper).",
    ),
    "bench": Command(
        "lightning_bnf.costs.bench.run:bench",
        "Measure speed and memory: variants take turns in one run, each in a process of its own.",
    ),
    "chat": Command(
        "lightning_bnf.generation.chat:chat",
        "Talk to a run's base and its aligned policy, side by side in the terminal.",
        shorthand="lightning_bnf.generation.chat:expanded",
    ),
    "compare": Command(
        "lightning_bnf.pages.compare:compare",
        "Put runs on one page: their curves, what each gained and lost, the same prompts and the same tokens.",
        shorthand="lightning_bnf.pages.compare:expanded",
    ),
    "evaluate": Command(
        "lightning_bnf.evaluation.benchmarks.evaluate:evaluate",
        "Run benchmarks of lm-eval on a model: GSM8K, MATH level 5, MMLU-redux and CRUX, or three that need no "
        "network.",
    ),
    "generate": Command(
        "lightning_bnf.generation.answers:write_answers",
        "Write a model's answers to a benchmark's questions, for AlpacaEval, Arena-Hard or WildBench. Resumable.",
    ),
    "judge": Command(
        "lightning_bnf.judging.command:judge",
        "Let a judge compare a model's answers with a baseline's, for Arena-Hard, WildBench or AlpacaEval 2. "
        "Resumable.",
        shorthand="lightning_bnf.judging.command:expanded",
    ),
    "likelihood": Command(
        "lightning_bnf.evaluation.likelihood.command:likelihood",
        "Measure a model by likelihood: multiple choice as lm-eval scores it, held-out pairs, prose, KL from its base.",
    ),
    "losses": Command("lightning_bnf.losses.table:print_losses", "List the losses: equation, needs, arguments, paper."),
    "models": Command(
        "lightning_bnf.training.architectures.command:print_models",
        "List the architectures of transformers: in which layouts each was trained rightly, and what is said of the "
        "rest.",
    ),
    "near_duplicates": Command(
        "lightning_bnf.preparation.near_duplicates:near_duplicates",
        "Write pairs of worked sums that differ in one digit, as train.jsonl and validation.jsonl.",
    ),
    "prepare": Command(
        "lightning_bnf.preparation.prepare:prepare",
        "Make preference data from a model's own samples, sorted by verifiers, a reward model or a ranker. Resumable.",
    ),
    "report": Command(
        "lightning_bnf.pages.report:report",
        "Write the page of a run anew, from the files in the run's folder alone.",
        shorthand="lightning_bnf.pages.report:expanded",
    ),
    "reproduce": Command(
        "lightning_bnf.reproduction.command:reproduce",
        "Run a matrix of methods and seeds, or Table 4 at the paper's size; what is finished is skipped.",
        shorthand="lightning_bnf.reproduction.runs:expanded",
    ),
    "scores": Command(
        "lightning_bnf.judging.scores:scores",
        "Print the scores of judged answers with intervals and the judge's biases; write them as a table and a plot.",
        shorthand="lightning_bnf.judging.scores:expanded",
    ),
    "rounds": Command(
        "lightning_bnf.reproduction.rounds:rounds",
        "Align in rounds on the policy's own samples: sample, score, pick, fit, evaluate, and again. Resumable.",
    ),
}
"""Functions whose arguments are the command's."""

COMMANDS = TRAINER_COMMANDS | VERBS


def overview() -> str:
    """What `--help` without a command prints."""
    table = "\n".join(f"  {name:16s}{command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: {PROGRAM} COMMAND [--config FILE] [--key value ...] [--allow MODULE]\n       {PROGRAM} --version\n\n"
        f"commands:\n{table}\n\nYour own data: {PROGRAM} fit --model.source ID_OR_FOLDER --data.train FILE\n"
        "Every command explains its settings with --help.\n"
        "Configs name classes of this package and of the libraries below it; --allow MODULE lets in a module of yours."
    )


def imported(target: str) -> Any:
    """What a `module:name` of the table stands for."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
