"""LoRA policies: what is trained, what is saved, what is refused."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support.policies import lora, moved, save
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from lightning_bnf.datamodules.steps.layout import padded
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.policies import LoRAPolicy, PolicyError
from lightning_bnf.runtime.limits import limited

pytestmark = pytest.mark.slow


def test_lora_trains_adapters_alone_and_a_checkpoint_holds_nothing_else(tiny_folder: str) -> None:
    policy = lora(tiny_folder, r=4)
    assert policy.trainable()
    assert all("lora_" in name for name in policy.trainable())
    assert not any("lm_head" in name or "embed" in name for name in policy.trainable())
    assert policy.state_dict().keys() == policy.trainable().keys()


def test_a_target_that_matches_nothing_names_what_there_is(tiny_folder: str) -> None:
    with pytest.raises(PolicyError, match=r"target_modules must be of down_proj, gate_proj, .* got .*query"):
        lora(tiny_folder, target_modules=["query"])


@pytest.mark.parametrize(
    ("pattern", "why"), [("(.*.*)*x", "one that takes longer than"), ("(q_proj", "no pattern .missing")]
)
def test_patterns_that_never_end_or_are_none(
    tiny_folder: str, monkeypatch: pytest.MonkeyPatch, pattern: str, why: str
) -> None:
    monkeypatch.setattr("lightning_bnf.policies.lora.limited", lambda: limited(seconds=0.3))
    with pytest.raises(PolicyError, match=f"target_modules must be a regular expression, got .*{why}"):
        lora(tiny_folder, target_modules=pattern)


def test_an_adapter_on_the_head_is_refused(tiny_folder: str) -> None:
    policy = lora(tiny_folder, target_modules=["lm_head", "q_proj"])
    with pytest.raises(PolicyError, match="the output layer must be a plain linear layer, got"):
        policy.head()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"r": 0}, "r must be >= 1, got 0"),
        ({"alpha": -1.0}, "alpha must be > 0, got"),
        ({"dropout": 1.0}, "dropout must be"),
    ],
)
def test_lora_refuses_settings_out_of_range(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoRAPolicy("x/y", **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": ["q_proj"]}])
def test_a_saved_adapter_gives_the_trained_policys_logits(
    tmp_path: Path, tiny_folder: str, options: dict[str, object]
) -> None:
    policy = moved(lora(tiny_folder, r=4, **options)).eval()
    save(policy, tmp_path)
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), tmp_path)
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, policy.loaded(ids).logits, rtol=0, atol=1e-5)
        assert not torch.allclose(loaded(ids).logits, loaded.get_base_model()(ids).logits * 0)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template
    assert f'"base_model_name_or_path": "{tiny_folder}"' in (tmp_path / "adapter_config.json").read_text()


def test_gradient_checkpointing_reaches_every_adapter(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: object
) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)  # type: ignore[operator]
    batch = padded(rows)
    grads = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        policy = moved(lora(tiny_folder, gradient_checkpointing=checkpointing))
        policy(batch).token_logps.sum().backward()
        grads.append({name: p.grad for name, p in policy.trainable().items()})
    for name, grad in grads[0].items():
        assert grad is not None
        assert grad.any()
        torch.testing.assert_close(grad, grads[1][name])


class WithNorms(LoRAPolicy):
    """Trains the base's norms beside the adapters."""

    def prepared(self, base: PreTrainedModel) -> nn.Module:
        model = super().prepared(base)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.requires_grad_(True)
        return model


class AndWritesThem(WithNorms):
    def save(self, folder: str, weights: Mapping[str, Tensor], max_shard_size: str) -> None:
        super().save(folder, weights, max_shard_size)


def test_what_is_trained_beside_adapters_has_to_be_written(tiny_folder: str) -> None:
    wanted = (
        r"WithNorms.save must write all that is trained, got LoRAPolicy's, .* and 5 other tensors .* such as model\."
    )
    with pytest.raises(PolicyError, match=wanted):
        WithNorms(tiny_folder).load()
    policy = AndWritesThem(tiny_folder)
    policy.load()
    assert any("norm" in name for name in policy.trainable())
