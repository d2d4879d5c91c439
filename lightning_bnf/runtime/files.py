"""Where what is made once and used again is kept: converted models, tokenized data, reference log-probs."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """`$LIGHTNING_BNF_CACHE`, else `lightning_bnf` under the user's cache folder."""
    if explicit := os.environ.get("LIGHTNING_BNF_CACHE"):
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "lightning_bnf"
