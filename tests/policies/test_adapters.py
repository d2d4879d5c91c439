"""Training that starts from an adapter: policy and reference are the base with it, and what does not fit is refused."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.training import FAST, train
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import padded
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.export.folders import whole_weights
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy, PolicyError, QLoRAPolicy
from lightning_bnf.policies.adapters import adapter_folder
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.reference.build import build_reference, check_reference
from lightning_bnf.policies.reference.cached import open_cache

pytestmark = pytest.mark.slow

Make = Callable[..., LoRAPolicy]


def lora(folder: str, kind: type[LoRAPolicy] = LoRAPolicy, **arguments: object) -> LoRAPolicy:
    policy = kind(folder, **({"r": 4, "dtype": "float32"} | arguments))  # type: ignore[arg-type]
    policy.load()
    return policy


def moved(policy: LoRAPolicy, seed: int = 4) -> LoRAPolicy:
    torch.manual_seed(seed)
    for parameter in policy.trainable().values():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy


def saved(policy: LoRAPolicy, folder: Path) -> str:
    policy.save(str(folder), whole_weights(policy), "5GB")
    return str(folder)


@pytest.fixture
def batch(tokenizer: PreTrainedTokenizerBase, write_pairs: Callable[..., str]) -> MicroBatch:
    return padded(load_rows(write_pairs(), tokenizer)[0])


@pytest.fixture
def sft(tmp_path: Path, tiny_folder: str) -> str:
    """An adapter of rank 4 that changes the model."""
    return saved(moved(lora(tiny_folder)), tmp_path / "sft")


@pytest.mark.parametrize("kind", [LoRAPolicy, QLoRAPolicy])
@pytest.mark.parametrize("settings", [{}, {"use_dora": True}, {"use_rslora": True, "target_modules": ["q_proj"]}])
def test_policy_and_reference_start_at_base_and_adapter(
    tmp_path: Path, tiny_folder: str, batch: MicroBatch, kind: type[LoRAPolicy], settings: dict[str, object]
) -> None:
    first = moved(lora(tiny_folder, kind, **settings))
    wanted, base = first(batch).token_logps.detach(), lora(tiny_folder, kind)(batch).token_logps
    assert (wanted - base).abs().max() > 0.01, "the adapter does something"
    policy = lora(tiny_folder, kind, adapter=saved(first, tmp_path / "sft"), **settings)
    reference = build_reference("adapter_off", policy)
    assert reference is not None
    assert torch.equal(policy(batch).token_logps, wanted)
    assert torch.equal(reference(batch), wanted)
    assert policy.trainable().keys() == first.trainable().keys()
    moved(policy, seed=5)
    assert (policy(batch).token_logps - wanted).abs().max() > 0.01
    assert torch.equal(reference(batch), wanted), "it stays where training started"
    assert policy.trainable().keys() == first.trainable().keys(), "what is trained is put back"
    assert policy.state_dict().keys() == first.state_dict().keys(), "a checkpoint holds one adapter"


def test_the_reference_may_stay_the_base(tiny_folder: str, batch: MicroBatch, sft: str) -> None:
    """As in rounds of training that are all held against the first model."""
    first = lora(tiny_folder)
    base = first(batch).token_logps.detach()
    policy = lora(tiny_folder, adapter=sft, reference_of="base")
    names = policy.trainable().keys()
    reference = build_reference(check_reference("auto", policy, True), policy)
    assert reference is not None
    assert torch.equal(reference(batch), base)
    assert (policy(batch).token_logps - base).abs().max() > 0.01, "it starts from the adapter"
    assert policy.trainable().keys() == names
    with pytest.raises(PolicyError, match="reference must be adapter_off or cache with reference_of: base"):
        check_reference("copy", policy, True)
    with pytest.raises(PolicyError, match="reference_of must be start where training starts from no adapter, got base"):
        LoRAPolicy(tiny_folder, reference_of="base")


@pytest.mark.parametrize("reference_of", ["start", "base"])
def test_an_adapter_with_dropout_is_gone_on_with(
    tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str], sft: str, reference_of: str
) -> None:
    """Its dropout draws in training alone: two passes that are compared before the first step are alike."""
    policy = LoRAPolicy(tiny_folder, r=4, dropout=0.3, adapter=sft, reference_of=reference_of)  # type: ignore[arg-type]
    data = PreferenceData(write_pairs(), examples_per_step=2)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(tmp_path, PreferenceModule(policy, BNF(), optimization=FAST), data, max_steps=2)
    assert not [one for one in told if "before step 1" in str(one.message)]
    begun = load_file(Path(sft) / "adapter_model.safetensors")
    found = {name.removeprefix("model.").replace(".default", ""): value for name, value in policy.state_dict().items()}
    assert found.keys() == begun.keys()
    assert not all(torch.equal(found[name], begun[name]) for name in begun)


def test_the_export_is_one_plain_adapter(tmp_path: Path, tiny_folder: str, sft: str) -> None:
    policy = moved(lora(tiny_folder, adapter=sft), seed=5).eval()
    folder = saved(policy, tmp_path / "out")
    assert not any(path.is_dir() for path in Path(folder).iterdir())
    loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_folder), folder)
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, policy.loaded(ids).logits, rtol=0, atol=1e-5)


def test_a_cache_tells_starts_apart(tmp_path: Path, tiny_folder: str, sft: str) -> None:
    other = saved(moved(lora(tiny_folder), seed=9), tmp_path / "other")
    manifests = [
        open_cache(lora(tiny_folder, adapter=adapter), str(tmp_path / f"cache{i}"), 0).manifest
        for i, adapter in enumerate((None, sft, other))
    ]
    assert len({manifest["weights"] for manifest in manifests}) == 3
    assert "adapter_fingerprint" not in manifests[0]
    assert manifests[1]["adapter_fingerprint"] != manifests[2]["adapter_fingerprint"]


def changed(folder: str, target: Path, **values: object) -> str:
    """A copy of an adapter with other entries in its config."""
    target.mkdir()
    held = json.loads((Path(folder) / "adapter_config.json").read_text())
    (target / "adapter_config.json").write_text(json.dumps(held | values))
    save_file(load_file(Path(folder) / "adapter_model.safetensors"), target / "adapter_model.safetensors")
    return str(target)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"r": 8, "alpha": 8.0}, r"must be those that its adapter was made with \(r: 4, alpha: 32.0\), got"),
        ({"r": 8}, r"got others for '.*', whose target_modules are \['"),
        ({"use_rslora": True}, r"must be those that its adapter was made with \(use_rslora: False\), got"),
        ({"target_modules": ["q_proj"]}, r"target_modules must be \[down_proj, .*, v_proj\] .* got 0 ten"),
    ],
)
def test_settings_that_make_another_adapter_are_refused(
    tiny_folder: str, sft: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        lora(tiny_folder, adapter=sft, **settings)


@pytest.mark.parametrize("kind", [LoRAPolicy, QLoRAPolicy])
@pytest.mark.parametrize(
    "made",
    [{"r": 3, "alpha": 5.0, "use_dora": True}, {"r": 2, "use_rslora": True, "target_modules": ["q_proj", "up_proj"]}],
)
def test_settings_that_are_not_named_are_those_of_the_adapter(
    tmp_path: Path, tiny_folder: str, kind: type[LoRAPolicy], made: dict[str, object]
) -> None:
    """Also of one that plain peft wrote before it knew all of them."""
    begun = moved(lora(tiny_folder, kind, **made))
    adapter = saved(begun, tmp_path / "made")
    config = tmp_path / "made" / "adapter_config.json"
    held = json.loads(config.read_text())
    config.write_text(json.dumps({name: value for name, value in held.items() if value is not False}))
    policy = kind(tiny_folder, adapter=adapter, dtype="float32")
    policy.load()
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        assert torch.equal(policy.loaded(ids).logits, begun.loaded(ids).logits)
    names = ("r", "lora_alpha", "use_rslora", "use_dora", "target_modules")
    found, wanted = policy.description(), begun.description()
    if "target_modules" not in made:  # of which the base's names are written out in the file
        wanted["target_modules"] = sorted(held["target_modules"])
    assert {name: found[name] for name in names} == {name: wanted[name] for name in names}


def test_settings_of_none_are_rank_16_on_all_layers(tiny_folder: str) -> None:
    config = LoRAPolicy(tiny_folder).config
    assert (config.r, config.lora_alpha, config.target_modules) == (16, 32.0, "all-linear")
    assert (config.use_rslora, config.use_dora) == (False, False)


@pytest.mark.parametrize("values", [{"r": "4"}, {"r": True}, {"lora_alpha": [1]}, {"target_modules": {"q_proj": 1}}])
def test_settings_that_peft_does_not_write_are_refused(
    tmp_path: Path, tiny_folder: str, sft: str, values: dict[str, object]
) -> None:
    with pytest.raises(PolicyError, match=r"adapter must be one that peft made, got '.*', whose .* is"):
        LoRAPolicy(tiny_folder, adapter=changed(sft, tmp_path / "changed", **values)).load()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"peft_type": "IA3"}, "adapter must be of peft type LORA, got .* of IA3"),
        (
            {"alpha_pattern": {"q_proj": 64}},
            "must be one without alpha_pattern, got .* with {'alpha_pattern': {'q_proj': 64}}",
        ),
        (
            {"init_lora_weights": "pissa"},
            "must be one without init_lora_weights, got .* with {'init_lora_weights': 'pissa'}",
        ),
    ],
)
def test_adapters_of_another_kind_are_refused(
    tmp_path: Path, tiny_folder: str, sft: str, values: dict[str, object], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        lora(tiny_folder, adapter=changed(sft, tmp_path / "changed", **values))


def test_what_is_no_adapter_is_said(tmp_path: Path, sft: str) -> None:
    with pytest.raises(PolicyError, match=r"adapter must be a peft folder, or a hub id, got '\./nowhere'"):
        adapter_folder("./nowhere")
    (Path(sft) / "adapter_model.safetensors").rename(Path(sft) / "adapter_model.bin")
    with pytest.raises(
        PolicyError, match=r"adapter must be what peft saves, got .* without adapter_model\.safetensors"
    ):
        adapter_folder(sft)


def test_the_base_of_an_adapter_is_told_by_its_weights_else_by_its_name(
    tmp_path: Path, tiny_folder: str, sft: str, recwarn: pytest.WarningsRecorder
) -> None:
    """The same weights under another name are the same base; others of like shapes are not, loaded alike. Loaded
    otherwise, as in 4 bits, or where nothing is known of them, another name is said."""
    same, other = tmp_path / "same", tmp_path / "other"
    shutil.copytree(tiny_folder, same)
    shutil.copytree(tiny_folder, other)
    weights = load_file(other / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, other / "model.safetensors", {"format": "pt"})
    lora(str(same), adapter=sft)
    lora(tiny_folder, QLoRAPolicy, adapter=sft)
    assert not [warning for warning in recwarn if "was made on" in str(warning.message)]
    with pytest.raises(PolicyError, match=f"adapter must be one of the base that is trained, {other} .*, got '{sft}'"):
        lora(str(other), adapter=sft)
    with pytest.warns(UserWarning, match=f"was made on {tiny_folder}: whether that is {other} is not known"):
        lora(str(other), QLoRAPolicy, adapter=sft)
    (Path(sft) / "base.json").unlink()
    with pytest.warns(UserWarning, match=f"was made on {tiny_folder}: whether that is {other} is not known"):
        lora(str(other), adapter=sft)


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors", "base.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", bytes(100)])
def test_broken_files_are_refused(tiny_folder: str, sft: str, name: str, content: bytes) -> None:
    """Where training starts from them, and where they are looked at."""
    (Path(sft) / name).write_bytes(content)
    with pytest.raises(PolicyError, match=r"adapter must be .*, got "):
        lora(tiny_folder, adapter=sft)
    if name != "base.json":
        with pytest.raises(PolicyError, match=r"must be .*, got "):
            exported(sft).load()


@pytest.mark.parametrize("change", ["lacks one", "one too many", "of another shape"])
def test_tensors_without_a_place_and_places_without_a_tensor_are_refused(sft: str, change: str) -> None:
    """peft leaves such as they are at random, and out, with a warning."""
    file = Path(sft) / "adapter_model.safetensors"
    held = load_file(file)
    name = next(iter(held))
    if change == "lacks one":
        del held[name]
    elif change == "one too many":
        held[name.replace("layers.0", "layers.7").replace("layers.1", "layers.7")] = held[name].clone()
    else:
        held[name] = torch.cat([held[name], held[name]])
    save_file(held, file)
    with pytest.raises(PolicyError, match=r"adapter.* must be"):
        exported(sft).load()
