"""The parser of the command line: refusals in one sentence, with the nearest name that is known."""

import difflib
import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NoReturn

import jsonargparse
import yaml

from lightning_bnf.cli.commands import PROGRAM
from lightning_bnf.cli.hints import meant
from lightning_bnf.cli.names import FOLDERS, names, with_files
from lightning_bnf.runtime.class_paths import class_at, refusal_of, restricted
from lightning_bnf.runtime.escapes import visible

NAMES_MODE = "yaml_with_names"
"""The parser's mode in which a config may hold short names, `loss: dpo`, in place of files."""

_load_yaml = jsonargparse.get_loader("yaml")


def _load(text: str) -> Any:
    """Settings in a text. Raises `yaml.YAMLError` for lines that are one string to YAML, as of a CSV file: jsonargparse
    takes a file's text in the place of its name where the text can be loaded."""
    loaded = _load_yaml(text)
    if isinstance(loaded, str) and "\n" in text.strip():
        raise yaml.YAMLError("settings must be keys and values, got lines of text")
    return with_files(loaded)


jsonargparse.set_loader(NAMES_MODE, _load, (yaml.YAMLError,))


_named: list[str] = []
"""Modules that the command before, in this process, was allowed."""


@contextmanager
def restricted_class_paths(named: Sequence[str]) -> Iterator[None]:
    """Configs and flags name classes of ours, of the libraries that a run is made of, and of what the user `named`."""
    with restricted(named) as accepted:
        jsonargparse.set_parsing_settings(
            import_path_denylist=["*", *_named],
            import_path_allowlist=list(accepted),
            instantiate_subclass_spec_in_any=False,  # what is no class by its annotation is made no object
        )
        _named[:] = named
        yield


class Parser(jsonargparse.ArgumentParser):
    """Refuses what it does not know in one sentence, with the nearest name that it does know."""

    command: ClassVar[str] = PROGRAM
    """The command that is parsed: parsers of classes inside it are made without its name."""

    def __init__(self, *args: Any, **kwargs: Any):
        Parser.command = kwargs.get("prog") or Parser.command
        super().__init__(*args, allow_abbrev=False, **kwargs)  # a mistyped --data.max must not set the next best option

    def instantiate(self, namespace: jsonargparse.Namespace, *args: Any, **kwargs: Any) -> jsonargparse.Namespace:
        """Raises `SystemExit`, as for any other setting, where a class has one value in place of its settings."""
        for group in self._action_groups:
            kind, place = getattr(group, "group_class", None), getattr(group, "dest", None)
            value = namespace.get(place, {}) if place else {}
            if kind is not None and not isinstance(value, dict | jsonargparse.Namespace):
                got = "null" if value is None else repr(value)
                self.error(f"{place} must be a mapping of {kind.__name__}'s settings, got {got}")
        return super().instantiate(namespace, *args, **kwargs)

    def parse_args(self, *args: Any, **kwargs: Any) -> jsonargparse.Namespace:  # type: ignore[override]
        with self._in_a_sentence():
            return super().parse_args(*args, **kwargs)

    def parse_object(self, *args: Any, **kwargs: Any) -> jsonargparse.Namespace:
        with self._in_a_sentence():
            return super().parse_object(*args, **kwargs)

    @contextmanager
    def _in_a_sentence(self) -> Iterator[None]:
        """What jsonargparse lets through: a text that no path can be, where one is looked for, and a class that may not
        be imported, in the place of settings."""
        try:
            yield
        except ImportError as error:
            self.error(str(error))
        except ValueError as error:
            if not isinstance(error, UnicodeError) and "null byte" not in str(error):
                raise
            self.error("settings must be texts without NUL characters and half surrogate pairs, got one that has them")

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        print(f"error: {visible(_explained(self, message))}", file=sys.stderr)
        print(f"Every setting is explained by: {Parser.command} --help", file=sys.stderr)
        raise SystemExit(2)


