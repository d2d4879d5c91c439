"""Lengths in GPT-4o's tokens, in which Arena-Hard counts: by tiktoken and its own vocabulary, or not at all."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from lightning_bnf.runtime.refusal import Refusal

_URL = "https://openaipublic.blob.core.windows.net/encodings/o200k_base.tiktoken"
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"


def gpt4o_length(vocabulary: Path) -> Callable[[str], int]:
    """Counts a text's tokens. `vocabulary` is the file o200k_base.tiktoken, which is checked by its SHA-256: lengths by
    another tokenizer would be other numbers. Nothing is fetched."""
    try:
        content = Path(vocabulary).expanduser().read_bytes()
    except OSError as error:
        raise Refusal(f"vocabulary must be the file o200k_base.tiktoken, got {vocabulary} ({error})") from None
    if hashlib.sha256(content).hexdigest() != _SHA256:
        raise Refusal(f"vocabulary must be the file o200k_base.tiktoken, got {vocabulary} with other contents")
    try:
        import tiktoken
    except ImportError:
        raise Refusal("vocabulary must be read with tiktoken, got none: pip install 'lightning_bnf[eval]'") from None
    held = os.environ.get("TIKTOKEN_CACHE_DIR")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / hashlib.sha1(_URL.encode()).hexdigest()).write_bytes(content)  # as tiktoken names it
        os.environ["TIKTOKEN_CACHE_DIR"] = folder
        try:
            encoding = tiktoken.get_encoding("o200k_base")
        finally:
            os.environ.pop("TIKTOKEN_CACHE_DIR")
            if held is not None:
                os.environ["TIKTOKEN_CACHE_DIR"] = held
    return lambda text: len(encoding.encode(text, disallowed_special=()))
