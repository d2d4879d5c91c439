"""Reference caches that travel: who has the numbers of a reference trains beside it without running it.

A cache goes into a folder or a dataset of the hub, and comes from there, whole or added to what is there already. Its
manifest travels with it: which weights, tokenizer, template and precision its numbers are of. Completions are known by
the hashes of their token ids, so that no text travels.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.runtime.arguments import checked
from lightning_bnf.runtime.files import cache_folder
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.hub import check_push, fetch_folder, has_file, is_hub_id, push_folder
from lightning_bnf.runtime.refusal import Refusal

MANIFEST = "manifest.json"
FILES = (MANIFEST, "values-*.f32", "keys-*.bin")


@checked
@dataclass(frozen=True)
class Travel:
    """Where the cache comes from and goes to.

    Args:
        pull: Folder, or dataset of the hub (`owner/name`), with a cache of the same reference: what it holds is not
            computed again.
        revision: Commit, tag or branch of a hub dataset to pull.
        push: Folder, or dataset of the hub, that the cache is added to when it is whole. A new dataset is private.
        public: Whether the dataset that is pushed may be seen by everybody.
    """

    pull: str | None = None
    revision: str | None = None
    push: str | None = None
    public: bool = False

    def __post_init__(self) -> None:
        if self.revision is not None and not (self.pull and is_hub_id(self.pull)):
            raise Refusal(f"revision must be null unless pull is a dataset of the hub, got {self.revision!r}")
        if self.public and not (self.push and is_hub_id(self.push)):
            raise Refusal("public must be false unless push is a dataset of the hub, got true")

    def check(self) -> None:
        """Raises `Refusal` for what could not be pushed to in the end, before hours of work."""
        if self.push is not None and is_hub_id(self.push):
            check_push("push", self.push, "dataset", self.public)
        elif self.push is not None and (folder := Path(self.push)).exists():
            _manifest("push", folder, empty=True)


def pulled(travel: Travel, folder: str | None) -> Path:
    """Add what is pulled to the cache in `folder`; None is the place where a run looks for this reference's. Returns
    it. Raises `Refusal` for what is no cache, and `DataError` for a damaged one or another reference's."""
    assert travel.pull is not None
    source = Path(travel.pull)
    if is_hub_id(travel.pull):
        source = fetch_folder("pull", travel.pull, "dataset", FILES, travel.revision)
    manifest = _manifest("pull", source)
    own = {name: value for name, value in manifest.items() if name != "format"}
    target = Path(folder) if folder else cache_folder() / "reference" / content_hash(own)
    there = LogpsCache(source, own)
    count = _taken(LogpsCache(target, own), there)
    print(f"{count:,} of {len(there):,} completions of {travel.pull} added to {target}")
    return target


def push(travel: Travel, cache: LogpsCache) -> None:
    """Add a cache to the folder or dataset of `travel.push`. Raises as `pulled`."""
    assert travel.push is not None
    own = {name: value for name, value in cache.manifest.items() if name != "format"}
    if not is_hub_id(travel.push):
        count = _taken(LogpsCache(travel.push, own), cache)
        print(f"{count:,} of {len(cache):,} completions added to {travel.push}")
        return
    with tempfile.TemporaryDirectory() as scratch:
        whole = LogpsCache(scratch, own)
        if has_file("push", travel.push, "dataset", MANIFEST):
            there = fetch_folder("push", travel.push, "dataset", FILES)
            _manifest("push", there)
            whole.take(LogpsCache(there, own))
        count = whole.take(cache)
        (Path(scratch) / "README.md").write_text(_card(whole, travel.push), encoding="utf-8")
        address = push_folder("push", travel.push, "dataset", Path(scratch), travel.public, FILES[1:])
    print(f"{count:,} of {len(cache):,} completions added to {address}")


def _taken(into: LogpsCache, source: LogpsCache) -> int:
    try:
        with FileLock(into.folder / "writing.lock", timeout=0):
            into.reload(mend=True)
            return into.take(source)
    except Timeout:
        raise Refusal(
            f"the cache {into.folder} must be idle, got one that a run is filling: wait for its end"
        ) from None


def _manifest(argument: str, folder: Path, empty: bool = False) -> dict[str, str]:
    path = folder / MANIFEST
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        if empty and folder.is_dir() and not any(folder.iterdir()):
            return {}
        accepted = "a new or empty folder or a reference cache" if empty else "a reference cache"
        raise Refusal(f"{argument} must be {accepted}, got {folder}, which holds no {MANIFEST}") from error
    except (OSError, ValueError, TypeError) as error:
        raise Refusal(f"{argument} must be a reference cache, got {folder}, whose {MANIFEST} is damaged") from error


def _card(cache: LogpsCache, name: str) -> str:
    lines = "\n".join(f"| {key} | `{value}` |" for key, value in cache.manifest.items())
    return f"""---
tags: [lightning-bnf]
---
# Log-probs of a reference model

{len(cache):,} completions, a float32 number (nats) for each of their tokens, by the hashes of their token ids; no text.
Training beside this reference needs no pass of it:

```bash
python -m lightning_bnf cache --config FILE --pull {name}
```

| | |
|---|---|
{lines}
"""
