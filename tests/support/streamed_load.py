"""A load that is stopped in its middle, in a process of its own."""

import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightning_bnf.datamodules.reading import files
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens import stored, streamed
from lightning_bnf.runtime import pools
from lightning_bnf.runtime.processes import ended_by_sigterm


def load_until_told(path: str, cache: str, tokenizer: Any, options: DataOptions) -> None:
    """The file by two processes; after two batches it says so, and waits for the end."""

    def merged(batches: Iterable[Any]) -> Iterator[Any]:
        for count, batch in enumerate(batches):
            if count == 2:
                (Path(cache) / "middle").touch()
                time.sleep(600)
            yield batch

    files.STREAMED_FROM, pools.START, streamed.AT_ONCE = 0, "forkserver", 100
    stored.cache_folder, stored.merged = lambda: Path(cache), merged  # type: ignore[assignment]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with ended_by_sigterm():
        stored.load_stored(path, tokenizer, replace(options, processes=2), ())
