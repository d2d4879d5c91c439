"""Exported folders in plain transformers and peft: the trained policy's logits, for several architectures."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto import CONFIG_MAPPING

from lightning_bnf.callbacks import ExportPolicy
from lightning_bnf.export.command import ExportOptions
from lightning_bnf.export.folders import check_shard_size, finished_folder, whole_weights, write_policy
from lightning_bnf.export.merge import merge
from lightning_bnf.policies import FullPolicy, LoRAPolicy, Policy, QLoRAPolicy
from lightning_bnf.policies.sources import BUNDLED, load_model
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

ARCHITECTURES = ("llama", "mistral", "gemma2", "qwen2")
IDS = torch.tensor([[1, 50, 60, 70, 80, 12]])


@pytest.fixture(scope="module", params=ARCHITECTURES)
def model_folder(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase
) -> str:
    """A saved tiny random model of an architecture, with the bundled tokenizer."""
    torch.manual_seed(0)
    config = CONFIG_MAPPING[request.param](
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.2,
    )
    folder = tmp_path_factory.mktemp("models") / request.param
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def trained(policy: Policy, scale: float = 0.1) -> Policy:
    policy.load()
    torch.manual_seed(4)
    for parameter in policy.trainable().values():
        parameter.data += scale * torch.randn_like(parameter)
    return policy.eval()


def exported(policy: Policy, folder: Path, max_shard_size: str = "5GB") -> Path:
    write_policy(policy, whole_weights(policy), "# Card\n", folder, max_shard_size)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def same_logits(model: torch.nn.Module, policy: Policy) -> None:
    torch.testing.assert_close(logits(model), logits(policy.loaded), rtol=0, atol=1e-5)


def test_a_full_folder_is_the_policy(tmp_path: Path, model_folder: str) -> None:
    policy = trained(FullPolicy(model_folder))
    folder = exported(policy, tmp_path / "out")
    same_logits(AutoModelForCausalLM.from_pretrained(folder), policy)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert (folder / "README.md").read_text() == "# Card\n"


@pytest.mark.parametrize("kind", [LoRAPolicy, QLoRAPolicy])
def test_a_peft_folder_is_the_policy(tmp_path: Path, model_folder: str, kind: type[LoRAPolicy]) -> None:
    policy = trained(kind(model_folder, r=4, dtype="float32"))
    folder = exported(policy, tmp_path / "out")
    base = load_model(model_folder, quantization=getattr(policy, "quantization", None))
    for layer in base.modules():  # on some CPUs bitsandbytes evaluates in bfloat16 otherwise, whatever is asked for
        layer.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    same_logits(PeftModel.from_pretrained(base, folder), policy)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert (folder / "README.md").read_text() == "# Card\n"


def merged(policy: Policy, folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    assert isinstance(policy, LoRAPolicy)
    merge(policy, exported(policy, folder / "adapter"), folder / "merged", dtype)
    return AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=dtype)


@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_a_merged_folder_is_the_policy(tmp_path: Path, model_folder: str, settings: dict[str, bool]) -> None:
    policy = trained(LoRAPolicy(model_folder, r=4, **settings))  # type: ignore[arg-type]
    model = merged(policy, tmp_path, torch.float32)
    distance = (logits(model) - logits(policy.loaded)).abs().max()
    print(f"{model_folder}: merged logits differ by at most {distance:.2g}")
    assert distance < 1e-4
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_4_bit_policy_is_merged_into_fresh_weights(tmp_path: Path, model_folder: str) -> None:
    """The result is the plain base with the adapter, and has not one rounded to 4 bits."""
    policy = trained(QLoRAPolicy(model_folder, r=4, dtype="float32"))
    model = merged(policy, tmp_path, torch.float32)
    wanted = PeftModel.from_pretrained(load_model(model_folder), tmp_path / "adapter")
    torch.testing.assert_close(logits(model), logits(wanted), rtol=0, atol=1e-4)
    assert not hasattr(model.config, "quantization_config")


def test_full_weights_are_cut_into_files(tmp_path: Path, tiny_folder: str) -> None:
    """49,152 x 32 float32 values take 6.3 MB in the embedding, and as much in the head."""
    policy = trained(FullPolicy(tiny_folder))
    folder = exported(policy, tmp_path / "out", "7MB")
    assert len(list(folder.glob("model-*.safetensors"))) == 2
    same_logits(AutoModelForCausalLM.from_pretrained(folder), policy)


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    """A process that is killed in the middle of an export leaves a hidden folder, and nothing under the name."""
    code = (
        "import os, pathlib, sys; from lightning_bnf.export.folders import finished_folder\n"
        "with finished_folder(pathlib.Path(sys.argv[1])) as folder:\n"
        "    (folder / 'half').write_text('x'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "policy")], check=False)
    assert [path.name.split(".")[1:3] for path in tmp_path.iterdir()] == [["policy", "unfinished"]]
    with finished_folder(tmp_path / "policy") as folder:
        (folder / "whole").write_text("x")
    assert {path.name for path in tmp_path.rglob("*")} == {"policy", "whole", ".lightning_bnf"}


def test_the_bundled_model_is_exported_and_merged(tmp_path: Path) -> None:
    """Tied embeddings, real weights."""
    policy = trained(LoRAPolicy(BUNDLED, r=4), 0.01)
    model = merged(policy, tmp_path, torch.float32)
    distance = (logits(model) - logits(policy.loaded)).abs().max()
    print(f"bundled: merged logits differ by at most {distance:.2g}")
    assert distance < 1e-3
    same_logits(PeftModel.from_pretrained(load_model(BUNDLED), tmp_path / "adapter"), policy)


@pytest.mark.parametrize("bundled", [True, False])
def test_an_adapter_finds_its_base_from_any_folder(
    tmp_path: Path, model_folder: str, bundled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As peft's users load one, with nothing of this package; a base named by a relative path, or bundled."""
    monkeypatch.chdir(Path(model_folder).parent)
    policy = trained(LoRAPolicy(BUNDLED if bundled else Path(model_folder).name, r=4), 0.01)
    folder = exported(policy, tmp_path / "policy")
    monkeypatch.chdir(tmp_path)
    same_logits(AutoPeftModelForCausalLM.from_pretrained(folder), policy)


