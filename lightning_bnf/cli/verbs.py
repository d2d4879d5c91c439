"""Commands that are plain functions: signature and docstring make the parser."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jsonargparse

from lightning_bnf.cli.commands import PROGRAM
from lightning_bnf.cli.parser import Parser
from lightning_bnf.cli.words import options


def run_verb(verb: Callable[..., None], name: str, words: Sequence[str]) -> None:
    """Call `verb` with what was typed as the command `name`; a word that it does not know ends with status 2."""
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        usage="%(prog)s [--config FILE] [--key value ...] [--allow MODULE]",
        description=inspect.cleandoc(verb.__doc__ or "").split("\n\n")[0],
    )
    parser.add_argument("--config", action=jsonargparse.ActionConfigFile, help="YAML file with the arguments below.")
    parser.add_function_arguments(verb, as_group=False)
    config = parser.parse_args([word for option in options(name, words) for word in option.words()])
    config.pop("config", None)
    verb(**_plain(parser.instantiate_classes(config)))


def _plain(value: Any) -> Any:
    """Settings of another command inside this one's (`dict[str, Any]`), in which a class path is no object, as the
    mapping that was typed."""
    if isinstance(value, jsonargparse.Namespace | dict):
        items = vars(value) if isinstance(value, jsonargparse.Namespace) else value
        return {name: _plain(one) for name, one in items.items()}
    return [_plain(one) for one in value] if type(value) is list else value
