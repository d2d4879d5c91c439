"""What runs leave: metrics and records of displacement."""

from typing import Any

CSV = """epoch,step,train/loss,train/logps_mean/chosen,val/loss,val/logps_mean/chosen
0,0,2.5,-1.0,,
0,1,1.5,-0.5,,
0,1,,,2.0,-0.75
"""


def collapse_records() -> list[dict[str, Any]]:
    """Two methods, two seeds: chosen 0 -> -1 and 0 -> -3 under one, no change under the other."""

    def record(method: str, seed: int, fall: float, alarms: dict[str, str]) -> dict[str, Any]:
        measured = [{"step": 0, "chosen": -1.0, "held_out": -4.0}, {"step": 2, "chosen": -1.0 - fall, "held_out": -4.5}]
        return {"method": method, "seed": seed, "results": {"displacement": {"measured": measured, "alarms": alarms}}}

    alarm = {"held_out": "step 2: held-out text has lost 0.50 nats"}
    return [record("a", 1, 1.0, alarm), record("a", 2, 3.0, {}), record("b", 1, 0.0, {}), record("b", 2, 0.0, {})]
