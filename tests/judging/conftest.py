"""Answer files of two models, and a judge that answers by script."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.endpoint import Endpoint, listening

from lightning_bnf.generation.server import client


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    client.cache_clear()
    with listening() as found:
        yield found


def arena_row(uid: str, model: str, text: str) -> dict:
    messages = [{"role": "user", "content": f"Question {uid}?"}, {"role": "assistant", "content": {"answer": text}}]
    metadata = {"token_len": len(text), "header_count": {"h1": 0}, "list_count": {}, "bold_count": {}}
    return {"uid": uid, "ans_id": uid, "model": model, "messages": messages, "metadata": metadata}


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str]:
    """Twelve answers of `mine` and of `base` in Arena-Hard's form; mine are longer, and good but for three."""
    for model in ("mine", "base"):
        rows = [
            arena_row(f"q{i}", model, ("bad" if (i % 4 == 0) == (model == "mine") else "good and long") + "." * i)
            for i in range(12)
        ]
        (tmp_path / f"{model}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(tmp_path / "mine.jsonl"), str(tmp_path / "base.jsonl")
