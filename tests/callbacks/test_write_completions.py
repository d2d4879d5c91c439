"""The file of `predict`: an earlier one stays until the new one is whole."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from lightning_bnf.callbacks.write_completions import WriteCompletions


def test_an_earlier_file_stays_until_all_are_there(tmp_path: Path) -> None:
    trainer, module = cast(Any, SimpleNamespace(default_root_dir=tmp_path, global_rank=0)), cast(Any, None)
    held, going = tmp_path / "predictions_0.jsonl", tmp_path / "predictions_0.unfinished.jsonl"
    held.write_text("earlier")
    going.write_text("of a run that was killed")
    writer = WriteCompletions()
    writer.on_predict_start(trainer, module)
    writer.on_predict_batch_end(trainer, module, [{"completion": "é"}, {"completion": "b"}], None, 0)
    assert held.read_text() == "earlier"
    assert [json.loads(line)["completion"] for line in going.read_text().splitlines()] == ["é", "b"]
    writer.on_predict_batch_end(trainer, module, [{"completion": "c"}], None, 1)
    writer.on_predict_end(trainer, module)
    assert [json.loads(line)["completion"] for line in held.read_text().splitlines()] == ["é", "b", "c"]
    assert not going.exists()
