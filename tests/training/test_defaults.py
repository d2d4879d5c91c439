"""What is chosen by device, policy and loss; the learning rates are those of the table in docs/policies.md."""

import re
from pathlib import Path

import pytest
import torch

from lightning_bnf import losses
from lightning_bnf.losses import BNF, DPO, SFT, Loss, Sum, Term
from lightning_bnf.policies import FullPolicy, LoRAPolicy, QLoRAPolicy
from lightning_bnf.training import defaults
from lightning_bnf.training.optimization import Optimization

ROOT = Path(__file__).parents[2]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A CUDA device, with products in bfloat16 or without."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: request.param)


@pytest.mark.parametrize("gpu", [True, False], indirect=True)
def test_auto_is_the_gpu_where_there_is_one(gpu: None) -> None:
    assert [defaults.device_type(name) for name in ("auto", "gpu", "cuda", "cpu")] == ["cuda", "cuda", "cuda", "cpu"]


@pytest.mark.parametrize("gpu", [True], indirect=True)
def test_a_gpu_that_computes_in_bfloat16_does(gpu: None) -> None:
    assert defaults.precision("cuda").value == "bf16-mixed"
    assert defaults.base_dtype(LoRAPolicy, "cuda").value == "bfloat16"  # type: ignore[union-attr]
    assert defaults.base_dtype(FullPolicy, "cuda") is None
    assert defaults.precision("cpu").value == "32-true", "asked for on a machine that has a GPU too"


@pytest.mark.parametrize("gpu", [False], indirect=True)
@pytest.mark.parametrize("device", ["cuda", "cpu", "mps"])
def test_where_bfloat16_is_emulated_float32_is_taken(gpu: None, device: str) -> None:
    assert defaults.precision(device).value == "32-true"
    assert defaults.base_dtype(QLoRAPolicy, device).value == "float32"  # type: ignore[union-attr]


def test_learning_rates_by_policy_and_loss() -> None:
    assert defaults.learning_rate(FullPolicy, BNF).value == 5e-7
    assert defaults.learning_rate(LoRAPolicy, BNF).value == defaults.learning_rate(QLoRAPolicy, DPO).value == 5e-5
    assert defaults.learning_rate(FullPolicy, SFT).value == 2e-5
    assert "all weights with SFT" in defaults.learning_rate(FullPolicy, SFT).reason


def test_a_rate_that_is_named_stays(tiny_folder: str) -> None:
    policy, loss = LoRAPolicy(tiny_folder), Sum([Term(DPO()), Term(SFT())])
    assert defaults.with_learning_rate(Optimization(), policy, loss).learning_rate == 5e-5
    assert defaults.with_learning_rate(Optimization(0.3, schedule="linear"), policy, loss) == Optimization(
        0.3, schedule="linear"
    )


def test_the_table_of_the_docs_is_what_the_losses_declare() -> None:
    text = (ROOT / "docs/policies.md").read_text()
    rows = re.findall(r"^\| (.+?) \| (\d\S*) \| (\d\S*) \|", text, re.MULTILINE)
    told = {name: (float(full), float(few)) for names, full, few in rows for name in re.findall(r"`(\w+)`", names)}
    (others,) = [(float(full), float(few)) for names, full, few in rows if names == "all others"]
    classes = {name: kind for name, kind in vars(losses).items() if isinstance(kind, type) and issubclass(kind, Loss)}
    assert set(told) <= set(classes)
    for name, kind in classes.items():
        assert (kind.learning_rate, kind.adapter_learning_rate) == told.get(name, others), name
