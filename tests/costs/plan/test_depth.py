"""Deep models from shallow ones: the same numbers as of the whole."""

from pathlib import Path

import pytest
from support.planned_steps import batch_of, setting
from torch import nn
from transformers import Gemma2Config, LlamaConfig

from lightning_bnf.costs.plan import step
from lightning_bnf.costs.plan.depth import Depths, Moment, depths_of
from lightning_bnf.costs.plan.step import step_cost, step_flops
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy

SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}


def layers(*widths: int) -> list[nn.Module]:
    return [nn.Linear(width, 1) for width in widths]


def test_a_line_through_two_depths() -> None:
    """10 bytes at 3 layers and 12 at 4: 2 a layer, so 68 at 32; by periods of two, 3 and 5: 29 more layers are 1."""
    assert Depths(3, 4, 32).line(10, 12) == 68
    assert Depths(4, 6, 32).line(10, 12) == 38


def test_the_highest_moment_is_at_either_end_of_a_pass() -> None:
    """From the beginning the moments stay, from the end they rise by 5 with a layer: 20, 25, ... 165 at 32."""
    less = [Moment(100, 0), Moment(10, 0), Moment(15, 0), Moment(20, 0)]
    more = [Moment(100, 0), Moment(10, 0), Moment(15, 0), Moment(20, 0), Moment(25, 3)]
    assert Depths(3, 4, 32).peak(less, more) == Moment(25 + 28 * 5, 3 + 28 * 3)
    assert Depths(3, 4, 9).peak(less, more) == Moment(100, 0)


@pytest.mark.parametrize(
    ("widths", "expected"),
    [
        ((3,) * 32, Depths(3, 4, 32)),
        ((3, 4) * 16, Depths(4, 6, 32)),
        ((3, 4) * 16 + (3,), Depths(5, 7, 33)),
        ((3,) * 7, None),  # as many are run
        ((5, *(3,) * 31), None),  # the first is another one
    ],
)
def test_depths_repeat_and_end_as_the_whole(widths: tuple[int, ...], expected: Depths | None) -> None:
    assert depths_of(layers(*widths), LlamaConfig(num_hidden_layers=len(widths))) == expected


def test_what_attention_a_layer_has_tells_it_from_others() -> None:
    """Gemma-2's layers look at a window in turns."""
    config = Gemma2Config(num_hidden_layers=12)
    assert depths_of(layers(*[3] * 12), config) == Depths(4, 6, 12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora", "checkpointed", "token loss", "accumulating", "copy", "long"])
def test_the_numbers_are_those_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Twelve layers, with so few tokens that gradients are the most at the end, and with so many that what is saved
    is."""
    LlamaConfig(vocab_size=50, num_hidden_layers=12, **SIZES).save_pretrained(tmp_path)
    policy: Policy = FullPolicy(str(tmp_path), gradient_checkpointing=kind == "checkpointed")
    if kind == "lora":
        policy = LoRAPolicy(str(tmp_path), r=4)
    asked = setting(
        policy,
        batch=batch_of(((90, 50, 70), (40, 60, 30))) if kind == "long" else batch_of(),
        reference={"copy": "copy", "lora": "adapter_off"}.get(kind, "cache"),
        token_loss=kind == "token loss",
        accumulating=kind == "accumulating",
    )
    short, flops = step_cost(asked), step_flops(asked)
    monkeypatch.setattr(step, "depths_of", lambda layers, config: None)
    assert short == step_cost(asked)
    assert flops == step_flops(asked)
