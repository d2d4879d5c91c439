"""What changed between two answers, word by word."""

from lightning_bnf.pages.changes import MOST_WORDS, changed_parts, most_telling, read_changes, unframed, visible


def record(
    before: str, after: str, before_passed: bool | None = None, after_passed: bool | None = None, **more: str
) -> dict:
    verdicts = {} if before_passed is None else {"before_passed": before_passed, "after_passed": after_passed}
    return {"prompt": "p", "before": before, "after": after, "decoding": "greedy", **verdicts, **more}


def test_words_that_are_gone_and_new() -> None:
    before, after = changed_parts("The sum is 8.", "The sum is 7, Ann.")
    assert before == [(False, "The sum is "), (True, "8"), (False, ".")]
    assert after == [(False, "The sum is "), (True, "7, Ann"), (False, ".")]
    assert "".join(text for _, text in after) == "The sum is 7, Ann."


def test_spaces_between_changed_words_are_of_the_change() -> None:
    before, after = changed_parts("It is red and blue.", "It was green and blue.")
    assert before == [(False, "It "), (True, "is red"), (False, " and blue.")]
    assert after == [(False, "It "), (True, "was green"), (False, " and blue.")]
    assert changed_parts("a b", "a- -b") == ([(False, "a b")], [(False, "a"), (True, "- -"), (False, "b")])
    assert changed_parts("a b", "a b\n") == ([(False, "a b")], [(False, "a b"), (True, "\n")])


def test_very_long_answers_are_not_compared_word_by_word() -> None:
    long = "word " * MOST_WORDS
    assert changed_parts(long, long) == ([(False, long)], [(False, long)])
    assert changed_parts(long, "word") == ([(True, long)], [(True, "word")])


def test_verdicts() -> None:
    found = read_changes([record("a", "b", False, True), record("a", "b", True, False), record("a", "a")])
    assert [change.verdict for change in found] == ["mended", "broken", ""]
    assert [change.same for change in found] == [False, False, True]


def test_changed_verdicts_come_first_then_changed_words_then_greedy_ones() -> None:
    records = [
        record("a", "a", True, True, prompt_id="same"),
        record("a", "b", True, True, prompt_id="sampled", decoding="sampled"),
        record("a", "b", True, True, prompt_id="words"),
        record("a", "b", True, False, prompt_id="broken"),
    ]
    found = most_telling(read_changes(records), 3)
    assert [change.prompt_id for change in found] == ["broken", "words", "sampled"]


def test_control_characters_are_pictures() -> None:
    assert visible("a\x00b\x7f\tc\nd\ud800") == "a\u2400b\u2421\tc\nd\ufffd"


def test_what_a_chat_template_writes_around_every_prompt_is_left_out() -> None:
    frame = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
    words = ["What is 1 + 1?", "What is 2 + 2?"]
    assert unframed([frame.format(word) for word in words]) == words
    assert unframed([frame.format("a")] * 2) == [frame.format("a")] * 2
    plain = ["Answer:\nWhat is 1?", "Answer:\nWhat is 2?"]
    assert unframed(plain) == plain
    assert unframed([]) == []
