"""Fixtures for answers."""

import json

import pytest
from support.endpoint import listening


@pytest.fixture
def arena(tmp_path) -> str:
    """Five questions in Arena-Hard's form, of different lengths."""
    path = tmp_path / "question.jsonl"
    texts = ["Hi", "What is 3 + 4?", "Tell me about the rain in the north of Spain, please.", "Why?", "Name a colour."]
    rows = [{"uid": f"u{i}", "category": "hard_prompt", "prompt": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def endpoint():
    with listening() as found:
        yield found
