"""Columns by other names: renamed, misspelled, or known from elsewhere."""

import pytest
from support.rows import GOOD, answers, assistant, only, refused, user
from support.training import Write


def test_column_map_is_from_the_files_names_to_ours(write: Write) -> None:
    row = only(
        write({"question": "Q", "better": "A", "worse": "B", "prompt": "not this"}),
        column_map={"question": "prompt", "better": "chosen", "worse": "rejected"},
    )
    assert (row.prompt, answers(row)) == ("Q", [("A", 1), ("B", -1)])


def test_columns_can_change_places(write: Write) -> None:
    path = write({"prompt": "Q", "chosen": "A", "rejected": "B"})
    row = only(path, column_map={"chosen": "rejected", "rejected": "chosen"})
    assert answers(row) == [("B", 1), ("A", -1)]


@pytest.mark.parametrize(
    ("given", "corrected"),
    [
        ({"chosen": "better", "rejected": "worse"}, "{better: chosen, worse: rejected}"),
        ({"prompt": "the question"}, '{"the question": prompt}'),
        ({"prompt": "system"}, "{system: prompt}"),
    ],
)
def test_the_other_direction_is_refused_with_the_corrected_map(
    write: Write, given: dict[str, str], corrected: str
) -> None:
    path = write({"the question": "Q", "system": "S", "better": "A", "worse": "B"})
    refused(path, f"column_map must be from the file's names to ours, {corrected}, got", column_map=given)


def test_column_map_errors(write: Write) -> None:
    path = write({"prompt": "Q", "better": "A", "good": "C", "rejected": "B"})
    refused(path, "'choosen'", "did you mean 'chosen'", column_map={"better": "choosen"})
    refused(path, "'beter'", "did you mean 'better'", column_map={"beter": "chosen"})
    refused(path, "to different ones, got chosen twice", column_map={"better": "chosen", "good": "chosen"})


@pytest.mark.parametrize(
    ("columns", "suggested"),
    [
        ("question better worse", "{better: chosen, worse: rejected, question: prompt}"),
        ("query Preferred dispreferred source", "{Preferred: chosen, dispreferred: rejected, query: prompt}"),
        ("prompt winner loser", "{winner: chosen, loser: rejected}"),
        ("query positive negative", "{positive: chosen, negative: rejected, query: prompt}"),
        ("question answer", "{question: prompt, answer: completion}"),
        ("question response label", "{question: prompt, response: completion}"),
        ("Question Best-Answer Worst-Answer", '{"Best-Answer": chosen, "Worst-Answer": rejected, Question: prompt}'),
        ("Prompt Chosen Rejected", "{Chosen: chosen, Prompt: prompt, Rejected: rejected}"),
        ("dialogue id", "{dialogue: messages}"),
    ],
)
def test_a_map_is_suggested_for_known_sets_and_works_when_it_is_pasted(
    write: Write, columns: str, suggested: str
) -> None:
    import yaml

    row: dict[str, object] = {column: f"text of {column}" for column in columns.split()}
    if "dialogue" in row:
        row["dialogue"] = [user("Q"), assistant("A")]
    if "label" in row:
        row["label"] = True
    path = write(row)
    message = refused(path, f"add --data.options.column_map '{suggested}'")
    pasted = yaml.safe_load(message.rpartition("column_map '")[2].partition("'")[0])
    assert only(path, column_map=pasted).completions


def test_a_suggested_map_adds_to_the_given_one(write: Write) -> None:
    path = write({"ask": "Q", "better": "A", "worse": "B"})
    refused(
        path, "--data.options.column_map '{ask: prompt, better: chosen, worse: rejected}'", column_map={"ask": "prompt"}
    )


@pytest.mark.parametrize("columns", ["better worse", "a b c", "prompt response_a response_b", "prompt answer"])
def test_what_is_not_certain_is_not_suggested(write: Write, columns: str) -> None:
    path = write(dict.fromkeys(columns.split(), "text"))
    if "prompt" in columns:
        assert only(path).format == "prompt"
        return
    first, second = columns.split()[:2]
    syntax = f"--data.options.column_map, the file's first, such as '{{{first}: prompt, {second}: completion}}'"
    assert "add --data" not in refused(path, "match no format", f"other names through {syntax}")


