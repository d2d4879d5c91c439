"""Scripted judges, and the verb `judge` as it is typed."""

import json
import re
from pathlib import Path
from typing import Any

from lightning_bnf.cli.main import main
from lightning_bnf.generation.server import Reply


def sent(text: str, finish: str = "stop", **more: Any) -> tuple[int, dict[str, Any]]:
    """A server's reply with a text."""
    usage = {"completion_tokens": 10, "prompt_tokens": 100}
    return 200, {"choices": [{"message": {"content": text}, "finish_reason": finish}], "usage": usage, **more}


def verdict_of(prompt: str) -> str:
    """Good answers beat bad ones, by our own prompt for pairs."""
    a, b = re.findall(r"Answer [AB]:\n(\w+)", prompt)
    return "[[A=B]]" if a == b else "[[A>B]]" if a == "good" else "[[B>>A]]"


def fair(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A server's judge that says so."""
    text = verdict_of(body["messages"][1]["content"])
    return sent(f"It is better. {text}", model="judge-2026-01-01")


def fair_reply(server: Any, messages: Any, *how: Any) -> Reply:
    """The same without a server."""
    return Reply(verdict_of(messages[1]["content"]), True, 10, 100, "judge", None)


def judge(sides: tuple[str, str], output: Path, *words: str, benchmark: str = "arena_hard_v0.1") -> Path:
    """The command as a user types it."""
    main(
        [
            "judge",
            "--benchmark",
            benchmark,
            "--answers",
            sides[0],
            "--baseline",
            sides[1],
            "--output",
            str(output),
            *words,
        ]
    )
    return output


def by_server(url: str, *words: str) -> list[str]:
    return ["--server.base_url", url, "--server.model", "judge", "--server.at_once", "1", "--prompt", "own", *words]


def stored(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "judgments.jsonl").read_text().splitlines()]
