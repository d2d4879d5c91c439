"""What rounding leaves of a change, by numbers that can be checked."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_bnf.export.rounding import Rounding, rounding_of
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.fingerprints import content_hash, fingerprint_part

START = {"a": torch.tensor([1.0, 1.0, 2.0]), "b": torch.tensor([[4.0]])}


@pytest.fixture
def policy(tmp_path: Path) -> FullPolicy:
    """One that has begun with two tensors, which lie in its source's folder."""
    save_file(START, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    made = FullPolicy(str(tmp_path))
    made.base_fingerprint = content_hash([fingerprint_part(name, value) for name, value in START.items()])
    return made


def added(policy: FullPolicy, trained: dict[str, Tensor], **settings: Any) -> Rounding:
    rounding = Rounding(policy, torch.bfloat16, **settings)
    for name, value in trained.items():
        rounding.add(name, value, value, value.to(torch.bfloat16))
    return rounding


def test_the_cosine_is_of_the_changes_of_all_weights(policy: FullPolicy) -> None:
    """bfloat16 has steps of 2^-7 above 1 and of 2^-6 above 2. The changes (2^-6, 2^-9, 0) and 0.5: the second of them
    is lost. (2^-12 + 2^-2) / sqrt((2^-12 + 2^-18 + 2^-2) (2^-12 + 2^-2)) = sqrt((2^-12 + 2^-2) / (that + 2^-18))."""
    trained = {"a": START["a"] + torch.tensor([2.0**-6, 2.0**-9, 0.0]), "b": START["b"] + 0.5}
    kept = 2.0**-12 + 2.0**-2
    assert added(policy, trained).cosine() == pytest.approx((kept / (kept + 2.0**-18)) ** 0.5, abs=1e-12)
    few = {"a": START["a"] + 2.0**-9, "b": START["b"]}
    assert added(policy, few).cosine() == 0.0, "nothing of it is left"
    lost = "has cosine 0.000 to the trained one: much of what was learned is lost, dtype float32 keeps it"
    assert added(policy, few, asked=True).text().endswith(lost)
    assert added(policy, few).text().endswith("is little, its cosine to the trained one would be 0.000")
    assert [added(policy, few).applies(), added(policy, few, asked=True).applies()] == [False, True]
    assert added(policy, trained).applies()
    assert added(policy, trained).text().endswith("has cosine 1.000 to the trained one")


def test_weights_that_began_in_16_bits_have_changed_from_those(policy: FullPolicy) -> None:
    """Their masters began where they were: at 16 bits."""
    save_file(START | {"b": torch.tensor([[4.001]])}, Path(policy.source) / "model.safetensors")
    parts = START | {"b": torch.tensor([[4.001]])}
    policy.base_fingerprint = content_hash([fingerprint_part(name, value) for name, value in parts.items()])
    rounding = Rounding(policy, torch.bfloat16)
    for name, value in START.items():
        master = value + 0.5
        rounding.add(name, value.bfloat16(), master, master.bfloat16())
    assert rounding.cosine() == pytest.approx(1.0, abs=1e-12)


def test_of_another_start_nothing_is_said(policy: FullPolicy) -> None:
    trained = {name: value + 1 for name, value in START.items()}
    assert added(policy, trained).cosine() == pytest.approx(1.0)
    assert added(policy, {"a": trained["a"]}).cosine() is None, "a weight is lacking"
    assert added(policy, trained | {"c": torch.ones(1)}).cosine() is None, "one is not in the file"
    assert added(policy, START).cosine() is None, "nothing has changed"
    policy.base_fingerprint = "0" * 16
    assert "is not known, as the start is not at hand" in added(policy, trained, asked=True).text()
    assert added(policy, trained).text().startswith("float32: what bfloat16 leaves of the change is not known")
    assert not added(policy, trained).applies(), "what is not known is not risked"
    assert "as the steps were made with" in added(policy, trained, halves=True).text()
    (Path(policy.source) / "model.safetensors").unlink()
    assert added(policy, trained).cosine() is None


def test_adapters_and_float32_are_not_rounded() -> None:
    assert rounding_of(LoRAPolicy("x/y"), "auto") is None
    assert rounding_of(FullPolicy("x"), "float32") is None