SAID = {"user": "What is 3 + 4?", "better": "It is 7.", "worse": "It is 8."}


@pytest.mark.parametrize("value", ["u17", 17, "anna@example.org"])
def test_a_user_that_is_no_text_is_no_prompt(write: Write, value: object) -> None:
    refused(write(SAID), "{better: chosen, worse: rejected, user: prompt}")
    assert "user: prompt" not in refused(write(SAID | {"user": value}), "match no format", "such as '{better: prompt, ")


def test_a_message_that_is_a_string_is_no_list_of_messages(write: Write) -> None:
    said = {"message": [user("Q"), assistant("A")], "id": "a b c"}
    refused(write(said), "add --data.options.column_map '{message: messages}'")
    refused(write({"chat": [user("Q"), assistant("A")]}), "add --data.options.column_map '{chat: messages}'")
    for name in ("message", "chat"):
        message = refused(write({name: "How are you?", "reply": "I am well."}), "match no format")
        assert "messages" not in message.partition("must be")[0]
        assert f"such as '{{{name}: prompt, reply: completion}}'" in message
    assert only(write(GOOD | {"message": "a note"})).format == "paired"


def test_how_a_map_is_written_is_shown_with_the_files_names_texts_first(write: Write) -> None:
    import yaml

    row = {"Id": 3, "Customer message": "Where is it?", "Agent reply": "On its way.", "Other reply": "No idea, sorry."}
    path = write({"Id": None}, row)
    shown = '{"Customer message": prompt, "Agent reply": chosen, "Other reply": rejected}'
    refused(path, f"other names through --data.options.column_map, the file's first, such as '{shown}'")
    assert answers(only(write(row), column_map=yaml.safe_load(shown))) == [("On its way.", 1), ("No idea, sorry.", -1)]
    given = {"Other reply": "family"}
    refused(
        path, """'{"Other reply": family, "Customer message": prompt, "Agent reply": completion}'""", column_map=given
    )
    labelled = '{"Customer message": prompt, "Agent reply": completion'
    refused(path, f"such as '{labelled}, \"Other reply\": label}}'", format="unpaired")
    refused(write(row | {"label": True}), f"such as '{labelled}}}'")


def test_columns_that_nothing_reads_may_hold_anything(write: Write) -> None:
    assert only(write(GOOD | {"conversations": [{"from": "human", "value": "Q"}]})).format == "paired"


@pytest.mark.parametrize(
    ("columns", "wrong", "right"),
    [
        (("prompt", "choosen", "rejected"), "'choosen'", "'chosen'"),
        (("promt", "chosen", "rejected"), "'promt'", "'prompt'"),
        (("prompt", "completion", "labels"), "'labels'", "'label'"),
        (("prompt", "Chosen", "rejected"), "'Chosen'", "'chosen'"),
        (("prompt", "completion", "label", "verifer"), "'verifer'", "'verifier'"),
    ],
)
def test_misspelled_columns(write: Write, columns: tuple[str, ...], wrong: str, right: str) -> None:
    refused(write(dict.fromkeys(columns, "x")), "train.jsonl", f"unknown column {wrong}", f"did you mean {right}")


def test_a_resembling_column_can_be_ignored_by_name(write: Write) -> None:
    path = write(GOOD | {"scores": [1, 2]})
    refused(path, "'scores'", "ignore_columns")
    assert only(path, ignore_columns=["scores"]).format == "paired"


def test_columns_that_match_no_format(write: Write) -> None:
    refused(
        write({"question": "Q", "answer": "A"}), "train.jsonl", "question", "answer", "no format", "chosen and rejected"
    )


@pytest.mark.parametrize(("value", "is_prompt"), [("为什么天空是蓝色的?", True), ("Zoë", False), ("u-1029", False)])
def test_a_text_needs_no_spaces_in_other_scripts(write: Write, value: str, is_prompt: bool) -> None:
    message = refused(write({"user": value, "answer": "天空 是 蓝色的"}), "match no format")
    assert ("add --data.options.column_map '{user: prompt, answer: completion}'" in message) == is_prompt
