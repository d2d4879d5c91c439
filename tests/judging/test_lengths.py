"""Lengths in GPT-4o's tokens: by that vocabulary or not at all."""

from pathlib import Path

import pytest

from lightning_bnf.judging.lengths import gpt4o_length


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"vocabulary must be the file o200k_base.tiktoken, got .*nowhere"):
        gpt4o_length(tmp_path / "nowhere")
    (tmp_path / "o200k_base.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(ValueError, match="with other contents"):
        gpt4o_length(tmp_path / "o200k_base.tiktoken")
