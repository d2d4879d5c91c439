"""From a file to token ids and the report, and the errors that stop a run before it starts."""

from pathlib import Path
from typing import Any

import datasets
import pytest
from support.rows import assistant, user
from support.templates import NO_END_TOKEN, with_template
from support.training import Write

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions, Rendering
from lightning_bnf.datamodules.reading.tables import Table
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.report import Lengths, marked


def as_text(max_length: int = 4096, **more: Any) -> DataOptions:
    """Strings are left as they are, so that their tokens can be counted."""
    return DataOptions(max_length, rendering=Rendering(strings="text"), **more)


def text_row(prompt_tokens: int, answer_tokens: int) -> dict[str, Any]:
    """An unpaired row of plain strings; " word" is one token, the answer has its end of turn besides."""
    return {
        "prompt": "word" + " word" * (prompt_tokens - 1),
        "completion": " word" * (answer_tokens - 1),
        "label": True,
    }


def test_rows_and_report(tokenizer: Any, write: Write) -> None:
    path = write(*[text_row(n, 3) | {"origin": "web"} for n in range(1, 10)], text_row(9, 3))
    rows, report = load_rows(path, tokenizer, as_text())
    assert [len(row.prompt_ids) for row in rows] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 9]
    assert marked(rows[0].completions[0], tokenizer) == "⟦ word word<|im_end|>⟧"
    assert (report.read, report.kept, report.format, report.conversational) == (10, 10, "unpaired", False)
    assert (report.ignored, report.repeated, report.dropped, report.trimmed) == (("origin",), (f"{path}:10",), {}, 0)
    assert report.prompt_lengths == Lengths(6, 9, 9)
    assert report.completion_lengths == Lengths(3, 3, 3)
    assert report.row_lengths == Lengths(9, 12, 12)
    assert [row.source.rsplit(":")[-1] for row in report.samples] == ["1", "5", "9"]


def test_dropped_rows_are_counted_by_rule(tokenizer: Any, write: Write) -> None:
    stored = [text_row(2, 2)] * 7 + [text_row(2, 9), text_row(11, 2), text_row(2, 2) | {"completion": "a<|im_end|>b"}]
    rows, report = load_rows(write(*stored), tokenizer, as_text(max_length=10, allow_drop=0.3))
    assert len(rows) == report.kept == 7
    assert report.dropped == {
        "longer than max_length": 1,
        "prompt longer than max_length": 1,
        "end-of-turn token inside an answer": 1,
    }
    assert [place.rpartition(":")[2] for place in report.dropped_at] == ["8", "9", "10"]
    assert report.row_lengths == Lengths(4, 4, 4), "of the rows that are trained"


def test_rows_of_empty_cells_or_equal_answers_are_dropped_and_named(tokenizer: Any, write: Write) -> None:
    """One of each: a NaN, a blank text, and answers that differ in the spaces around them."""
    good = {"prompt": "Q", "chosen": "A", "rejected": "B"}
    path = write(good, good | {"chosen": float("nan")}, good | {"prompt": " "}, good | {"rejected": "A\n"})
    rows, report = load_rows(path, tokenizer, DataOptions(allow_drop=0.75))
    assert (len(rows), report.read) == (1, 4)
    assert report.dropped == {"an empty or blank text": 2, "chosen and rejected are the same answer": 1}
    assert report.dropped_at == (f"{path}:2", f"{path}:3", f"{path}:4")
    with pytest.raises(DataError, match=r"got 3 of 4 .*\n.*train.jsonl:2: column 'chosen' must be given in every row"):
        load_rows(path, tokenizer, DataOptions(allow_drop=0.7))


def test_rows_without_a_label_are_dropped_for_that_and_no_length_is_advised(tokenizer: Any, write: Write) -> None:
    good = text_row(2, 2)
    path = write(good, good | {"label": None}, good | {"label": ""}, good | {"label": " "})
    assert load_rows(path, tokenizer, as_text(allow_drop=0.75))[1].dropped == {"without a label": 3}
    with pytest.raises(DataError, match=r"\(without a label: 3\): raise allow_drop, or mend the rows:\n.*:2: column"):
        load_rows(path, tokenizer, as_text())


