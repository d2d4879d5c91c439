"""The bench's own rows."""

import json
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from lightning_bnf.costs.bench import data
from lightning_bnf.datamodules.tokens.load import load_rows


def test_rows_have_the_lengths_that_are_said() -> None:
    rows = data.pairs(64)
    assert rows == data.pairs(64)
    assert all(40 <= len(row["prompt"].split()) <= 160 for row in rows)
    assert all(20 <= len(row[side].split()) <= 120 for row in rows for side in ("chosen", "rejected"))
    assert [row["label"] for row in data.unpaired(rows)[:4]] == [True, False, True, False]


def test_rows_are_as_long_as_their_words_though_the_model_has_a_template(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(data.pairs(1)[0]) + "\n")
    (row,), _ = load_rows(str(path), tokenizer, data.AS_TEXT)
    assert tokenizer.decode(row.prompt_ids) == data.pairs(1)[0]["prompt"]
