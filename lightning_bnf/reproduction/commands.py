"""Commands of the package as steps: in processes of their own, marked when they are done, skipped from then on."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

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


def finished(mark: Path, fingerprint: str) -> dict[str, Any] | None:
    """What a step that is done has found, None of one that is not. Raises `Refusal` where it was made with other
    settings."""
    if not mark.is_file():
        return None
    found: dict[str, Any] = json.loads(mark.read_text(encoding="utf-8"))
    if found["fingerprint"] != fingerprint:
        raise Refusal(
            f"output must be another folder, or {mark} and what comes after it taken away, got a stage that was made "
            "with other settings"
        )
    return found


def finish(mark: Path, fingerprint: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Mark a step as done."""
    record = {"fingerprint": fingerprint, **found}
    write_text(mark, json.dumps(record, indent=1) + "\n")
    return record
