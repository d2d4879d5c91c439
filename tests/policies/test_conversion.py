"""A model that is converted to bfloat16 computes as one that is loaded in it."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support.architectures import row
from support.training import FAST, Write, train
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from transformers import AutoModelForCausalLM

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.export.folders import whole_weights
from lightning_bnf.export.rounding import rounding_of
from lightning_bnf.losses import DPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.policies.sharding import shard
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


@pytest.mark.parametrize(
    "name", ["llama", "gemma", "falcon_h1", "dots1", "gpt_neox", "ernie4_5_moe", "olmo_hybrid", "deepseek_v4"]
)
def test_tensors_get_the_types_that_transformers_gives_them_in_bfloat16(tmp_path: Path, name: str) -> None:
    """Frequencies, a router's correction and a mixture's routers stay float32; scales and multipliers do not, by which
    activations would become float32. A move to a device is one."""
    tiny_model(name).save_pretrained(tmp_path)
    wanted = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.bfloat16)
    for dtype in (torch.float32, torch.bfloat16):
        policy = FullPolicy("tiny")
        policy.adopt(AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype))
        found = tensors(policy.to(torch.bfloat16).causal_lm)
        assert found.keys() == tensors(wanted).keys()
        for key, value in tensors(wanted).items():
            torch.testing.assert_close(found[key], value, rtol=0, atol=0, msg=key)
        types = {key: value.dtype for key, value in found.items()}
        moved = policy.to("meta", torch.bfloat16).causal_lm
        assert {key: tensors(moved)[key].dtype for key in types} == types
        assert moved.device.type == "meta"


def tensors(model: nn.Module) -> dict[str, Tensor]:
    return dict((*model.named_parameters(), *model.named_buffers()))


def test_a_mixture_trains_with_routers_in_float32(tmp_path: Path, tokenizer: Any, write_pairs: Write) -> None:
    """Under bf16-true, adapters beside them; what is exported of all weights holds them as they are."""
    folder = tmp_path / "model"
    model = tiny_model("ernie4_5_moe")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for make in (FullPolicy, LoRAPolicy):
        module = PreferenceModule(make(str(folder)), DPO(), optimization=FAST)
        data = PreferenceData(write_pairs(), examples_per_step=5)
        train(tmp_path, module, data, precision="bf16-true", max_epochs=1)
        routers = [one for name, one in module.policy.named_parameters() if one.dtype == torch.float32]
        assert routers
        assert all(one.isfinite().all() for one in module.policy.trainable().values())
        assert {one.dtype for one in module.policy.trainable().values()} >= {torch.bfloat16}
        if make is FullPolicy:
            written = whole_weights(module.policy, rounding=rounding_of(module.policy, "auto", halves=True))
            for name, trained in module.policy.trainable().items():
                assert torch.equal(written[name], trained), name
                assert written[name].dtype == trained.dtype, name


def test_trained_weights_that_are_sharded_take_one_type(tmp_path: Path) -> None:
    """FSDP2 gathers and reduces a layer's together."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        policy = FullPolicy("tiny")
        policy.adopt(tiny_model("ernie4_5_moe"))
        copied = FrozenCopy(policy)
        shard(copied.policy, init_device_mesh("cpu", (1,)), mixed=False)
        shard(policy, init_device_mesh("cpu", (1,)), mixed=False)
        assert {one.dtype for one in policy.to(torch.bfloat16).trainable().values()} == {torch.bfloat16}
        assert {one.dtype for one in copied.to(torch.bfloat16).parameters()} == {torch.bfloat16}, "as it began"
    finally:
        dist.destroy_process_group()
