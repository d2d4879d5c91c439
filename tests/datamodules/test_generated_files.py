"""Data files that nobody wrote: whatever their bytes are, they give right rows or a refusal, within bounds of time and
memory, and nothing is left half-written.

FUZZ_EXAMPLES=100000 tries so many of each kind, others at every run; by default it is the same few.
"""

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.generated import generated

from lightning_bnf.datamodules.reading.messages import looks_like_messages
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.records import read_file
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.stored import write_rows
from lightning_bnf.runtime.limits import limited
from lightning_bnf.runtime.refusal import Refusal

GENERATED = generated(300)
SECONDS = 60.0  # of a file of a few hundred bytes: far above what it takes on a busy machine

ODD = [
    "",
    " ",
    "\0",
    "\u2028",
    "\u2029",
    "\u0085",
    "\ud800",
    "<|im_end|>",
    "[{'role': 1}]",
    '"',
    "\r",
    "\ufeff",
    "1e999",
]
TEXTS = st.one_of(st.text(st.characters(), max_size=12), st.sampled_from(ODD), st.just("Hello there"))
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 2**63, 1e308, 1]))
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS)
MESSAGE_KEYS = st.sampled_from(["role", "content", "weight", "tool_calls", "name", "\ud800"])
ROLES = st.sampled_from(["user", "assistant", "system", "tool", None, ["user"]])
MESSAGES = st.lists(
    st.one_of(
        st.fixed_dictionaries({"role": ROLES, "content": st.one_of(TEXTS, LEAVES)}),
        st.dictionaries(MESSAGE_KEYS, LEAVES, max_size=3),
    ),
    max_size=4,
)
VALUES = st.recursive(
    st.one_of(LEAVES, MESSAGES),
    lambda held: st.one_of(st.lists(held, max_size=3), st.dictionaries(TEXTS, held, max_size=3)),
    max_leaves=6,
)
COLUMNS = (
    *("prompt", "chosen", "rejected", "completion", "label", "messages", "samples", "instruction", "output"),
    *("score_chosen", "all_rm_scores", "all_generated_responses", "verifier", "family", "prompt_id", "max_new_tokens"),
    *("kept_out", "other", "promt"),
)
NEEDED = (("prompt", "chosen", "rejected"), ("prompt", "completion", "label"), ("messages",), ("prompt",))


@st.composite
def rows_of_values(draw: Any) -> list[dict[str, Any]]:
    """Rows with the columns of a format and further ones, most values right."""
    columns = draw(st.sampled_from(NEEDED))
    likely = {"label": st.booleans(), "messages": MESSAGES, "family": TEXTS, "kept_out": st.booleans()}
    more = draw(st.lists(st.sampled_from(COLUMNS), max_size=3))
    fields = {
        column: st.one_of(likely.get(column, TEXTS), likely.get(column, TEXTS), VALUES)
        for column in dict.fromkeys([*columns, *more])
    }
    return draw(st.lists(st.fixed_dictionaries(fields), min_size=1, max_size=4))  # type: ignore[no-any-return]


def as_bytes(kind: str, rows: list[dict[str, Any]], escaped: bool) -> bytes:
    """The rows as a file of a kind; half surrogate pairs as bytes that are no UTF-8, where they are not escaped."""
    if kind == "csv":
        file = io.StringIO()
        writer = csv.DictWriter(file, [*dict.fromkeys(name for row in rows for name in row)])
        writer.writeheader()
        writer.writerows(rows)
        return file.getvalue().encode(errors="surrogatepass")
    if kind == "parquet":
        buffer = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), buffer)
        return buffer.getvalue()
    texts = [json.dumps(row, ensure_ascii=escaped) for row in rows]
    text = f"[{','.join(texts)}]" if kind == "json" else "\n".join(texts)
    content = text.encode(errors="surrogatepass")
    return gzip.compress(content, mtime=0) if kind == "jsonl.gz" else content


@st.composite
def files(draw: Any) -> tuple[str, bytes]:
    """A file's ending and its bytes: whole, never a file at all, or with a part cut out, doubled or flipped."""
    kind = draw(st.sampled_from(["jsonl", "jsonl", "json", "csv", "parquet", "jsonl.gz"]))
    if draw(st.integers(0, 9)) == 0:
        return kind, draw(st.binary(max_size=60))
    try:
        content = as_bytes(kind, draw(rows_of_values()), draw(st.booleans()))
    except Exception:  # what csv and pyarrow do not write is no file
        kind, content = "jsonl", b"{}"
    if draw(st.booleans()) or not content:
        return kind, content
    begin = draw(st.integers(0, len(content) - 1))
    end = draw(st.integers(begin, min(len(content), begin + 40)))
    part = draw(
        st.sampled_from([b"", content[begin:end] * 2, bytes(byte ^ 1 for byte in content[begin:end]), b"[" * 5000])
    )
    return kind, content[:begin] + part + content[end:]


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("generated")


@pytest.mark.slow
@GENERATED
@given(file=files())
def test_any_file_gives_rows_or_a_refusal(tokenizer: Any, folder: Path, file: tuple[str, bytes]) -> None:
    """Rows that are read are in range, have what their format has, and come back from the store as they were."""
    kind, content = file
    path = folder / f"rows.{kind}"
    path.write_bytes(content)
    with limited(SECONDS):
        try:
            rows, report = load_rows(str(path), tokenizer, DataOptions(allow_drop=1.0))
        except Refusal:
            return
        assert 0 < len(rows) == report.kept <= report.read
        report.texts(tokenizer).full.encode()
        for row in rows:
            assert all(0 <= token < len(tokenizer) for token in row.prompt_ids)
            assert len(row.completions) == {"paired": 2, "prompt": 0}.get(row.format, len(row.completions))
            for completion in row.completions:
                assert completion.label in (1, -1)
                assert len(completion.ids) == len(completion.completion_mask)
                assert any(completion.completion_mask)
        if any(kept.completions for kept in rows):
            assert rows[0].completions[0].ids[-1] == tokenizer.eos_token_id
        assert list(write_rows(folder / "rows.arrow", rows)) == rows
    assert sorted(entry.name for entry in folder.iterdir() if entry.name.startswith(".")) == []


@GENERATED
@given(
    written=st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=9).filter(str.strip) for _ in range(3)]), min_size=1
    ),
    kind=st.sampled_from(["jsonl", "json", "csv", "parquet", "jsonl.gz"]),
    escaped=st.booleans(),
)
def test_what_was_written_is_read(folder: Path, written: list[tuple[str, str, str]], kind: str, escaped: bool) -> None:
    """Texts of any characters, separators of lines and NUL among them, in every kind of file."""
    names = ("prompt", "chosen", "rejected")
    rows = [dict(zip(names, texts)) for texts in written]
    path = folder / f"whole.{kind}"
    path.write_bytes(as_bytes(kind, rows, escaped))
    unfit: list[Any] = []
    found = {row.source: row for row in read_file(str(path), unfit=unfit).rows}
    alike = sum(row["chosen"].strip() == row["rejected"].strip() for row in rows)
    assert len(unfit) == alike
    assert [(row.prompt, *(answer.text for answer in row.completions)) for row in found.values()] == [
        texts for texts in written if texts[1].strip() != texts[2].strip()
    ]
    assert not any(looks_like_messages(text) for texts in written for text in texts)