def write(folder: Path, text: str, fail: bool = False) -> None:
    with finished_folder(folder) as unfinished:
        (unfinished / "weights").write_text(text)
        if fail:
            raise OSError(28, "No space left on device")


def test_a_folder_appears_whole_and_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "policy", "first")
    write(tmp_path / "policy", "second")
    assert (tmp_path / "policy" / "weights").read_text() == "second"
    assert (tmp_path / "policy" / "weights").stat().st_mode & 0o777 == 0o644, "others may load what is exported"
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


@pytest.mark.parametrize("before", [None, "first"])
def test_a_full_disk_leaves_what_was_there(tmp_path: Path, before: str | None) -> None:
    if before:
        write(tmp_path / "policy", before)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "policy", "second", fail=True)
    assert [path.name for path in tmp_path.iterdir()] == (["policy"] if before else [])
    if before:
        assert (tmp_path / "policy" / "weights").read_text() == "first"


@pytest.mark.parametrize("size", ["-1", "0", "0GB", "-5GB", "5", "", "large", "5 GiB"])
def test_a_size_that_is_none_is_refused(size: str) -> None:
    with pytest.raises(Refusal, match=f"max_shard_size must be a size such as 5GB or 500MB, got '{size}'"):
        ExportOptions("out", max_shard_size=size)
    with pytest.raises(Refusal, match="max_shard_size must be a size"):
        ExportPolicy(max_shard_size=size)
    assert check_shard_size("1.5GB") == "1.5GB"
