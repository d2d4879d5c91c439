"""CSV and TSV files as spreadsheets and pandas write them: what cells mean, and which row is faulty."""

import csv
import json
from pathlib import Path
from typing import Any

import pandas
import pytest
from support.rows import answers, assistant, only, refused, user

from lightning_bnf.datamodules.reading.records import read_file, read_rows


@pytest.fixture
def path(tmp_path: Path) -> Any:
    def write(content: str | bytes, name: str = "train.csv") -> str:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(file)

    return write


def test_quotes_commas_and_line_breaks_inside_quotes(path: Any) -> None:
    content = 'prompt,chosen,rejected\r\n"Say ""hi"", then\nbye.",hi,"no, never"\r\n\r\nQ,A,B\r\n'
    first, second = read_rows(path(content))
    assert (first.prompt, answers(first)) == ('Say "hi", then\nbye.', [("hi", 1), ("no, never", -1)])
    places = [first.source.rpartition(":")[2], second.source.rpartition(":")[2]]
    assert places == ["2", "4 (line 5)"], "as spreadsheets count, and as editors do"


@pytest.mark.parametrize(
    ("content", "name"),
    [
        ("\ufeffprompt,chosen,rejected\nQ,A,B\n", "train.csv"),
        ("prompt;chosen;rejected\nQ;A;B\n", "train.csv"),
        ("prompt\tchosen\trejected\nQ\tA\tB\n", "train.csv"),
        ("prompt\tchosen\trejected\nQ\tA\tB", "train.tsv"),
        ('prompt, chosen, rejected\n"Q", "A", B\n', "train.csv"),
        (",prompt,chosen,rejected\n0,Q,A,B\n", "train.csv"),
        ("prompt,chosen,rejected\nQ,A,B\n,,\n\n", "TRAIN.CSV"),
    ],
    ids=["byte order mark", "semicolons", "tabs", "tsv", "spaces", "an index without name", "empty rows"],
)
def test_one_row_in_many_spellings(path: Any, content: str, name: str) -> None:
    row = only(path(content, name))
    assert (row.prompt, answers(row)) == ("Q", [("A", 1), ("B", -1)])


@pytest.mark.parametrize(
    ("cell", "label"),
    [("true", 1), ("FALSE", -1), ("1", 1), ("0", -1), ("+1", 1), ("-1", -1), ("1.0", 1), (" True ", 1)],
)
def test_labels(path: Any, cell: str, label: int) -> None:
    assert only(path(f"prompt,completion,label\nQ,A,{cell}\n")).completions[0].label == label


def test_numbers_lists_and_texts_by_their_columns(path: Any) -> None:
    header = "prompt,chosen,rejected,score_chosen,score_rejected,max_new_tokens,kept_out,prompt_id,family,verifier"
    row = only(path(f'{header}\n12,7,8,2.5,-1e-1,32,true,007,1.5,"{{""name"": ""number"", ""answer"": 7}}"\n'))
    assert (row.prompt, answers(row)) == ("12", [("7", 1), ("8", -1)]), "digits in a text stay text"
    assert [completion.numbers for completion in row.completions] == [{"reward": 2.5}, {"reward": -0.1}]
    assert (row.max_new_tokens, row.kept_out, row.prompt_id, row.family) == (32, True, "007", "1.5")
    assert row.verifier == {"name": "number", "answer": 7}


def test_messages_in_cells_are_json(path: Any, tmp_path: Path) -> None:
    messages = {"prompt": [user("Q")], "chosen": [assistant("A")], "rejected": [assistant("B")]}
    file = tmp_path / "messages.csv"
    with file.open("w", newline="") as stream:
        csv.writer(stream).writerows([list(messages), [json.dumps(value) for value in messages.values()]])
    row = only(str(file))
    assert (row.prompt, answers(row)) == ((user("Q"),), [([assistant("A")], 1), ([assistant("B")], -1)])
    pandas.DataFrame([messages]).to_csv(file, index=False)  # as Python writes lists
    refused(str(file), "messages.csv:2", "column 'prompt' must be a list in JSON, got", "[{'role'")
    assert only(path('prompt,chosen,rejected\nQ,"[INST] A","[1, 2]"\n')).prompt == "Q", "other brackets are text"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("prompt,chosen,rejected\nQ,A,B\nQ,A\n", ":3: must be 3 cells, as in the header, got 2 "),
        ("prompt,chosen,rejected\nQ,A,B, or C\n", ":2: must be 3 cells, as in the header, got 4 "),
        (
            "prompt,chosen,rejected\nQ,,B\n",
            ":2: column 'chosen' must be given in every row, got an empty cell",
        ),
        ("prompt,chosen,rejected\nQ,  ,B\n", ":2: column 'chosen' must be a text that is not blank"),
        (
            "prompt,completion,label\nQ,A,maybe\n",
            ":2: column 'label' must be true (preferred) or false (dispreferred)",
        ),
        (
            'prompt,chosen,rejected,score_chosen\nQ,A,B,"1,5"\n',
            ":2: column 'score_chosen' must be a finite number, with a point",
        ),
        ("prompt,chosen,rejected,score_chosen\nQ,A,B,nan\n", ":2: column 'score_chosen' must be a finite number"),
        ("prompt,chosen,rejected,score_chosen\nQ,A,B,1e999\n", ":2: column 'score_chosen' must be a finite number"),
        ("prompt,max_new_tokens\nQ,3.5\n", ":2: column 'max_new_tokens' must be a whole number, got '3.5'"),
        ("prompt,chosen,chosen\nQ,A,B\n", ":1: the header's names must differ, got chosen twice"),
        ('prompt,chosen,rejected\nQ,A,B\n"Q,A,B\n', ":3: must be CSV, with texts that hold quotes"),
        ('prompt,chosen,rejected\nQ,"A"nd,B\n', ":2: must be CSV, with texts that hold quotes"),
        (
            b"prompt,chosen,rejected\nQ,caf\xe9,B\n",
            "must be UTF-8 (in spreadsheets: save as CSV UTF-8), got byte b'\\xe9' in line 2",
        ),
        ("prompt,chosen,rejected\nQ,A,B\n".encode("utf-16"), "must be UTF-8"),
        ("prompt,chosen,rejected\n", "must be at least one row, got an empty file"),
        ("", "must be at least one row, got an empty file"),
    ],
)
def test_faults_name_the_row_and_the_column(path: Any, content: str | bytes, expected: str) -> None:
    refused(path(content), f"train.csv{expected}" if expected.startswith(":") else expected)


def test_faults_in_columns_that_nothing_reads_are_none(path: Any) -> None:
    found = read_file(path("prompt,chosen,rejected,label,length\nQ,A,B,maybe,long\n"))
    assert found.ignored == ("label", "length")


def test_long_cells_are_read_and_the_modules_own_limit_is_put_back(path: Any) -> None:
    before = csv.field_size_limit()
    assert len(str(only(path(f"prompt,chosen,rejected\n{'word ' * 50_000},A,B\n")).prompt)) == 250_000
    assert csv.field_size_limit() == before == 131_072


def test_csv_equals_json_lines(path: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f'Line\n"{i}", é', "chosen": f" {i}\t", "rejected": "B"} for i in range(30)]
    pandas.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here, there = (read_rows(str(tmp_path / name)) for name in ("rows.csv", "rows.jsonl"))
    assert [row.id for row in here] == [row.id for row in there]
