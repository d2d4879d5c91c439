"""Runs beside each other: what they share, what differs, and files that are not written over."""

from pathlib import Path

import pytest
from support.page_runs import QUARTER, ROWS, row, write_completions, write_run

from lightning_bnf.cli.main import main
from lightning_bnf.pages.compare import compare, differences, names, page, same_prompts, sharing
from lightning_bnf.pages.compare_charts import NamedRun
from lightning_bnf.pages.run_folder import read_run
from lightning_bnf.runtime.refusal import Refusal


def test_a_page_of_two_runs(tmp_path: Path) -> None:
    bnf, dpo = write_run(tmp_path / "a"), write_run(tmp_path / "b", loss="DPO", rejected=QUARTER)
    output = tmp_path / "both.html"
    main(["compare", str(bnf), str(dpo), "--output", str(output)])
    html = output.read_text()
    for words in (
        "BNF and DPO on some/model",
        "2 runs: BNF (a), DPO (b)",
        "<td>+0.92</td><td>+0.69</td>",  # log(5/2) and log(2)
        "<td>0 \u2192 1 of 1</td>",
        '<th scope="row">rows that all runs share</th><td>2</td><td>2</td>',
        "The 2 rows that all runs have scored.",
        ">Margin gained</text>",
        ">Gained against chosen lost</text>",
        "model.loss.class_path",
        "lightning_bnf.losses.DPO",
    ):
        assert words in html, words


def test_rows_that_all_share_keep_their_own_scores(tmp_path: Path) -> None:
    third = row("third", "p", ["a"], ["b"])
    one = read_run(write_run(tmp_path / "a", [*ROWS, third]))
    other = read_run(write_run(tmp_path / "b", [third, ROWS[0]]))
    first, second = sharing([one, other])
    assert [held.id for held in first.rows] == [held.id for held in second.rows] == ["first", "third"]
    assert first.snapshots["end"].logps == [one.snapshots["end"].logps[i] for i in (0, 2)]
    assert second.snapshots["end"].logps == [other.snapshots["end"].logps[i] for i in (1, 0)]
    assert [held.id for held in sharing([one, other], rows=1)[1].rows] == ["first"]


def test_runs_without_common_data_are_refused(tmp_path: Path) -> None:
    one = read_run(write_run(tmp_path / "a"))
    other = read_run(write_run(tmp_path / "b", [row("third", "p", ["a"], ["b"])]))
    with pytest.raises(
        Refusal, match=r"runs must share rows that their pages show, got .*a with 2 rows of mine.jsonl;"
    ):
        page([one, other])
    with pytest.raises(Refusal, match=r"runs must be two run folders or more, got \['.*a'\]"):
        page([one])


def test_runs_of_the_same_files_are_compared_without_any_data(tmp_path: Path) -> None:
    folders = [str(write_run(tmp_path / name)) for name in "ab"]
    output = tmp_path / "both.html"
    compare(folders, str(output), rows=0)
    html = output.read_text()
    assert "This file holds data" not in html
    assert "3 + 4" not in html
    assert "Hello" not in html
    assert ">Accuracy in training</text>" in html


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / name)) for name in ("x/run", "y/run", "z")]
    dpo = read_run(write_run(tmp_path / "dpo", loss="DPO"))
    assert names([runs[0], dpo]) == ["BNF", "DPO"]
    assert names([runs[0], runs[2], dpo]) == ["BNF (run)", "BNF (z)", "DPO"]
    assert names(runs) == [f"BNF ({tmp_path / 'x/run'})", f"BNF ({tmp_path / 'y/run'})", "BNF (z)"]


def test_settings_that_differ(tmp_path: Path) -> None:
    runs = [read_run(write_run(tmp_path / loss, loss=loss)) for loss in ("BNF", "DPO")]
    runs[1].config["data"]["seed"] = 2
    assert differences(runs) == [
        ("model.loss.class_path", ["lightning_bnf.losses.BNF", "lightning_bnf.losses.DPO"]),
        ("data.seed", ["\u2013", "2"]),
    ]


def test_prompts_on_which_runs_disagree_come_first(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name) for name in "ab"]
    same = ("same", "x", True, "y", True)
    write_completions(folders[0], [same, ("words", "x", True, "y", True), ("verdict", "x", False, "y", True)])
    write_completions(folders[1], [same, ("words", "x", True, "z", True), ("verdict", "x", False, "y", False)])
    found = same_prompts([NamedRun.of(name, read_run(folder)) for name, folder in zip("ab", folders)])
    assert [prompt.prompt for prompt in found] == ["verdict", "words", "same"]
    assert [name for name, _ in found[0].after] == ["a", "b"]
    assert found[0].before == "x"


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    folders = [str(write_run(tmp_path / name)) for name in "ab"]
    output = tmp_path / "mine.html"
    output.write_text("<html>mine</html>")
    with pytest.raises(Refusal, match=r"output must be a new file or a page of lightning_bnf, got .*mine.html, which"):
        compare(folders, str(output))
    assert output.read_text() == "<html>mine</html>"
    compare(folders, str(tmp_path / "ours.html"))
    compare(folders, str(tmp_path / "ours.html"), rows=1)  # a page of ours is written anew
    assert "The 1 of 2 rows" in (tmp_path / "ours.html").read_text()
