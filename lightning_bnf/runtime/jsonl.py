"""JSONL: a store that only grows, so that a killed run can go on, and files that appear whole."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning_bnf.runtime.files import append, write_text
from lightning_bnf.runtime.refusal import Refusal


class JsonlStore:
    """Values by key, one line of a file each: {"key": ..., and the value's fields}.

    What was added is in the file when `add` returns. Opened again it holds all that was there; a last line without its
    end was being written when the run stopped, and is cut off.
    """

    def __init__(self, path: Path):
        """Raises `Refusal` with the line's number where a line is no JSON object with a key."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._values: dict[str, dict[str, Any]] = {}
        for number, line in enumerate(_whole_lines(path), start=1):
            try:
                value = json.loads(line)
                self._values[value.pop("key")] = value
            except (ValueError, AttributeError, TypeError, KeyError, RecursionError):
                raise Refusal(
                    f"{path}, line {number}: must be a JSON object with a key, got {line[:80]!r}; move the file "
                    "away to begin anew"
                ) from None

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._values[key]

    def __len__(self) -> int:
        return len(self._values)

    def values(self) -> list[dict[str, Any]]:
        """All values, in the order in which they were added."""
        return list(self._values.values())

    def add(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Append the values whose keys are new; the others stay as they were stored first."""
        new = {key: dict(value) for key, value in values.items() if key not in self._values}
        # escaped to ASCII: lone surrogates, which servers send, are no UTF-8
        lines = "".join(json.dumps({"key": key, **value}) + "\n" for key, value in new.items())
        append(self.path, lines.encode("ascii"))
        self._values |= new


def _whole_lines(path: Path) -> list[bytes]:
    """The lines, split at "\\n" alone: U+2028 and its like, at which `splitlines` splits too, are part of a text."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    return whole.split(b"\n")[:-1]


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as JSONL; the file appears whole or not at all."""
    write_text(path, "".join(json_text(row) + "\n" for row in rows))


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that can be written as UTF-8: characters as they are, but escaped where one is half a surrogate pair."""
    text = json.dumps(value, ensure_ascii=False, indent=indent)
    return text if text.encode(errors="replace").decode() == text else json.dumps(value, indent=indent)
