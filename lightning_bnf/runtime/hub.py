"""The Hugging Face Hub. Whether it answers is asked once and with a limit: its libraries ask again and again for half a
minute, for each file, before they say that it does not."""

import functools
import re
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from huggingface_hub import HfApi, constants, get_session, snapshot_download

from lightning_bnf.runtime.refusal import Refusal

RepoType = Literal["model", "dataset"]

SECONDS = 5.0  # for a connection and for an answer
SECONDS_IN_ALL = 8.0  # looking up the name has no limit of its own


def why_not_asked(name: str, cached: bool) -> str | None:
    """Why the hub id `name` cannot be had, as words after "as"; None where the hub answers or `name` is cached.

    Without an answer, what is cached is taken from the cache from then on, in the whole process, and that is said.
    """
    if constants.is_offline_mode():
        return None if cached else "HF_HUB_OFFLINE is set"
    reason = unreachable(constants.ENDPOINT)
    if reason is None:
        return None
    why = f"{constants.ENDPOINT} cannot be reached ({reason})"
    if not cached:
        return why
    print(f"{why}: {name}, and whatever else is asked for, is taken from the cache", file=sys.stderr, flush=True)
    go_offline()
    return None


def go_offline() -> None:
    """What HF_HUB_OFFLINE does, for a process that has read it already."""
    constants.HF_HUB_OFFLINE = True
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = True


@functools.cache
def unreachable(endpoint: str) -> str | None:
    """Why an address does not answer, in a few words; None where it does, whatever it answers."""
    reasons: list[str | None] = []

    def ask() -> None:
        try:
            get_session().head(endpoint, timeout=SECONDS)
            reasons.append(None)
        except Exception as error:  # the session's library has changed before, and its exceptions with it
            reasons.append((str(error) or type(error).__name__).strip().split("\n")[0])

    asking = threading.Thread(target=ask, daemon=True)  # a lookup that hangs keeps nobody from ending
    asking.start()
    asking.join(SECONDS_IN_ALL)
    return reasons[0] if reasons else f"no answer within {SECONDS_IN_ALL:g} seconds"


def is_hub_id(where: str) -> bool:
    """Whether a place is `owner/name` on the hub, and no folder that is there or is named as one (`./a/b`)."""
    return re.fullmatch(r"[A-Za-z0-9_][\w.-]*/[\w.-]+", where) is not None and not Path(where).exists()


def fetch_folder(argument: str, where: str, kind: RepoType, files: Sequence[str], revision: str | None = None) -> Path:
    """Those files of a repository (patterns) as a folder in the hub's cache. Raises `Refusal`."""
    with _refusals(argument, f"{where!r}, a {kind} of the hub that can be read"):
        return Path(snapshot_download(where, repo_type=kind, revision=revision, allow_patterns=list(files)))


def has_file(argument: str, where: str, kind: RepoType, name: str) -> bool:
    """Whether there is a repository with such a file. Raises `Refusal` where the hub does not say."""
    with _refusals(argument, f"{where!r}, a {kind} of the hub that can be read"):
        return bool(HfApi().file_exists(where, name, repo_type=kind))


def check_push(argument: str, where: str, kind: RepoType, public: bool) -> None:
    """Raises `Refusal` where a push would show to everybody what is not meant to be `public`; made before the work."""
    with _refusals(argument, f"{where!r}, a {kind} of the hub that can be written"):
        api = HfApi()
        api.whoami()
        shown = api.repo_exists(where, repo_type=kind) and not api.repo_info(where, repo_type=kind).private
    if shown and not public:
        raise Refusal(f"{argument} must be a private {kind} of the hub, or public true, got {where}, which is public")


def push_folder(
    argument: str, where: str, kind: RepoType, folder: Path, public: bool, replaced: Sequence[str] = ()
) -> str:
    """Upload a folder as one commit into a repository, which is made where there is none, private unless `public`;
    its files by the patterns `replaced` go. Returns the commit's address. Raises `Refusal`."""
    check_push(argument, where, kind, public)
    with _refusals(argument, f"{where!r}, a {kind} of the hub that can be written"):
        api = HfApi()
        api.create_repo(where, repo_type=kind, private=not public, exist_ok=True)
        done = api.upload_folder(
            repo_id=where,
            repo_type=kind,
            folder_path=folder,
            commit_message="By lightning_bnf",
            delete_patterns=list(replaced) or None,
            ignore_patterns=[".*", "*.lock"],
        )
        return str(done.commit_url)


@contextmanager
def _refusals(argument: str, accepted: str) -> Iterator[None]:
    reason = unreachable(constants.ENDPOINT)
    if reason is not None:
        raise Refusal(f"{argument} must be a folder while {constants.ENDPOINT} cannot be reached ({reason})")
    try:
        yield
    except Refusal:
        raise
    except Exception as error:  # of the hub's library, its session's, or none at all
        told = (str(error) or type(error).__name__).strip().split("\n")[0]
        raise Refusal(f"{argument} must be {accepted}, got: {told}") from error