def _explained(parser: jsonargparse.ArgumentParser, message: str) -> str:
    """The parser's message, cut to the sentence that a class refused its argument with, or with a hint added."""
    refused = re.search(r"^[\s-]*(?:.*Not of type .*?: )?(.*must be .*, got .*)$", message, re.MULTILINE)
    key = re.search(r'[Pp]arser key "([^"]+)"', message)
    denied = re.search(r"Importing '([\w.]+)' is not allowed.*", message)
    if denied and find_spec(denied[1].partition(".")[0]):  # which imports nothing
        return f"{key[1] + ': ' if key else ''}{refusal_of(denied[1])}"
    if denied:
        message = message.replace(denied[0], f"there is no module {denied[1].partition('.')[0]}")
    if refused:
        between = " " if refused[1].startswith("must be") else ": "
        return f"{key[1] + between if key else ''}{refused[1]}"
    message = re.sub(r"Group '([\w.]+)' does not accept option '", r"there is no option '\1.", message)
    unknown = re.search(r"[Oo]ption '([\w.]+)'|[Uu]nrecognized arguments?: --([\w.-]+)|Key '([\w.]+)'", message)
    if unknown:
        name = next(group for group in unknown.groups() if group)
        return message + _hint(name, _known_keys(parser), _arguments_of_classes(message))
    if "required: source" in message or re.search(r"[Kk]ey \"[\w.]*source\" is required", message):
        return (
            "model.source must be a model to align (a hub id, a local folder or a GGUF file), got nothing: add "
            "--model.source HuggingFaceTB/SmolLM2-360M-Instruct, or another one's name"
        )
    if key and key[1] in FOLDERS:
        return _no_such_name(key[1], message)
    return _typed_wrong(key[1], message) if key else message


def _typed_wrong(key: str, message: str) -> str:
    """The sentence on a value of another type; the parser's own message where it lists several types."""
    group = re.search(r"^Unable to load config '(.*)'$", message, re.MULTILINE)
    if group:
        return f"{key} must be a YAML file, or be set by its own settings, --{key}.NAME VALUE, got {group[1]}"
    kind = re.search(
        r"^\s*Expected an? (?:<class '([\w.]+)'>|(.+))\. Got value: (.*)\Z", message, re.MULTILINE | re.DOTALL
    )
    return f"{key} must be of type {kind[1] or kind[2]}, got {kind[3]}" if kind else message


def _hint(unknown: str, known: set[str], arguments: set[str]) -> str:
    """What an unknown key means elsewhere, where the command has such a setting; else the nearest by its letters."""
    meaning = meant(unknown)
    if meaning is not None and meaning.setting.partition(".")[0] in {key.partition(".")[0] for key in known}:
        return f"; did you mean {meaning.setting!r}?" + (f" ({meaning.note})" if meaning.note else "")
    near = _nearest_key(unknown, known | arguments)
    return f"; did you mean {near!r}?" if near else ""


def _no_such_name(setting: str, message: str) -> str:
    """The sentence on a name that nothing has; the parser's own message follows where something else is wrong."""
    known = sorted({Path(file).stem for file in names(setting).values()})
    accepted = f"{setting} must be one of {', '.join(known)}, a YAML file or a class path"
    value = re.search(r"Expected a dot import path string: ([\w-]+)$", message, re.MULTILINE)
    if value is None:
        return f"{accepted}\n{message}"
    near = difflib.get_close_matches(value[1].lower(), known, n=1)
    return f"{accepted}, got {value[1]}" + (f"; did you mean {near[0]!r}?" if near else "")


def _nearest_key(unknown: str, known: set[str]) -> str | None:
    """The known key that `unknown` is probably a misspelling of: compared whole, else by its last word."""
    near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.7)
    if not near and "." in unknown:
        inside = {key for key in known if key.rpartition(".")[0] == unknown.rpartition(".")[0]}
        near = difflib.get_close_matches(unknown, inside, n=1, cutoff=0.5)
    return near[0] if near else None


def _known_keys(parser: jsonargparse.ArgumentParser) -> set[str]:
    keys: set[str] = set()
    for action in parser._actions:
        keys.add(action.dest)
        choices = action.choices if isinstance(action.choices, dict) else {}
        for sub in choices.values():
            keys |= _known_keys(sub) if isinstance(sub, jsonargparse.ArgumentParser) else set()
    return keys


def _arguments_of_classes(message: str) -> set[str]:
    """The constructor arguments of the classes that a message names."""
    names: set[str] = set()
    for path in re.findall(r"class_path '([\w.]+)'", message):
        try:
            names |= set(inspect.signature(class_at(path)).parameters)
        except (ImportError, AttributeError, TypeError, ValueError):
            continue
    return names
