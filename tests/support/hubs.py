"""A hub that is a folder: what the hub's library is asked, done to files."""

import fnmatch
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_bnf.runtime import hub


class FolderHub:
    """Repositories are folders below `root`, by kind and name; `public` names those that everybody sees."""

    def __init__(self, root: Path):
        self.root = root
        self.public: set[str] = set()
        self.writable = True

    def at(self, where: str, repo_type: str) -> Path:
        return self.root / repo_type / where

    def whoami(self) -> dict[str, str]:
        if not self.writable:
            raise OSError("Token is required, but no token found")
        return {"name": "me"}

    def repo_exists(self, where: str, repo_type: str) -> bool:
        return self.at(where, repo_type).is_dir()

    def repo_info(self, where: str, repo_type: str) -> Any:
        return SimpleNamespace(private=where not in self.public)

    def file_exists(self, where: str, name: str, repo_type: str) -> bool:
        return (self.at(where, repo_type) / name).is_file()

    def create_repo(self, where: str, repo_type: str, private: bool, exist_ok: bool) -> None:
        if not self.repo_exists(where, repo_type):
            self.at(where, repo_type).mkdir(parents=True)
            self.public |= set() if private else {where}

    def upload_folder(
        self,
        repo_id: str,
        repo_type: str,
        folder_path: Path,
        commit_message: str,
        delete_patterns: list[str] | None,
        ignore_patterns: list[str],
    ) -> Any:
        there = self.at(repo_id, repo_type)
        for path in [*there.iterdir()]:
            if any(fnmatch.fnmatch(path.name, pattern) for pattern in delete_patterns or ()):
                path.unlink()
        for path in folder_path.iterdir():
            if not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignore_patterns):
                shutil.copy(path, there / path.name)
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}")

    def snapshot_download(self, where: str, repo_type: str, revision: str | None, allow_patterns: list[str]) -> str:
        if not self.repo_exists(where, repo_type):
            raise OSError(f"404: there is no {where}")
        assert revision in (None, "main")
        return str(self.at(where, repo_type))


def folder_hub(root: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
    """The hub's library asks this hub from now on."""
    made = FolderHub(root)
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "snapshot_download", made.snapshot_download)
    monkeypatch.setattr(hub, "unreachable", lambda endpoint: None)
    return made
