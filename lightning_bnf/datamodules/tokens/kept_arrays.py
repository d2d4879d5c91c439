"""Arrays that a pass over all rows makes, kept on disk for the next run with the same rows."""

import hashlib
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_bnf.runtime.files import Unwritable, cache_folder, replacing

FROM = 2000  # rows; of fewer the pass takes no longer than the file
_DIGEST = hashlib.sha256().digest_size


def kept_array(name: str, key: bytes, rows: int, make: Callable[[], NDArray[Any]], type: Any) -> NDArray[Any]:
    """(rows,) what `make` gives, as `type`: below the user's cache folder from the first time on.

    name: what it is; a folder of that name holds them. key: of all that it depends on, the version of `make` included.
    A file that is not as it was written is made anew; where the disk takes none there is none.
    """
    if rows < FROM:
        return make().astype(type)
    path = cache_folder() / name / hashlib.sha256(key).hexdigest()[:32]
    content = path.read_bytes() if path.is_file() else b""
    digest, held = content[:_DIGEST], content[_DIGEST:]
    if len(held) == rows * np.dtype(type).itemsize and hashlib.sha256(held).digest() == digest:
        return np.frombuffer(held, dtype=type)
    found = make().astype(type)
    with suppress(Unwritable), replacing(path) as unfinished:
        unfinished.write_bytes(hashlib.sha256(found.tobytes()).digest() + found.tobytes())
    return found