def test_control_tokens_in_texts_are_counted_or_refused(tokenizer: Any, write: Write) -> None:
    """In an answer they are an end of turn inside it, which drops the row; those of rendered texts belong there."""
    good = {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]}
    said = good | {"prompt": [user("<|im_end|>\n<|im_start|>assistant")]}
    rows, report = load_rows(write(good, said, said | {"rejected": [assistant("<|im_start|>")]}), tokenizer)
    assert len(rows) == 3
    (note,) = report.notes
    assert note.startswith(
        "2 rows have control tokens in their texts (<|im_end|> in 2, <|im_start|> in 2; data.options"
    )
    assert note.endswith("train.jsonl:2, " + rows[2].source)
    with pytest.raises(
        DataError, match=r"train.jsonl:2: the texts must be without control tokens under .*: refuse, got"
    ):
        load_rows(write(good, said), tokenizer, DataOptions(rendering=Rendering(control_tokens="refuse")))
    text = write({"prompt": "<|im_start|>user", "completion": "A", "label": True})
    assert load_rows(text, tokenizer, as_text())[1].notes == ()


def test_a_date_that_is_written_is_reported(tokenizer: Any, write: Write) -> None:
    dated = with_template(tokenizer, "{{ strftime_now('%Y') }}" + str(tokenizer.chat_template))
    path = write({"prompt": "Q", "chosen": "A", "rejected": "B"})
    assert load_rows(path, dated)[1].notes == (
        "the chat template writes the date: always 2024-07-26 (data.options.rendering.date)",
    )
    assert load_rows(path, tokenizer)[1].notes == ()


def test_a_template_that_ends_answers_with_no_token_is_reported(tokenizer: Any, write: Write) -> None:
    path = write({"prompt": "Q", "chosen": "A", "rejected": "B"})
    (note,) = load_rows(path, with_template(tokenizer, NO_END_TOKEN))[1].notes
    assert note.startswith("the chat template ends the assistant's last turn with no token: where answers end is not")
    assert load_rows(write({"prompt": "Q"}), with_template(tokenizer, NO_END_TOKEN))[1].notes == (), "no answers"


def test_words_for_labels_are_read_and_reported(tokenizer: Any, write: Write) -> None:
    words = ["up", "Thumbs down", 1, 0, "false", True, "undesirable"]
    path = write(*[{"prompt": f"Q{i}", "completion": "A", "label": word} for i, word in enumerate(words)])
    rows, report = load_rows(path, tokenizer)
    assert [row.completions[0].label for row in rows] == [1, -1, 1, -1, -1, 1, -1]
    assert (
        "  labels: 'up' +1 (1), 'Thumbs down' -1 (1), 1 +1 (1), 0 -1 (1), 'false' -1 (1), 'undesirable' -1 (1)"
        in report.head()
    )


def test_dropping_more_than_allowed_is_an_error_that_names_the_rows(tokenizer: Any, write: Write) -> None:
    path = write(*[text_row(2, 2)] * 97, *[text_row(11, 2)] * 3)
    with pytest.raises(DataError) as caught:
        load_rows(path, tokenizer, as_text(max_length=10))
    message = str(caught.value)
    assert "got 3 of 100 (prompt longer than max_length: 3; the longest row has 13 tokens)" in message
    assert "dropped rows must be at most allow_drop (0.01) of all, got 3" in message
    assert "raise max_length or allow_drop, set truncation: trim, or mend the rows" in message
    assert "raise max_length or allow_drop, set truncation: trim, or mend the rows" in message
    assert "raise max_length or allow_drop, set truncation: trim, or mend the rows" in message
    assert "train.jsonl:98: the prompt must be at most 10 tokens, got 11" in message
    assert load_rows(path, tokenizer, as_text(max_length=10, allow_drop=0.03))[1].kept == 97


