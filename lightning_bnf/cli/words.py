"""What is typed, made ready for the parser: short forms written out, names as files, and what is a file first.

The parser takes words in their order, so a file after a value would take the value's place. Here a value goes over a
file wherever it stands.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lightning_bnf.cli.names import FOLDERS, SOURCE, config_of, file_of, source_in, with_files
from lightning_bnf.runtime.refusal import Refusal

SHORT_FORMS = {SOURCE: "model.policy.init_args.source"}
"""What may be typed -> what it is short for."""

_GROUPS = ("model", "data", "trainer")
_WITH_FILES = (*_GROUPS, *FOLDERS, "model.optimization", "model.generation", "data.options")


class Option(NamedTuple):
    """`--key` with the words after it; `joined` where they were typed as --key=value."""

    key: str
    values: tuple[str, ...] = ()
    joined: bool = False

    def words(self) -> list[str]:
        """As it is typed."""
        if not self.key:
            return list(self.values)
        return [f"--{self.key}={self.values[0]}"] if self.joined else [f"--{self.key}", *self.values]


def options(command: str, words: Sequence[str]) -> list[Option]:
    """The words of a command as options, written out and in the order that the parser needs."""
    return ordered([_complete(command, option) for option in split(words)])


def with_sources(typed: Sequence[Option]) -> list[Option]:
    """The options, with the last `model.source` of the configs as one that goes over their files and under what is
    typed. Raises `Refusal` for a config that names the policy's own too."""
    found, long = None, SHORT_FORMS[SOURCE]
    for path in (Path(option.values[0]) for option in typed if option.key == "config" and option.values):
        content = _read(path)
        short, named = source_in(content), _flat(content, "", path.parent).get(long)
        if short is not None and named is not None:
            raise Refusal(f"{path}: {SOURCE} and {long} must be one, got {short!r} and {named!r}")
        if named is not None:
            found = None
        elif short is not None:
            found = short
    return ordered([*([] if found is None else [Option(long, (found,))]), *typed])


def switched_on(words: Sequence[str], flag: str) -> list[str]:
    """The words, with `true` where a flag was typed alone.

    >>> switched_on(["--merge", "--folder", "m"], "merge")
    ['--merge', 'true', '--folder', 'm']
    """
    typed = (
        option._replace(values=option.values or ("true",)) if option.key == flag else option for option in split(words)
    )
    return [word for option in typed for word in option.words()]


def named_files(typed: Sequence[Option]) -> list[Path]:
    """The files among the options' values that are read as configs."""
    values = [option.values[0] for option in typed if option.values and option.key in ("config", *_WITH_FILES)]
    return [Path(value) for value in values if Path(value).suffix in (".yaml", ".yml")]


def ordered(typed: Sequence[Option]) -> list[Option]:
    """Configs, then files of groups, then files of classes, then values; each kind in the order typed."""
    ranks = dict.fromkeys(_WITH_FILES, 2) | dict.fromkeys(_GROUPS, 1) | {"config": 0, "": -1}
    return sorted(typed, key=lambda option: ranks.get(option.key, 3))


def split(words: Sequence[str]) -> list[Option]:
    """Words -> options; what stands before the first has the key ""."""
    found: list[Option] = []
    for word in words:
        if word == "-c":
            found.append(Option("config"))
        elif word.startswith("--"):
            key, joined, value = word[2:].partition("=")
            found.append(Option(key, (value,) if joined else (), bool(joined)))
        elif found and not found[-1].joined:
            found[-1] = Option(found[-1].key, (*found[-1].values, word))
        else:
            found.append(Option("", (word,)))
    return found


def _complete(command: str, option: Option) -> Option:
    key = SHORT_FORMS.get(option.key, option.key)
    if len(option.values) != 1:
        return option._replace(key=key)
    value = option.values[0]
    if key == "config" or key in _WITH_FILES:
        _refuse_pipe(Path(value))
    file = config_of(command, value) if key == "config" else file_of(key, value) if key in FOLDERS else None
    return Option(key, (file or value,), option.joined)


def settings(typed: Sequence[Option]) -> dict[str, Any]:
    """What configs and words set, by dotted keys, so far as it can be told without the parser; what cannot be read is
    left out, as the parser will refuse it with its reasons."""
    found: dict[str, Any] = {}
    for option in typed:
        value = option.values[0] if option.values else None
        if option.key == "config" and value is not None:
            found |= _flat(_read(Path(value)), "", Path(value).parent)
        elif option.key:
            found |= _flat(value, option.key, Path())
    return found


def _flat(value: Any, key: str, folder: Path) -> dict[str, Any]:
    """Dotted keys -> values; a file in place of a group or a class is followed, from the folder that it is named in."""
    if isinstance(value, str) and key in _WITH_FILES and value.endswith((".yaml", ".yml")):
        path = folder / value
        return {key: value} | _flat(_read(path), key, path.parent)
    if not isinstance(value, dict):
        return {key: value}
    entries = with_files(value) if not key else value
    return {
        name: held
        for part, inner in entries.items()
        for name, held in _flat(inner, f"{key}.{part}" if key else str(part), folder).items()
    }


def _refuse_pipe(path: Path) -> None:
    """It would be waited for, and could be read once, where settings are read twice."""
    if path.exists() and (path.is_fifo() or path.is_socket()):
        raise Refusal(f"config must be a YAML file, got {str(path)!r}, a pipe or socket: write it into a file first")


def _read(path: Path) -> Any:
    _refuse_pipe(path)
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
