"""The text that each token adds: together they are the whole text."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from lightning_bnf.pages.pieces import Pieces


def bytes_of(text: str) -> list[int]:
    return list(text.encode())


def as_bytes(ids: Sequence[int]) -> str:
    return bytes(ids).decode("utf-8", errors="replace")


def test_a_character_of_several_tokens_comes_with_the_last_of_them() -> None:
    assert Pieces(as_bytes).of(bytes_of("aé€b")) == ["a", "", "é", "", "", "€", "b"]


def test_a_space_that_only_a_first_token_lacks_is_kept() -> None:
    words = {1: "the", 2: "cat"}

    def decode(ids: Sequence[int]) -> str:
        return " ".join(words[i] for i in ids)

    assert Pieces(decode).of([1, 2, 2]) == ["the", " cat", " cat"]


def test_bytes_that_never_become_a_character_are_shown_as_what_they_are() -> None:
    broken = [*bytes_of("a"), 0xFF, 0xFF, 0xFF, 0xFF, *bytes_of("b")]
    assert "".join(Pieces(as_bytes).of(broken)) == "a\ufffd\ufffd\ufffd\ufffdb"


def test_the_bundled_tokenizer(tokenizer: PreTrainedTokenizerBase) -> None:
    text = "Hello Ann! \U0001f600 \u05e9\u05dc\u05d5\u05dd 12 \u4f60\u597d<|im_end|>"
    ids = tokenizer(text)["input_ids"]

    def decode(some: Sequence[int]) -> str:
        return str(tokenizer.decode(list(some), clean_up_tokenization_spaces=False))

    pieces = Pieces(decode).of(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == text
    assert pieces[:2] == ["Hello", " Ann"]