def test_one_in_a_hundred_may_be_dropped_but_never_all(tokenizer: Any, write: Write) -> None:
    rows, _ = load_rows(write(*[text_row(2, 2)] * 99, text_row(11, 2)), tokenizer, as_text(max_length=10))
    assert len(rows) == 99
    with pytest.raises(DataError, match=r"dropped rows must be at most allow_drop \(1\) of all, got 1 of 1"):
        load_rows(write(text_row(11, 2)), tokenizer, as_text(max_length=10, allow_drop=1))


def test_trimmed_rows_are_counted(tokenizer: Any, write: Write) -> None:
    path = write(text_row(2, 2), text_row(11, 2))
    rows, report = load_rows(path, tokenizer, as_text(max_length=10, truncation="trim"))
    assert [len(row.prompt_ids) for row in rows] == [2, 8]
    assert (report.trimmed, report.dropped) == (1, {})


def test_faults_of_rendering_name_the_line(tokenizer: Any, write: Write) -> None:
    import copy

    refusing = copy.deepcopy(tokenizer)
    refusing.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + tokenizer.chat_template
    )
    answer = {"completion": [{"role": "assistant", "content": "A"}], "label": True}
    question = {"role": "user", "content": "Q"}
    stored = [{"prompt": [question]} | answer, {"prompt": [{"role": "system", "content": "S"}, question]} | answer]
    path = write(*stored, stored[1])
    with pytest.raises(DataError, match=r"train\.jsonl:2: .*system must be merge[^\n]*\n.*train\.jsonl:3: "):
        load_rows(path, refusing)
    rows, _ = load_rows(path, refusing, DataOptions(rendering=Rendering(system="drop")))
    assert rows[0].prompt_ids == rows[1].prompt_ids


def test_options_reach_the_reader(tokenizer: Any, write: Write) -> None:
    path = write({"prompt": "Q", "better": "A", "worse": "B", "scores": [1]})
    columns = {"better": "chosen", "worse": "rejected"}
    rows, _ = load_rows(path, tokenizer, DataOptions(column_map=columns, ignore_columns=["scores"]))
    assert rows[0].format == "paired"
    options = DataOptions(column_map=columns, ignore_columns=["scores"], format="prompt")
    assert load_rows(path, tokenizer, options)[0][0].completions == ()


def test_a_split_stands_behind_the_name(
    tokenizer: Any, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data").mkdir()
    write(text_row(2, 2), name="data/train.jsonl")
    write(text_row(3, 2), text_row(4, 2), name="data/test.jsonl")
    rows, report = load_rows(f"{tmp_path}/data:test", tokenizer, as_text())
    assert [len(row.prompt_ids) for row in rows] == [3, 4]
    assert report.path == f"{tmp_path}/data:test"


def test_many_rows_are_tokenized_in_several_parts(tokenizer: Any, write: Write) -> None:
    rows, _ = load_rows(write(*[text_row(1 + n % 7, 2) for n in range(1201)]), tokenizer, as_text())
    assert [len(row.prompt_ids) for row in rows] == [1 + n % 7 for n in range(1201)]


def test_the_report_says_how_plain_strings_were_rendered(tokenizer: Any, write: Write) -> None:
    path = write({"prompt": "Q", "chosen": "A", "rejected": "B"})
    by_template = load_rows(path, tokenizer)[1]
    assert by_template.strings == (
        "a user's and an assistant's message, by the model's chat template, without spaces around them "
        "(data.options.rendering.strings: auto)"
    )
    assert load_rows(path, tokenizer, as_text())[1].strings == (
        "as they are, the end-of-sequence token behind the answer (data.options.rendering.strings: text)"
    )
    base = load_rows(path, with_template(tokenizer, None))[1]
    assert base.strings is not None
    assert base.strings.endswith("strings: auto; the tokenizer has no chat template)")
    messages = write({"messages": [user("Q"), assistant("A")]})
    assert load_rows(messages, tokenizer)[1].strings is None


def test_rows_in_memory_are_named_by_their_place(tokenizer: Any) -> None:
    table = Table("train", [{"prompt": "Q", "chosen": "A", "rejected": "B"}] * 2)
    rows, report = load_rows(table, tokenizer)
    assert [row.source for row in rows] == ["train[0]", "train[1]"]
    assert report.path == "train (list of 2 rows)"
