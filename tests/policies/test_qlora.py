"""4-bit bases: what is quantized, numbers and gradients against the dequantized weights, what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from gguf import GGUFWriter
from support.models import tiny_llama_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedTokenizerBase

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import padded
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.policies import FullPolicy, PolicyError, QLoRAPolicy
from lightning_bnf.policies.reference.build import build_reference
from lightning_bnf.policies.reference.cached import open_cache
from lightning_bnf.policies.sources import SourceError, load_model

pytestmark = pytest.mark.slow


def qlora(folder: str, **arguments: object) -> QLoRAPolicy:
    policy = QLoRAPolicy(folder, **({"r": 4, "dtype": "float32"} | arguments))  # type: ignore[arg-type]
    policy.load()
    return policy


def moved(policy: QLoRAPolicy) -> QLoRAPolicy:
    torch.manual_seed(4)
    for parameter in policy.trainable().values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerBase, write_pairs: Callable[..., str]) -> MicroBatch:
    return padded(load_rows(write_pairs(), tokenizer)[0])


def dequantized(policy: QLoRAPolicy, folder: str) -> FullPolicy:
    """A plain model with the values that the 4-bit weights stand for."""
    plain = FullPolicy(folder)
    plain.load()
    layers = dict(plain.causal_lm.named_modules())
    for name, layer in policy.causal_lm.named_modules():
        if isinstance(layer, Linear4bit):
            own = layers[name.replace(".base_layer", "")]
            own.weight.data = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(own.weight.dtype)
    return plain


@pytest.mark.parametrize("double", [True, False])
def test_the_linear_layers_are_4_bit_and_nothing_else_is(tiny_folder: str, double: bool) -> None:
    """A tiny Llama has 7 linear layers in each of its 2 decoder layers, and a head, which stays as it is."""
    policy = qlora(tiny_folder, double_quantization=double)
    four = [layer for layer in policy.causal_lm.modules() if isinstance(layer, Linear4bit)]
    held = [layer.weight for layer in four if layer.weight.dtype == torch.uint8]
    assert len(held) == 14
    assert {weight.quant_state.quant_type for weight in held} == {"nf4"}
    assert {weight.quant_state.nested for weight in held} == {double}
    rest = [p for p in policy.parameters() if p.dtype != torch.uint8]
    assert {p.dtype for p in rest} == {torch.float32}
    assert type(policy.causal_lm.get_output_embeddings()) is torch.nn.Linear
    assert all("lora_" in name for name in policy.trainable())


def test_the_numbers_are_those_of_the_dequantized_weights(tiny_folder: str, batch: MicroBatch) -> None:
    policy = qlora(tiny_folder)
    plain = dequantized(policy, tiny_folder)
    torch.testing.assert_close(policy(batch).token_logps, plain(batch).token_logps, rtol=0, atol=1e-4)
    policy.check_head(batch)
    original = FullPolicy(tiny_folder)
    original.load()
    assert (original(batch).token_logps - plain(batch).token_logps).abs().max() > 0.1, "four bits are fewer than 32"


def gradients(policy: QLoRAPolicy, batch: MicroBatch) -> dict[str, torch.Tensor]:
    policy.zero_grad()
    policy(batch).token_logps.sum().backward()
    return {name: p.grad.clone() for name, p in policy.trainable().items() if p.grad is not None}


def test_a_pass_without_gradients_leaves_the_gradients_right(tiny_folder: str, batch: MicroBatch) -> None:
    """bitsandbytes repacks weights in evaluation mode on some CPUs, for a kernel without a gradient."""
    policy = moved(qlora(tiny_folder))
    before = gradients(policy, batch)
    reference = build_reference("adapter_off", policy)
    assert reference is not None
    reference(batch)
    with torch.no_grad():
        policy.eval()(batch)
    after = gradients(policy.train(), batch)
    assert before.keys() == after.keys() == policy.trainable().keys()
    for name, value in before.items():
        assert value.any(), name
        assert torch.equal(value, after[name]), name


def test_gradient_checkpointing_changes_no_gradient(tiny_folder: str, batch: MicroBatch) -> None:
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        found.append(gradients(moved(qlora(tiny_folder, gradient_checkpointing=checkpointing)), batch))
    assert found[0].keys() == found[1].keys()
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name])


@pytest.mark.parametrize("kind", ["adapter_off", "copy"])
def test_the_reference_is_the_4_bit_base(tiny_folder: str, batch: MicroBatch, kind: str) -> None:
    policy = qlora(tiny_folder)
    reference = build_reference(kind, policy)
    assert reference is not None
    start = policy(batch).token_logps.detach()
    torch.testing.assert_close(reference(batch), start, rtol=0, atol=1e-5)
    moved(policy)
    assert not torch.allclose(policy(batch).token_logps, start, atol=1e-3)
    torch.testing.assert_close(reference(batch), start, rtol=0, atol=1e-5)


def test_a_cache_says_how_its_reference_was_quantized(tiny_folder: str, tmp_path: Path) -> None:
    manifests = [
        open_cache(qlora(tiny_folder, double_quantization=double), str(tmp_path / str(double)), 0).manifest
        for double in (True, False)
    ]
    assert [manifest["quantization"] for manifest in manifests] == ["nf4, double", "nf4"]
    assert manifests[0]["weights"] != manifests[1]["weights"]


def test_a_quantized_head_is_refused(tmp_path: Path, tiny_folder: str, batch: MicroBatch) -> None:
    every = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        llm_int8_skip_modules=["embed_tokens"],
    )
    AutoModelForCausalLM.from_pretrained(tiny_folder, quantization_config=every).save_pretrained(tmp_path)
    with pytest.raises(PolicyError, match=r"source must be weights that leave the head .* whose head is quantized"):
        qlora(str(tmp_path))(batch)


def test_weights_in_4_bits_already_are_taken_by_qlora_alone(
    tmp_path: Path, tiny_folder: str, batch: MicroBatch
) -> None:
    fresh = qlora(tiny_folder)
    load_model(tiny_folder, quantization=fresh.quantization).save_pretrained(tmp_path)
    again = qlora(str(tmp_path))
    torch.testing.assert_close(again(batch).token_logps, fresh(batch).token_logps, rtol=0, atol=1e-5)
    with pytest.raises(
        SourceError, match=r"source must be weights of 16 or 32 bits, got .*, quantized by bitsandbytes"
    ):
        FullPolicy(str(tmp_path)).load()


def test_4_bit_weights_of_another_kind_are_refused(tmp_path: Path, tiny_folder: str) -> None:
    load_model(tiny_folder, quantization=qlora(tiny_folder).quantization).save_pretrained(tmp_path)
    with pytest.raises(
        PolicyError, match="must be nf4 with the policy's double_quantization, got nf4 with double_quantization true"
    ):
        qlora(str(tmp_path), double_quantization=False)


def test_other_quantized_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_llama_model(50)
    model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    model.config.save_pretrained(tmp_path)
    with pytest.raises(SourceError, match=r"or 4-bit ones of bitsandbytes, got .*, quantized by gptq"):
        qlora(str(tmp_path))


def test_without_bitsandbytes_it_says_what_to_type(tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(PolicyError, match=r"pip install 'lightning_bnf\[qlora\]'"):
        qlora(tiny_folder)


def tiny_gguf(path: Path) -> str:
    """A random Llama of one layer as a GGUF file of float32 weights."""
    writer, rng = GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_vocab_size(96)
    writer.add_context_length(128)
    writer.add_embedding_length(64)
    writer.add_block_count(1)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5)
    shapes = {"token_embd": (96, 64), "output": (96, 64), "output_norm": (64,), "blk.0.attn_norm": (64,)}
    shapes |= {f"blk.0.attn_{part}": (64, 64) for part in ("q", "k", "v", "output")}
    shapes |= {"blk.0.ffn_norm": (64,), "blk.0.ffn_gate": (128, 64), "blk.0.ffn_up": (128, 64)}
    for name, shape in (shapes | {"blk.0.ffn_down": (64, 128)}).items():
        writer.add_tensor(f"{name}.weight", rng.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return str(path)


def test_a_gguf_file_is_dequantized_and_then_quantized(tmp_path: Path) -> None:
    """The same 4-bit weights as those of the dense model that the file stands for."""
    source, quantization = tiny_gguf(tmp_path / "tiny.gguf"), QLoRAPolicy("x/y", dtype="float32").quantization
    load_model(source).save_pretrained(tmp_path / "dense")
    found = load_model(source, quantization=quantization)
    wanted = dict(load_model(str(tmp_path / "dense"), quantization=quantization).named_parameters())
    assert sum(parameter.dtype == torch.uint8 for parameter in found.parameters()) == 7
    for name, parameter in found.named_parameters():
        assert torch.equal(parameter, wanted[name]), name
