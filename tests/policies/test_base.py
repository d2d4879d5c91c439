"""What every policy has in common."""

import pytest

from lightning_bnf.policies import FullPolicy


def test_before_loading_there_is_no_model(tiny_folder: str) -> None:
    with pytest.raises(RuntimeError, match="not loaded yet"):
        _ = FullPolicy(tiny_folder).causal_lm
