"""Models without weights that are filled tensor by tensor are the models that loading gives; see also test_parallel."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support import two_processes
from support.architectures import ARCHITECTURES, policy_of
from support.forked import run_ranks
from torch import Tensor

from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.sharding import fill, load_empty, load_sharded
from lightning_bnf.policies.sources import SourceError, stored_dtype

CPU = torch.device("cpu")


def tensors(policy: Policy) -> dict[str, Tensor]:
    """With the second names of what is tied, and buffers that no checkpoint holds."""
    named = dict(policy.named_parameters(remove_duplicate=False))
    return named | dict(policy.named_buffers(remove_duplicate=False))


def same(found: Policy, wanted: Policy) -> None:
    ours, theirs = tensors(found), tensors(wanted)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert (ours[name].dtype, ours[name].requires_grad) == (value.dtype, value.requires_grad), name
        assert torch.equal(ours[name], value), name
    assert found.base_fingerprint == wanted.base_fingerprint
    assert found.causal_lm.generation_config == wanted.causal_lm.generation_config
    assert found.causal_lm.config.to_dict() == wanted.causal_lm.config.to_dict()
    head, embeddings = found.causal_lm.get_output_embeddings(), found.causal_lm.get_input_embeddings()
    assert (head.weight is embeddings.weight) == found.causal_lm.config.get_text_config().tie_word_embeddings


def filled(policy: Policy, copies: int = 1) -> list[Policy]:
    torch.manual_seed(3)  # adapters begin at random
    weights = load_empty(policy)
    policies = [policy, *(copy.deepcopy(policy) for _ in range(copies - 1))]
    assert all(value.is_meta for value in tensors(policy).values())
    fill(policies, weights, CPU)
    assert weights == {}, "nothing is kept"
    return policies


def loaded(policy: Policy) -> Policy:
    torch.manual_seed(3)
    policy.load()
    return policy


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_filled_model_is_the_loaded_one(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    """Also from files in bfloat16 that are widened."""
    model = policy_of(name).causal_lm.to(dtype)
    model.generation_config.eos_token_id = [2, 5]
    model.save_pretrained(tmp_path)
    wanted = loaded(FullPolicy(str(tmp_path)))
    for policy in filled(FullPolicy(str(tmp_path)), copies=2):
        same(policy, wanted)


def test_adapters_begin_as_they_would(tiny_folder: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"r": 4, "use_dora": True, "dtype": "bfloat16"}
    same(filled(LoRAPolicy(tiny_folder, **settings))[0], loaded(LoRAPolicy(tiny_folder, **settings)))
    begun = loaded(LoRAPolicy(tiny_folder, r=4))
    assert isinstance(begun.loaded, PeftModel)
    begun.save(str(tmp_path / "adapter"), {n: torch.randn_like(p) for n, p in begun.trainable().items()}, "5GB")
    settings = {"r": 4, "adapter": str(tmp_path / "adapter")}
    same(filled(LoRAPolicy(tiny_folder, **settings))[0], loaded(LoRAPolicy(tiny_folder, **settings)))


def test_files_are_read_in_their_own_type_where_that_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gemma 3 computes a buffer in the type that it is loaded in; adapters may begin at sums of weights."""
    read = []
    base = FullPolicy.base
    monkeypatch.setattr(FullPolicy, "base", lambda self, dtype=None: read.append(dtype) or base(self, dtype))
    for name in ("Llama", "Gemma3Text"):
        policy_of(name).causal_lm.to(torch.bfloat16).save_pretrained(tmp_path / name)
        filled(FullPolicy(str(tmp_path / name)))
    filled(FullPolicy(str(tmp_path / "Llama"), dtype="bfloat16"))
    assert read == [torch.bfloat16, None, None]


def test_the_type_of_a_sources_files(tmp_path: Path) -> None:
    model = policy_of("Llama").causal_lm.to(torch.float16)
    model.save_pretrained(tmp_path / "one")
    assert stored_dtype(str(tmp_path / "one")) == torch.float16
    model.save_pretrained(tmp_path / "many", max_shard_size="10KB")
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 2
    assert stored_dtype(str(tmp_path / "many")) == torch.float16
    model.model.embed_tokens.float()
    model.save_pretrained(tmp_path / "mixed")
    assert stored_dtype(str(tmp_path / "mixed")) is None


@pytest.mark.slow
def test_an_error_on_the_first_rank_ends_the_others(tiny_folder: str, tmp_path: Path) -> None:
    """No refusal, while it reads; a tensor that it lacks; and one that the model has no place for."""
    run_ranks(two_processes.first_fails, (str(tmp_path), tiny_folder), 2)
    first, second = (Path(tmp_path, f"{rank}.txt").read_text().splitlines() for rank in (0, 1))
    assert first[0] == "AssertionError: under FSDP2 the first rank alone reads the model"
    assert first[1].startswith("KeyError: ")
    assert first[2] == "PolicyError: source must be a model that can be built from its config, got one with ['other']"
    assert second == [*(f"RuntimeError: the first rank ended with {told}" for told in first[:2]), first[2]]


def test_what_cannot_be_loaded_is_refused_as_ever(tmp_path: Path) -> None:
    policy_of("Llama").causal_lm.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(SourceError, match="source must be whole weights in safetensors or GGUF"):
        load_empty(FullPolicy(str(tmp_path)))


def test_a_policy_that_is_loaded_before_is_not_sharded(tiny_folder: str) -> None:
    policy, mesh = loaded(LoRAPolicy(tiny_folder, r=4)), None
    with pytest.raises(PolicyError, match=r"policy must be one that is not loaded before the run .* \(fsdp2\), got"):
        load_sharded(policy, mesh, False, CPU, False)  # type: ignore[arg-type]
