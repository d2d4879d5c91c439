"""A folder that a stranger's files lie in is not written into, and never replaced."""

import subprocess
import sys
from pathlib import Path

import pytest

from lightning_bnf.runtime.files import hidden_name
from lightning_bnf.runtime.ownership import (
    MARK,
    check_claim,
    check_replaceable,
    claim,
    foreign,
    hold,
    holds_run,
    mark_contents,
    move_aside,
    take_back,
)
from lightning_bnf.runtime.refusal import Refusal


@pytest.fixture
def letters(tmp_path: Path) -> Path:
    folder = tmp_path / "letters"
    folder.mkdir()
    for name in ("a.txt", "b.txt", "c.txt", "d.txt"):
        (folder / name).write_text("Dear ...")
    return folder


def test_a_new_or_empty_folder_is_claimed_and_claimed_again(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new/below"):
        claim("output", tmp_path / name, "prepare")
        (tmp_path / name / "rows.jsonl").write_text("{}")
        claim("output", tmp_path / name, "prepare")
        assert {path.name for path in (tmp_path / name).iterdir()} == {MARK, "rows.jsonl"}


def test_a_strangers_folder_is_refused_and_stays_as_it_was(letters: Path) -> None:
    with pytest.raises(Refusal, match=r"^output must be a new or empty folder.*holds a.txt, b.txt, c.txt and 1 more$"):
        claim("output", letters, "prepare")
    assert sorted(path.name for path in letters.iterdir()) == ["a.txt", "b.txt", "c.txt", "d.txt"]


def test_another_commands_folder_is_a_strangers(tmp_path: Path) -> None:
    claim("output", tmp_path / "out", "prepare")
    with pytest.raises(Refusal, match=r"one that `fit` wrote, got .*out"):
        claim("folder", tmp_path / "out", "fit")


def test_a_run_from_before_there_were_marks_is_known_by_its_config(letters: Path) -> None:
    (letters / "config.yaml").write_text("model: {class_path: lightning_bnf.x}")
    with pytest.raises(Refusal):
        claim("folder", letters, "fit", signs=("another_package",))
    claim("folder", letters, "fit", signs=("lightning_bnf",))


def test_a_run_is_known_by_its_mark_or_its_metrics(letters: Path, tmp_path: Path) -> None:
    (letters / "config.yaml").write_text("model: {class_path: lightning_bnf.x}")
    claim("output", tmp_path / "pairs", "prepare")
    assert not holds_run(letters)
    assert not holds_run(tmp_path / "pairs")
    (letters / "metrics.csv").write_text("")
    claim("folder", tmp_path / "run", "fit")
    assert holds_run(letters)
    assert holds_run(tmp_path / "run")


def test_a_file_is_no_folder(letters: Path) -> None:
    with pytest.raises(Refusal, match=r"output must be a folder, got .*a.txt \(Not a directory\)"):
        claim("output", letters / "a.txt", "prepare")
    with pytest.raises(Refusal, match="output must be a folder"):
        claim("output", letters / "a.txt" / "below", "prepare")


def test_what_was_added_or_changed_since_is_foreign(letters: Path) -> None:
    assert foreign(letters) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    (letters / "below").mkdir()
    (letters / "below/e.bin").write_bytes(b"0" * 2**21)
    mark_contents(letters, "export")
    assert foreign(letters) == []
    (letters / "a.txt").write_text("Dear M.")
    (letters / "below/f.txt").write_text("")
    (letters / "link").symlink_to("/")
    assert foreign(letters) == ["a.txt", "below/f.txt", "link"]


def test_only_what_was_written_and_left_alone_is_replaced(
    tmp_path: Path, letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_replaceable("folder", tmp_path / "new")
    with pytest.raises(Refusal, match=r"^folder must be a new or empty.* holds a.txt, b.txt, c.txt and 1 more"):
        check_replaceable("folder", letters)
    mark_contents(letters, "export")
    check_replaceable("folder", letters)
    (tmp_path / "link").symlink_to(letters)
    for name in ("link", "letters/a.txt"):
        with pytest.raises(Refusal, match=r"must be a folder or a name that is free"):
            check_replaceable("folder", tmp_path / name)
    (letters / "below").mkdir()
    monkeypatch.chdir(letters / "below")
    for folder in (Path(".."), Path("."), Path("/")):
        with pytest.raises(Refusal, match=r"must be another folder than the one this command runs in"):
            check_replaceable("folder", folder)


def test_a_broken_mark_is_none(letters: Path) -> None:
    for text in ("", "[1]", '{"files": 3}', "\udc80"):
        (letters / MARK).write_bytes(text.encode("utf-8", "surrogateescape"))
        assert len(foreign(letters)) == 4
        with pytest.raises(Refusal):
            claim("output", letters, "prepare")


def test_a_claim_that_came_to_nothing_is_taken_back(letters: Path) -> None:
    aside = move_aside(letters)
    claim("folder", letters, "fit")
    (letters / "events.out.1").write_text("")
    take_back(letters, aside, ["events.out.*"])
    assert sorted(path.name for path in letters.iterdir()) == ["a.txt", "b.txt", "c.txt", "d.txt"]
    assert not aside.exists()
    new = letters.with_name("new")
    claim("folder", new, "fit")
    take_back(new, None, [])
    assert not new.exists()


def test_what_has_become_of_a_claim_is_not_taken_back(letters: Path) -> None:
    aside = move_aside(letters)
    claim("folder", letters, "fit")
    (letters / "metrics.csv").write_text("1")
    take_back(letters, aside, ["events.out.*"])
    assert (letters / "metrics.csv").exists()
    assert len(list(aside.iterdir())) == 4


def test_the_first_free_number_is_taken(letters: Path) -> None:
    letters.with_name("letters.1").mkdir()
    assert move_aside(letters) == letters.with_name("letters.2")
    assert len(list(letters.with_name("letters.2").iterdir())) == 4


def test_a_folder_is_held_until_its_holder_is_gone(tmp_path: Path) -> None:
    """By one process alone: another is refused, whatever it is; a killed one leaves nothing to clean up."""
    code = (
        "import pathlib, sys; from lightning_bnf.runtime.ownership import hold\n"
        "lock = hold('x', pathlib.Path(sys.argv[1])); print('held', flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(
        Refusal, match=f"^x must be a folder that no other run is writing into, got {tmp_path}, where one"
    ):
        hold("x", tmp_path)
    holder.kill()
    holder.communicate()
    hold("x", tmp_path).release()
    hold("x", tmp_path).release()


def test_a_folder_below_a_file_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        Refusal, match=f"x must be in a folder that can be written, got {tmp_path}/file/new/policy, above"
    ):
        check_replaceable("x", tmp_path / "file" / "new" / "policy")


def test_a_claim_that_was_killed_is_made_again_and_its_rest_goes(tmp_path: Path) -> None:
    """Killed before the mark had its name, when the folder holds nothing but it; and in the middle of a checkpoint."""
    hidden_name(tmp_path / ".lightning_bnf").touch()
    check_claim("x", tmp_path, "fit")
    claim("x", tmp_path, "fit")
    (tmp_path / "checkpoints").mkdir()
    hidden_name(tmp_path / "checkpoints" / "step=1.ckpt").touch()
    half = hidden_name(tmp_path / "merged")
    half.touch()
    hold("x", tmp_path).release()
    assert list((tmp_path / "checkpoints").iterdir()) == []
    assert half.exists(), "an export that is at work"
