"""The table of models and methods."""

import re

import pytest

from lightning_bnf.cli.plan import with_sweep
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.costs.plan.sweep import SHAPES, Shape, sweep
from lightning_bnf.runtime.refusal import Refusal

SMALL = {"tiny (of nobody)": Shape(512, 1024, 2, 8, 2, 32000)}


@pytest.mark.parametrize(
    ("name", "billions"), [("1B", 1.24), ("3B", 3.21), ("8B", 8.03), ("14B", 14.77), ("32B", 32.76), ("70B", 70.55)]
)
def test_the_shapes_have_as_many_weights_as_their_models(name: str, billions: float) -> None:
    """Attention, three matrices inside and two norms of each layer, embeddings, head and last norm."""
    (shape,) = (shape for key, shape in SHAPES.items() if key.split()[0] == name)
    keys = shape.hidden // shape.heads * shape.key_heads
    layer = 2 * shape.hidden * (shape.hidden + keys) + 3 * shape.hidden * shape.inner + 2 * shape.hidden
    ends = (1 if shape.tied else 2) * shape.vocabulary * shape.hidden + shape.hidden
    assert (shape.layers * layer + ends) / 1e9 == pytest.approx(billions, abs=0.01)


@pytest.mark.slow
def test_a_row_for_every_method() -> None:
    shown = sweep(Question(gpu="a100-80", gpus=8, rows=1000, tokens_per_row=100), SMALL)
    assert shown.startswith("1,000 rows of 100 tokens, planned, not measured: a roofline of the A100 80GB")
    assert "fits 8 x A100 80GB, 80 GB" in shown
    rows = re.findall(r"tiny \(of nobody\) +\| (\w+) +\| ([\d.]+)", shown)
    assert [name for name, _ in rows] == ["full", "LoRA", "QLoRA"]
    assert all(float(size) > 0.6 for _, size in rows)


def test_without_a_gpu_it_is_refused() -> None:
    with pytest.raises(Refusal, match="gpu must be named for --sweep true, such as h100, got null"):
        sweep(Question())


def test_the_flag_alone_is_enough() -> None:
    assert with_sweep(["--sweep", "--gpu", "h100"])[:4] == ["--sweep", "true", "--gpu", "h100"]
    assert with_sweep(["--gpu", "h100", "--sweep"])[-4:-2] == ["--sweep", "true"]
    assert with_sweep(["--model.source", "x", "--sweep", "false"]) == ["--model.source", "x", "--sweep", "false"]
    assert with_sweep(["--gpu", "h100"]) == ["--gpu", "h100"]
