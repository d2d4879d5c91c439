"""A kind of policy is one file and one YAML: everything else asks what it declares. Here, 8-bit weights under LoRA."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from support.int8_policy import Int8Linear, Int8LoRAPolicy
from transformers import AutoModelForCausalLM

from lightning_bnf.cli.main import main
from lightning_bnf.policies import POLICIES, FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.policies.reference.build import check_reference
from lightning_bnf.training.support import Combination, support_table

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
YAML = ROOT / "tests" / "support" / "int8_policy.yaml"
ALLOW = ["--allow", "support.int8_policy"]


@pytest.fixture
def config(tmp_path: Path, write_pairs: Callable[..., str]) -> str:
    """A run of two steps that names the policy by its YAML and says nothing else of it."""
    values = {
        "model": {"policy": str(YAML), "loss": str(ROOT / "configs/loss/dpo.yaml")},
        "data": {"train": write_pairs(rows=10), "validation": write_pairs("v.jsonl"), "examples_per_step": 5},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_it_trains_and_is_exported_as_what_it_declares(
    config: str, tmp_path: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapters: a peft folder after training, and merged into the source's own weights on request."""
    main(["fit", "--config", config, "--model.policy.init_args.source", tiny_folder, *ALLOW])
    assert (tmp_path / "run/policy/adapter_model.safetensors").is_file()
    merged = tmp_path / "merged"
    saved = ["--config", str(tmp_path / "run/config.yaml"), "--ckpt_path", "last"]
    main(["export", *saved, "--folder", str(merged), "--merge", "true", *ALLOW])
    assert "Int8LoRAPolicy of step 2, merged into float32 weights" in capsys.readouterr().out
    kept = AutoModelForCausalLM.from_pretrained(merged).state_dict()
    assert kept["model.layers.0.mlp.up_proj.weight"].dtype == torch.float32, "as it was trained"


def test_its_weights_are_rounded_and_the_rest_is_not(tiny_folder: str) -> None:
    policy, plain = Int8LoRAPolicy(tiny_folder, r=4), FullPolicy(tiny_folder)
    policy.load()
    plain.load()
    layers = dict(plain.causal_lm.named_modules())
    rounded = [(name, layer) for name, layer in policy.causal_lm.named_modules() if isinstance(layer, Int8Linear)]
    assert len(rounded) == 14, "7 in each of 2 decoder layers"
    for name, layer in rounded:
        original = layers[name.replace(".base_layer", "")].weight
        scale = layer.get_buffer("scale")
        assert ((layer.weight * scale - original).abs() <= 0.5001 * scale).all()


def test_it_is_planned_with_its_own_sizes(config: str, tiny_folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "--config", config, "--model.policy.init_args.source", tiny_folder, "--flops", "1", *ALLOW])
    shown = capsys.readouterr().out
    assert "Int8LoRAPolicy of" in shown
    assert "weights (int8)" in shown
    assert "weights (float32)" in shown


def test_it_stands_in_the_table_of_what_goes_together() -> None:
    table = support_table([*POLICIES, Int8LoRAPolicy])
    assert "| Int8LoRAPolicy, adapter_off | yes | yes | no" in table
    assert "| Int8LoRAPolicy, copy | no" in table
    assert "reference must be auto, adapter_off, cache or none with Int8LoRAPolicy, got copy" in table
    assert "strategy must be auto or ddp with Int8LoRAPolicy, whose weights cannot be sharded, got fsdp2" in table


def test_what_it_cannot_have_is_refused_before_anything_is_loaded() -> None:
    policy = Int8LoRAPolicy("no/such-model")
    with pytest.raises(PolicyError, match="adapter_off, cache or none with Int8LoRAPolicy, got copy"):
        check_reference("copy", policy, needed=True)
    assert check_reference("auto", policy, needed=True) == "adapter_off"


class OnCuda(LoRAPolicy):
    """Stands for a policy whose kernels exist for CUDA alone."""

    needs_device = "cuda"


@pytest.mark.parametrize(("device", "refused"), [("cpu", True), ("cuda", False)])
def test_a_device_that_is_needed_is_asked_for(device: str, refused: bool) -> None:
    refusal = Combination(OnCuda, "one device", "none", "32-true", device).refusal()
    assert refusal == ("accelerator must be cuda with OnCuda, got cpu" if refused else None)


@pytest.mark.parametrize("switch", [FullPolicy.as_it_started, FullPolicy.without_adapters])
def test_a_policy_without_adapters_refuses_to_switch_them_off(
    tiny_folder: str, switch: Callable[[FullPolicy], object]
) -> None:
    with pytest.raises(PolicyError, match="the policy must have adapters to switch off, got FullPolicy"):
        switch(FullPolicy(tiny_folder))
