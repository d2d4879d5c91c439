"""The verb `generate`, and what it wrote."""

import json
from pathlib import Path

from lightning_bnf.cli.main import main


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def generate(arena: str, tmp_path: Path, *words: str, output: str = "out.jsonl") -> Path:
    """The command as a user types it."""
    main(
        [
            *("generate", "--questions", arena, "--format", "arena_hard", "--name", "tiny", "--max_new_tokens", "6"),
            *("--output", str(tmp_path / output), "--work", str(tmp_path / "work"), *words),
        ]
    )
    return tmp_path / output
