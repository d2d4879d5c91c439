"""Commands of the package as steps: in processes of their own, marked when they are done, skipped from then on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import file_fingerprint
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.shipped import shipped

_RUNNING: set["subprocess.Popen[bytes]"] = set()  # they end with this process


def run_command(words: Sequence[str], log_file: Path, environment: Mapping[str, str], name: str) -> None:
    """A command of the package in a process of its own, which ends with this one. Raises `Refusal` with its last words
    if it fails; `name` is what the refusal calls it."""
    with log_file.open("w") as log:
        command = [sys.executable, "-m", "lightning_bnf", *words]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=dict(environment))
    _RUNNING.add(process)
    try:
        status = process.wait()
    finally:
        _RUNNING.discard(process)
    if status:
        last = log_file.read_text(errors="replace").splitlines()[-5:]
        raise Refusal(f"{name}: the run ended with status {status}; see {log_file}:\n" + "\n".join(last))


def end_commands() -> None:
    """Ask all that run to save and end."""
    for process in list(_RUNNING):
        process.terminate()


def typed(name: str, value: Any) -> list[str]:
    """A setting as it is typed: text as it is, the rest as JSON (None is null)."""
    return [f"--{name}", value if isinstance(value, str) else json.dumps(value, default=vars)]


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values of nested settings."""
    for name, value in config.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from leaves({str(i): one for i, one in enumerate(value)}, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def contents(name: str) -> Any:
    """A file's hash; of a folder with a model, what tells that it was written anew; of a name on the hub, itself."""
    path = Path(name).expanduser()
    if path.is_file():
        return file_fingerprint(path)
    if path.is_dir():
        held = [(file.name, file.stat()) for file in sorted(path.iterdir()) if file.is_file()]
        return [[name, state.st_size, state.st_mtime_ns] for name, state in held]
    return name


def named_contents(settings: Mapping[str, Any], beside: Path = Path()) -> dict[str, Any]:
    """`contents` of the files that nested settings name, by the settings' dotted names, and of all that is named as a
    `source` or `path`. beside: the folder of a config, from which it may name its files."""
    found = {}
    for setting, value in leaves(settings):
        if isinstance(value, str):
            places = (Path(os.path.expanduser(value)), beside / value, shipped(value))
            file = next((str(path) for path in places if os.path.isfile(path)), None)  # a text may be no path at all
            if file is not None or setting.rpartition(".")[2] in ("source", "path"):
                found[setting] = contents(file or value)
    return found


def finished(mark: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a step that is done has found, None of one that is not. Raises `Refusal` where it was made with other
    settings or files."""
    if not mark.is_file():
        return None
    found: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8"))
    if found["fingerprint"] != fingerprint:
        raise Refusal(
            f"output must be another folder, or {mark} and what comes after it taken away, got a stage that was made "
            "with other settings or other contents of its files"
        )
    return found


def finish(mark: Path, fingerprint: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Mark a step as done."""
    record = {"fingerprint": fingerprint, **found}
    write_text(mark, json.dumps(record, indent=1) + "\n")
    return record
