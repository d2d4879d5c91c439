"""The command line: which command is asked for. Nothing heavy is imported before that is known.

python -m lightning_bnf fit --config configs/quickstart.yaml
python -m lightning_bnf prepare --config configs/prepare/quickstart.yaml
"""

import difflib
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from lightning_bnf import __version__
from lightning_bnf.cli.commands import COMMANDS, TRAINER_COMMANDS, imported, overview
from lightning_bnf.cli.endings import end, end_interrupted
from lightning_bnf.runtime.escapes import visible
from lightning_bnf.runtime.processes import ENDS_WITH_PARENT, end_with_parent, ended_by_sigterm

NOTICES = (
    "litlogger",
    "litmodels",
    "PU available",
    "Seed set to",
    "Loading `train_dataloader` to estimate",
    "`Trainer.fit` stopped: `max_",
    "will override existing callbacks passed to Trainer: KeptCasts",
)
"""Of Lightning about itself."""
_PACKAGE = Path(__file__).parents[1]


def main(args: Sequence[str] | None = None) -> None:
    """Run a command; errors a user can mend end the program with status 2 and a sentence instead of a traceback,
    SIGTERM and Ctrl-C with the status that shells know them by."""
    try:
        with ended_by_sigterm():
            _main(sys.argv[1:] if args is None else list(args))
        sys.stdout.flush()  # a reader who has gone is noticed here
    except KeyboardInterrupt:
        end_interrupted()
    except SystemExit as stop:  # Lightning makes one of Ctrl-C, with status 1
        if isinstance(stop.__context__, KeyboardInterrupt):
            end_interrupted()
        raise
    except Exception as error:
        end(error)
        raise


def _main(words: list[str]) -> None:
    name = words[0] if words else "--help"
    if name in ("-h", "--help"):
        print(overview())
        return
    if name == "--version":
        print(f"lightning_bnf {__version__}")
        return
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        print(f"error: there is no command {name!r}{hint}\n\n{overview()}", file=sys.stderr)
        raise SystemExit(2)
    _announce(name)
    if (
        os.environ.get("LOCAL_RANK", "0") != "0" or ENDS_WITH_PARENT in os.environ
    ):  # before they meet: the first may not even get so far
        end_with_parent()
    silence()
    warnings.showwarning = show_warning
    _quiet_bars()
    let_memory_grow()
    _run(name, words[1:])


def _announce(name: str) -> None:
    """A first line before the imports, which take seconds. On standard error: what a command prints, such as a config
    or a table, can then be piped. The processes that a run starts on further devices are silent."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(
            f"lightning_bnf {__version__}: {name}; torch and what builds on it are loading ...",
            file=sys.stderr,
            flush=True,
        )


def _run(name: str, typed: Sequence[str]) -> None:
    from lightning_bnf.cli.parser import restricted_class_paths

    words, allowed = without_allowed(typed)
    if allowed and not {"", os.getcwd()} & set(sys.path):  # of `python -m` it is the first, of the console script none
        sys.path.append(os.getcwd())
    with restricted_class_paths(allowed):
        _run_command(name, words)


def _run_command(name: str, words: list[str]) -> None:
    command = COMMANDS[name]
    if name in TRAINER_COMMANDS:
        imported(command.target)(name, words).run()
        return
    from lightning_bnf.cli.verbs import run_verb

    run_verb(imported(command.target), name, imported(command.shorthand)(words) if command.shorthand else words)


def without_allowed(typed: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words without `--allow MODULE`, and the modules: no config may say this, and no parser sees it.

    >>> without_allowed(["--model.loss", "mine.yaml", "--allow", "my_losses"])
    (['--model.loss', 'mine.yaml'], ['my_losses'])
    """
    words: list[str] = []
    named: list[str] = []
    rest = iter(typed)
    for word in rest:
        key, joined, value = word.partition("=")
        if key != "--allow":
            words.append(word)
        else:
            named.append(value if joined else next(rest, ""))
    return words, named


def silence() -> None:
    """Notices of libraries about themselves, which no user of this package can act on."""
    for message in (
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*gradient_checkpointing.* is deprecated.*",
        "LightningCLI's args parameter is intended to run from within Python.*",
        "Total length of `(list|StepLoader|PromptLoader)` across ranks is zero.*",
        "It is recommended to use `self.log\\(.*, sync_dist=True\\)`.*",  # what is logged is of all ranks already
        "The dirpath has changed from .*",
        "Experiment logs directory .* exists and is not empty.*",
        "Checkpoint directory .* exists and is not empty.*",
        ".*does not have many workers.*",
        "GPU available but not used.*",
        "Found .* module\\(s\\) in eval mode.*",
        "The number of training batches .* is smaller than the logging interval.*",
        "Trying to infer the `batch_size`.*",
        "Using ModelCheckpoint with manual optimization.*",
    ):
        warnings.filterwarnings("ignore", message)
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed"):
        logging.getLogger(name).addFilter(lambda record: not any(word in record.getMessage() for word in NOTICES))


def show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """In place of `warnings.showwarning`: those of this package as a sentence, without the line of its source that they
    come from. As Python's own it ends nothing where nobody reads."""
    stream = sys.stderr if file is None else file
    ours = category is UserWarning and Path(filename).is_relative_to(_PACKAGE)
    if ours and "Triggered internally" not in str(message):  # torch's, of the line of Python that led there
        told = f"WARNING: {visible(str(message))}\n"
    else:
        told = warnings.formatwarning(message, category, filename, lineno, line)
    with suppress(OSError, AttributeError):  # there may be no stream at all
        stream.write(told)
        stream.flush()


def let_memory_grow() -> None:
    """Every micro-batch has other shapes, and pieces of GPU memory that were cut for one fit no other: with segments
    that grow none are left over. torch reads it when it first takes such memory; whoever has set it knows better."""
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older of its names
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")


def _quiet_bars() -> None:
    """Bars of libraries, such as a download's, redraw themselves: where no terminal does that, every 30 seconds."""
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_MININTERVAL", "30")
