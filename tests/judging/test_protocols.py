"""The protocols' numbers, as published."""

from lightning_bnf.judging.protocols import PROTOCOLS


def test_numbers() -> None:
    held = {name: (one.both, one.temperature, one.max_tokens, one.attempts) for name, one in PROTOCOLS.items()}
    assert held == {
        "pairs": (True, 0.0, 1024, 1),
        "arena_hard_v0.1": (True, 0.0, 4096, 2),
        "arena_hard_v2": (True, 0.0, 16000, 1),
        "wildbench": (False, 0.0, 1024, 1),
        "wildbench_pairs": (False, 0.0, 1024, 1),
        "alpaca_eval_2": (False, 1.0, 1, 1),
    }
    assert PROTOCOLS["alpaca_eval_2"].first == 5
    assert all((one.read is None) == (one.kind == "letters") for one in PROTOCOLS.values())
