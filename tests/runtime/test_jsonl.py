"""Stores that a kill at any byte leaves readable, and JSONL files."""

import json
from pathlib import Path

import pytest

from lightning_bnf.runtime.jsonl import JsonlStore, write_jsonl


def test_what_was_added_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    store = JsonlStore(tmp_path / "new" / "work.jsonl")
    store.add({"a": {"score": 1.5}, "b": {"score": 2.0}})
    store.add({"a": {"score": 9.0}, "c": {"score": 3.0}})
    for held in (store, JsonlStore(store.path)):
        assert [held[key]["score"] for key in "abc"] == [1.5, 2.0, 3.0], "what was stored first stays"
        assert ("a" in held, "d" in held, len(held)) == (True, False, 3)
    assert store.path.read_text().count("\n") == 3


@pytest.mark.parametrize("text", ["a\u2028b", "a\u2029b", "a\u0085b", "a\x0bb\x0cc\x1cd", "a\r\nb\nc", "\ud800", "é"])
def test_any_text_comes_back_and_a_cut_at_any_byte_costs_one_line(tmp_path: Path, text: str) -> None:
    """Also separators at which Python's `splitlines` splits, and a lone surrogate, as servers send them."""
    path = tmp_path / "work.jsonl"
    JsonlStore(path).add({"first": {"text": text}})
    whole = path.read_bytes()
    JsonlStore(path).add({"second": {"text": text}})
    content = path.read_bytes()
    for cut in range(len(whole), len(content) + 1):
        path.write_bytes(content[:cut])
        store = JsonlStore(path)
        assert store["first"] == {"text": text}
        assert ("second" in store) == (cut == len(content))
        store.add({"second": {"text": "again"}})
        assert len(JsonlStore(path)) == 2


def test_files_with_unescaped_separators_are_read(tmp_path: Path) -> None:
    path = tmp_path / "work.jsonl"
    path.write_text(json.dumps({"key": "a", "text": "x\u2028y\u0085z"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert JsonlStore(path)["a"]["text"] == "x\u2028y\u0085z"


@pytest.mark.parametrize("line", [b"{", b"[1]", b'{"score": 1}', b'{"key": ["a"]}', b"", b'{"key": "\xff"}'])
def test_other_lines_are_named_and_left_alone(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "work.jsonl"
    content = b'{"key": "a"}\n' + line + b'\n{"key": "b"}\n'
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"work.jsonl, line 2: must be a JSON object with a key, got b"):
        JsonlStore(path)
    assert path.read_bytes() == content


def test_rows_are_written_as_they_are(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "rows.jsonl", [{"a": "é"}, {"b": [1]}])
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == '{"a": "é"}\n{"b": [1]}\n'
    write_jsonl(tmp_path / "rows.jsonl", [{"a": "é"}, {"b": "é\ud800"}])
    expected = '{"a": "é"}\n{"b": "\\u00e9\\ud800"}\n'
    assert (tmp_path / "rows.jsonl").read_text(encoding="utf-8") == expected, "what is no UTF-8 is escaped"
