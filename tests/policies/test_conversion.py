"""A model that is converted to bfloat16 computes as one that is loaded in it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.architectures import row
from support.training import Write, train
from transformers import AutoModelForCausalLM

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.training.architectures.tiny import tiny_model
from lightning_bnf.training.strategies import forward_context


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_in_bf16_true_begins_at_the_model_in_bfloat16(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: Any, dtype: str
) -> None:
    """To the last bit, of 400 tokens, whose rotary positions rounded frequencies would turn; so does a copy of it. What
    the run counts with stays float64."""
    ids = torch.randint(3, 1000, (400,), generator=torch.Generator().manual_seed(1)).tolist()
    batch = PADDED.batch([row("long", ids[:5], (ids[5:], 1))], (1,))
    loaded = FullPolicy(tiny_folder, dtype="bfloat16")
    loaded.load()
    module = PreferenceModule(make(tiny_folder, dtype=dtype), DPO(), reference="copy")
    train(tmp_path, module, PreferenceData(write_pairs(), examples_per_step=5), precision="bf16-true", max_epochs=0)
    assert isinstance(module.reference, FrozenCopy)
    with torch.no_grad(), forward_context(module):
        wanted = loaded(batch).token_logps
        assert torch.equal(module.policy(batch).token_logps, wanted)
        assert torch.equal(module.reference(batch), wanted)
    assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}
    assert module.means.sums.dtype == torch.float64


@pytest.mark.parametrize("name", ["llama", "gemma", "falcon_h1", "dots1", "gpt_neox"])
def test_buffers_get_what_transformers_gives_them_in_bfloat16(tmp_path: Path, name: str) -> None:
    """Frequencies and a router's correction stay float32; scales and multipliers do not, by which activations would
    become float32. A move to a device is one."""
    tiny_model(name).save_pretrained(tmp_path)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        policy = FullPolicy("tiny")
        policy.adopt(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype))
        buffers = dict(policy.to(torch.bfloat16).causal_lm.named_buffers())
        assert buffers.keys() == dict(wanted.named_buffers()).keys()
        for key, value in wanted.named_buffers():
            torch.testing.assert_close(buffers[key], value, rtol=0, atol=0, msg=key)
        types = {key: value.dtype for key, value in buffers.items()}
        moved = policy.to("meta", torch.bfloat16).causal_lm
        assert {key: value.dtype for key, value in moved.named_buffers()} == types
        assert moved.device.type == "meta"
