"""Where a step's memory goes on one device and on several."""

from dataclasses import replace

from support.planned_runs import COST

from lightning_bnf.costs.plan.estimate import Devices, estimate
from lightning_bnf.costs.plan.step import Phase, StepCost


def parts(devices: Devices, cost: StepCost = COST) -> dict[str, float]:
    return {part.name: part.bytes for part in estimate(cost, devices).parts}


def test_one_device_holds_everything() -> None:
    assert parts(Devices("cuda")) == {
        "weights (float32)": 100,
        "adapters": 20,
        "reference copy": 60,
        "optimizer state": 80,
        "activations": 30,
        "head's tile, temporaries": 20,
    }
    assert estimate(COST, Devices("cuda")).total == 310


def test_the_phase_that_takes_most_is_taken() -> None:
    check = Phase("check before step 1", 0, 0, 200)
    found = estimate(replace(COST, phases=(*COST.phases, check)), Devices("cuda"))
    assert (found.phase, found.total) == ("check before step 1", 100 + 20 + 60 + 200)


def test_sharding_divides_what_is_held_and_ddp_does_not() -> None:
    found = parts(Devices("cuda", 4, "fsdp2"))
    assert found == {
        "weights (float32)": 25,
        "adapters": 5,
        "reference copy": 15,
        "gradients": 10,
        "optimizer state": 20,
        "activations": 30,
        "head's tile, temporaries": 20,
        "layers gathered at once": 7,
    }
    assert parts(Devices("cuda", 4, "ddp")) == parts(Devices("cuda")) | {"DDP's buckets": 40}
