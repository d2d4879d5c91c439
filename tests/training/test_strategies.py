"""What goes with what: the README's table is made by the rules that refuse, and every cell of it is run."""

import pytest
from lightning.pytorch.strategies import FSDPStrategy

from lightning_bnf.training.strategies import parallelism_of
from lightning_bnf.training.support import Combination


def test_other_strategies_are_refused() -> None:
    with pytest.raises(ValueError, match="strategy FSDPStrategy: accepted are auto, ddp and fsdp2"):
        parallelism_of(FSDPStrategy())


@pytest.mark.parametrize("attention", ["flex_attention", "flash_attention_2"])
def test_attention_for_gpus_is_refused_on_a_cpu(attention: str) -> None:
    found = [
        Combination("lora", "one device", "none", "32-true", kind, attention).refusal() for kind in ("cpu", "cuda")
    ]
    assert found == [f"attention {attention!r} on a CPU, for which it is not made: accepted are sdpa and eager", None]
