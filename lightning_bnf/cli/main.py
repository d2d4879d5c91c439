"""The command line: Lightning's fit, validate, test and predict, and the package's own verbs.

python -m lightning_bnf fit --config configs/quickstart.yaml
python -m lightning_bnf prepare --config configs/prepare/quickstart.yaml
"""

import difflib
import logging
import sys
import warnings
from collections.abc import Callable, Sequence

import jsonargparse

from lightning_bnf.cli.parser import Parser
from lightning_bnf.cli.trainer_commands import CLI, DERIVED
from lightning_bnf.costs.bench.run import bench
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation.analyze import analyze
from lightning_bnf.evaluation.benchmarks.evaluate import evaluate
from lightning_bnf.generation.answers import write_answers
from lightning_bnf.losses.table import print_losses
from lightning_bnf.module import PreferenceModule
from lightning_bnf.preparation.near_duplicates import near_duplicates
from lightning_bnf.preparation.prepare import prepare
from lightning_bnf.reproduction.runs import expanded, reproduce
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checks import NonFiniteError

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")
VERBS: dict[str, Callable[..., None]] = {
    "analyze": analyze,
    "bench": bench,
    "evaluate": evaluate,
    "generate": write_answers,
    "losses": print_losses,
    "near_duplicates": near_duplicates,
    "prepare": prepare,
    "reproduce": reproduce,
}


def _silence() -> None:
    """Notices of libraries about themselves, which no user of this package can act on."""
    for message in (
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*gradient_checkpointing.* is deprecated.*",
        "LightningCLI's args parameter is intended to run from within Python.*",
        "Total length of `list` across ranks is zero.*",
        "Experiment logs directory .* exists and is not empty.*",
        "Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
    ):
        warnings.filterwarnings("ignore", message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(word in record.getMessage() for word in ("litlogger", "litmodels", "TPU available"))
    )


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; refusals end the program with status 2 and a sentence instead of a traceback."""
    _silence()
    try:
        _run(None if args is None else list(args))
    except (Refusal, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _run(words: list[str] | None) -> None:
    given = sys.argv[1:] if words is None else words
    command = given[0] if given else "--help"
    if command in VERBS:
        _run_verb(VERBS[command], command, expanded(given[1:]) if command == "reproduce" else given[1:])
    elif command in TRAINER_COMMANDS or command in DERIVED:
        made, like = DERIVED.get(command, (CLI, command))
        made(
            PreferenceModule,
            PreferenceData,
            parser_class=Parser,
            seed_everything_default=1,
            auto_configure_optimizers=False,
            parser_kwargs={"prog": "python -m lightning_bnf", "default_env": False},
            args=[like, *given[1:]],
        )
    elif command in ("-h", "--help"):
        print(_overview())
    else:
        near = difflib.get_close_matches(command, [*TRAINER_COMMANDS, *DERIVED, *VERBS], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"error: there is no command {command!r}{hint}\n\n{_overview()}", file=sys.stderr)
        raise SystemExit(2)


def _run_verb(verb: Callable[..., None], name: str, words: list[str]) -> None:
    parser = Parser(prog=f"python -m lightning_bnf {name}", description=(verb.__doc__ or "").split("\n\n")[0])
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="YAML file with the arguments below.")
    parser.add_function_arguments(verb, as_group=False)
    config = parser.parse_args(words)
    config.pop("config", None)
    verb(**parser.instantiate_classes(config))


def _overview() -> str:
    lines = {
        "fit": "align a policy with a loss on preference data",
        "validate": "metrics of a policy, or of the plain base, on the validation split",
        "test": "the same on the test split, with verifier pass rates",
        "predict": "write completions for the test prompts as JSONL",
        "cache": "compute the reference's log-probs of a fit config's data once, for reference: cache",
        "export": "write the policy of a fit config's checkpoint as a folder, with --merge as one model",
        "plan": "memory and time that a fit config takes, from the model's config alone",
    } | {name: (verb.__doc__ or "").split("\n")[0] for name, verb in VERBS.items()}
    table = "\n".join(f"  {name:10s} {text}" for name, text in lines.items())
    return (
        "usage: python -m lightning_bnf COMMAND --config FILE [--key value ...]\n\n"
        f"commands:\n{table}\n\nEvery command explains its settings with --help."
    )
