"""Files and folders appear whole or not at all, and what was there is never lost."""

import os
from pathlib import Path

import pytest

from lightning_bnf.runtime import files
from lightning_bnf.runtime.files import cache_folder, clear_unfinished, hidden_name, put_in_place, replacing, write_text


def write(path: Path, kind: str, text: str, keep: bool = False) -> None:
    with replacing(path, keep) as unfinished:
        assert unfinished.parent == path.parent, "a rename works within a disk only"
        if kind == "folder":
            (unfinished / "sub").mkdir(parents=True)
        (unfinished / "sub/text" if kind == "folder" else unfinished).write_text(text)


def content(path: Path) -> str:
    return (path / "sub/text" if path.is_dir() else path).read_text()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_the_whole_takes_the_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "new" / "name"
    for text in ("first", "second"):
        write(path, kind, text)
        assert content(path) == text
        assert [entry.name for entry in path.parent.iterdir()] == ["name"]


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_there_first_is_kept_where_asked_for(tmp_path: Path, kind: str) -> None:
    for text in ("first", "second"):
        write(tmp_path / "name", kind, text, keep=True)
    assert content(tmp_path / "name") == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["name"]


def test_a_file_system_without_links_keeps_what_was_there_first_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    for text in ("first", "second"):
        write(tmp_path / "name", "file", text, keep=True)
    assert content(tmp_path / "name") == "first"


def write_half(path: Path, kind: str) -> None:
    with replacing(path) as unfinished:
        if kind == "folder":
            unfinished.mkdir()
        (unfinished / "half" if kind == "folder" else unfinished).write_text("half")
        raise OSError(28, "No space left on device")


@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("before", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, kind: str, before: bool) -> None:
    path = tmp_path / "name"
    if before:
        write(path, kind, "first")
    with pytest.raises(OSError, match="No space left"):
        write_half(path, kind)
    assert [entry.name for entry in tmp_path.iterdir()] == (["name"] if before else [])
    assert not before or content(path) == "first"


@pytest.mark.parametrize(("there", "new"), [("file", "folder"), ("folder", "file")])
def test_neither_takes_the_place_of_the_other_kind(tmp_path: Path, there: str, new: str) -> None:
    write(tmp_path / "name", there, "first")
    with pytest.raises(OSError, match="directory"):
        write(tmp_path / "name", new, "second")
    assert content(tmp_path / "name") == "first"
    assert [entry.name for entry in tmp_path.iterdir()] == ["name"]


def test_a_folder_whose_rename_fails_is_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, unfinished = tmp_path / "name", tmp_path / "unfinished"
    write(path, "folder", "first")
    unfinished.mkdir()
    original = Path.rename

    def fails(self: Path, target: Path) -> Path:
        if self == unfinished:
            raise OSError(5, "Input/output error")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="Input/output"):
        put_in_place(unfinished, path)
    assert content(path) == "first"


def test_a_process_that_is_told_to_end_between_two_renames_puts_the_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, unfinished = tmp_path / "name", tmp_path / "unfinished"
    write(path, "folder", "first")
    unfinished.mkdir()
    original = Path.rename

    def told(self: Path, target: Path) -> None:
        original(self, target)
        raise SystemExit(143)

    monkeypatch.setattr(Path, "rename", told)
    with pytest.raises(SystemExit):
        put_in_place(unfinished, path)
    assert content(path) == "first"


def test_what_killed_processes_left_is_cleared_away(tmp_path: Path) -> None:
    """Half-written files and folders, an old folder beside the new one; but where the new one was not put in its place
    yet the old one gets its name back. What only looks alike stays."""
    for name, state in (("a", "unfinished"), ("new", "previous"), ("gone", "previous"), ("x" * 60, "previous")):
        write(hidden_name(tmp_path / name, state), "folder", name)
    write(tmp_path / "new", "folder", "newer")
    write(tmp_path / ".mine.unfinished.txt", "file", "mine")
    clear_unfinished(tmp_path.iterdir())
    left = {path.name: path for path in tmp_path.iterdir()}
    (cut,) = (name for name in left if name.startswith(".xxx"))
    assert set(left) == {"new", "gone", ".mine.unfinished.txt", cut}
    assert [content(left[name]) for name in ("new", "gone")] == ["newer", "gone"]


def test_contents_are_on_the_disk_before_the_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    monkeypatch.setattr(files, "_flush", lambda path: flushed.append(path.relative_to(tmp_path)))
    with replacing(tmp_path / "name") as unfinished:
        unfinished.mkdir()
        (unfinished / "a").touch()
    assert flushed == [Path(unfinished.name), Path(unfinished.name) / "a", Path(".")]


def test_hidden_names_are_hidden_unique_and_short_enough(tmp_path: Path) -> None:
    path = tmp_path / ("é" * 120)  # 240 bytes; file systems take 255
    first, second = hidden_name(path), hidden_name(path)
    assert first != second
    assert first.name.startswith(".é")
    first.touch()


def test_texts_are_utf_8(tmp_path: Path) -> None:
    write_text(tmp_path / "text", "é")
    assert (tmp_path / "text").read_bytes() == b"\xc3\xa9"


def test_the_cache_folder_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/user/cache")
    monkeypatch.delenv("LIGHTNING_BNF_CACHE", raising=False)
    assert cache_folder() == Path("/user/cache/lightning_bnf")
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", "/elsewhere")
    assert cache_folder() == Path("/elsewhere")
