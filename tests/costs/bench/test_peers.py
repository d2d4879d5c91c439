"""TRL's steps under the bench."""

import pytest
from support.turns import Few

from lightning_bnf.costs.bench import peers, steps
from lightning_bnf.costs.bench.workers import Over

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("trainer", "precomputed"), [("DPO", False), ("DPO", True), ("KTO", False), ("SFT", False)])
def test_trls_steps_run(tiny_folder: str, trainer: str, precomputed: bool) -> None:
    turns = Few(2)
    with pytest.raises(Over):
        peers.trl(turns, steps.Workload(tiny_folder, rows=4, pairs=2), trainer, precomputed)
    assert len(turns.told) == 2
