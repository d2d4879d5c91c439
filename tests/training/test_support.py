"""What goes with what: every combination that is accepted trains, every other is refused before loading."""

import warnings
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.two_processes import Cell, run_cell

from lightning_bnf.policies import POLICIES, FullPolicy, LoRAPolicy, Policy
from lightning_bnf.runtime import slowness
from lightning_bnf.training.strategies import Parallelism
from lightning_bnf.training.support import (
    PARALLELISMS,
    PRECISIONS,
    REFERENCES,
    Combination,
    support_table,
)

pytestmark = pytest.mark.slow


def cell(policy: type[Policy], parallelism: Parallelism, reference: str) -> Cell:
    loss = "SFT" if reference == "none" else "DPO"
    return Cell(policy.__name__, loss, "auto" if parallelism == "one device" else parallelism, reference, steps=2)


def cells(parallelisms: tuple[Parallelism, ...], accepted: bool) -> list[tuple[type[Policy], Parallelism, str]]:
    every = product(POLICIES, parallelisms, REFERENCES)
    return [some for some in every if (Combination(*some, "32-true", "cpu").refusal() is None) == accepted]


def halves(parallelisms: tuple[Parallelism, ...]) -> list[Cell]:
    """The rows of the table that name a precision, as far as it is accepted and not float32."""
    made = []
    for parallelism, precision in product(parallelisms, PRECISIONS[1:]):
        if Combination(LoRAPolicy, parallelism, "none", precision, "cpu").refusal() is None:
            strategy = "auto" if parallelism == "one device" else parallelism
            made.append(Cell("LoRAPolicy", "SFT", strategy, "none", steps=2, precision=precision))
    return made


def test_the_documentation_has_the_table() -> None:
    assert support_table() in (Path(__file__).parents[2] / "docs/devices.md").read_text()


@pytest.mark.parametrize(("policy", "parallelism", "reference"), cells(("one device",), True))
def test_what_is_accepted_on_one_device_trains(
    tmp_path: Path,
    tiny_folder: str,
    write_pairs: Callable[..., str],
    policy: type[Policy],
    parallelism: Parallelism,
    reference: str,
) -> None:
    found = run_cell(cell(policy, parallelism, reference), tiny_folder, write_pairs(), 1, 1, str(tmp_path))
    assert len(found["losses"]) == 2


def test_what_is_accepted_on_several_trains(two: Callable[..., list[dict[str, Any]]]) -> None:
    chosen = cells(("ddp", "fsdp2"), True)
    made = [*(cell(*some) for some in chosen), *halves(("ddp", "fsdp2"))]
    found = two(made)
    assert [len(result["losses"]) for result in found] == [2] * len(made)


@pytest.mark.parametrize("made", halves(("one device",)), ids=lambda made: made.precision)
def test_bfloat16_trains(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], made: Cell) -> None:
    assert len(run_cell(made, tiny_folder, write_pairs(), 1, 1, str(tmp_path))["losses"]) == 2


@pytest.mark.parametrize(("policy", "parallelism", "reference"), cells(PARALLELISMS, False))
def test_what_is_refused_is_refused_before_anything_is_loaded(
    tmp_path: Path, write_pairs: Callable[..., str], policy: type[Policy], parallelism: Parallelism, reference: str
) -> None:
    """The model's folder does not even exist."""
    refusal = Combination(policy, parallelism, reference, "32-true", "cpu").refusal()
    with pytest.raises(ValueError, match="must be") as error:
        run_cell(cell(policy, parallelism, reference), str(tmp_path / "nowhere"), write_pairs(), 1, 1, str(tmp_path))
    assert str(error.value) == refusal


@pytest.mark.parametrize("precision", ["16-mixed", "16-true"])
def test_float16_is_refused(precision: str) -> None:
    refusal = str(Combination(LoRAPolicy, "one device", "none", precision, "cuda").refusal())
    assert refusal.startswith(f"precision must be 32-true, bf16-mixed or bf16-true, got {precision}")


def test_flash_attention_takes_halves_alone() -> None:
    """Autocast's, or the weights' own: float32 weights that are trained under bf16-mixed are right."""
    for precision, dtype in (("bf16-mixed", "float32"), ("bf16-true", "float32"), ("32-true", "bfloat16")):
        for name in ("flash_attention_2", "sdpa"):
            assert Combination(FullPolicy, "fsdp2", "none", precision, "cuda", name, dtype).refusal() is None
    refusal = str(Combination(FullPolicy, "fsdp2", "none", "32-true", "cuda", "flash_attention_2", "float32").refusal())
    assert refusal.startswith("precision must be bf16-mixed or bf16-true, or dtype bfloat16, with attention flash_att")
    assert refusal.endswith("got 32-true and float32")


def test_weights_of_float16_are_refused() -> None:
    refusal = Combination(FullPolicy, "one device", "none", "32-true", "cpu", None, "float16").refusal()
    assert refusal == "dtype must be float32 or bfloat16, got float16, whose gradients would have to be scaled"


@pytest.mark.parametrize(
    ("precision", "device", "dtype", "times", "asked"),
    [
        ("bf16-mixed", "cpu", "float32", 8.4, "precision bf16-mixed"),
        ("bf16-true", "cpu", "float32", 8.4, "precision bf16-true"),
        ("32-true", "cpu", "bfloat16", 8.4, "dtype bfloat16"),
        ("bf16-mixed", "cpu", "float32", 1.6, None),
        ("32-true", "cpu", "float32", 8.4, None),
        ("bf16-mixed", "cuda", "float32", 8.4, None),
    ],
)
def test_a_cpu_without_instructions_for_bfloat16_is_named(
    monkeypatch: pytest.MonkeyPatch, precision: str, device: str, dtype: str, times: float, asked: str | None
) -> None:
    monkeypatch.setattr(slowness, "bfloat16_slowness", lambda: times)
    combination = Combination(LoRAPolicy, "one device", "none", precision, device, None, dtype)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        combination.check()
    wanted = (
        f"{asked}: this CPU takes about 8 times as long for products in bfloat16 as in float32; trainer.precision "
        "32-true and dtype float32 are faster here"
    )
    assert [str(one.message) for one in told] == ([wanted] if asked else [])
