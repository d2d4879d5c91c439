"""A run's base and policy, loaded to answer: whose weights answer, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from support.chat import run_of
from transformers import AutoModelForCausalLM

from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.generation.sides import opened
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime import slowness
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

IDS = [1, 500, 501, 502]


def greedy(folder: str | Path) -> list[int]:
    """What transformers' own `generate` makes of IDS, the end of turn left out."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    out = model.generate(torch.tensor([IDS]), do_sample=False, max_new_tokens=8)[0, len(IDS) :].tolist()
    return out[: out.index(2)] if 2 in out else out


def test_an_adapter_is_one_model_and_the_base_is_without_it(tmp_path: Path, tiny_folder: str) -> None:
    run = run_of(LoRAPolicy(tiny_folder, target_modules=["q_proj", "down_proj"]), tmp_path)
    found = opened(run)
    base, aligned = found.sides
    assert (base.name, aligned.name) == ("base", "aligned")
    assert base.model is aligned.model
    (before,), (after,), (again,) = (side.answers([IDS], Sampling(0.0, 8)) for side in (base, aligned, base))
    assert before.text == again.text == base.tokenizer.decode(greedy(tiny_folder), skip_special_tokens=True)
    assert after.text != before.text
    merged = aligned.model.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    assert after.text == base.tokenizer.decode(greedy(tmp_path / "merged"), skip_special_tokens=True)
    assert found.about == [
        f"aligned: {tiny_folder} in float32 with the adapter {run}/policy. base: the same with the adapter off."
    ]


def test_full_weights_stand_beside_the_base_that_the_config_names(tmp_path: Path, tiny_folder: str) -> None:
    run = run_of(FullPolicy(tiny_folder), tmp_path)
    found = opened(run)
    texts = [side.answers([IDS], Sampling(0.0, 8))[0].text for side in found.sides]
    folders = (tiny_folder, run / "policy")
    assert texts == [found.sides[0].tokenizer.decode(greedy(one), skip_special_tokens=True) for one in folders]
    assert texts[0] != texts[1]
    assert found.about == [
        f"aligned: {run}/policy, all weights. base: {tiny_folder}, loaded beside it. Both in float32."
    ]
    assert opened(run / "policy").about == found.about, "the policy's folder itself will do"


def test_without_a_config_the_card_names_the_base(tmp_path: Path, tiny_folder: str) -> None:
    run = run_of(FullPolicy(tiny_folder), tmp_path)
    (run / "config.yaml").write_text("- of something else\n")
    with pytest.raises(Refusal, match=r"got '.*': neither the config\.yaml of its run nor its README\.md names the"):
        opened(run)
    (run / "policy/README.md").write_text(f"---\nbase_model: {tiny_folder}\n---\n")
    assert f"base: {tiny_folder}, loaded" in opened(run).about[0]


def test_the_runs_type_and_rendering_are_taken_and_what_differs_is_said(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slowness, "bfloat16_slowness", lambda: 31.0)
    policy = LoRAPolicy(tiny_folder, target_modules=["q_proj"])
    run = run_of(policy, tmp_path, {"system": "merge"}, dtype="bfloat16", adapter="first/adapter")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["model"]["policy"]["class_path"] = "lightning_bnf.policies.QLoRAPolicy"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    found = opened(run)
    assert {parameter.dtype for parameter in found.sides[0].model.get_base_model().parameters()} >= {torch.bfloat16}
    assert found.renderers["aligned"].rendering.system == "merge"
    assert found.about[1:] == [
        "The run started from the adapter first/adapter: base is what was before that one too.",
        "The run trained beside weights in 4 bits; here both answer with the weights in bfloat16.",
        "dtype bfloat16: this CPU takes about 31 times as long for products in bfloat16 as in float32; dtype float32 "
        "is faster here",
    ]
    assert ["in float32" in line for line in opened(run, "float32").about] == [True, False, True]


def test_what_is_no_run_is_refused(tmp_path: Path, tiny_folder: str) -> None:
    with pytest.raises(Refusal, match="run must be a run folder, or an exported policy's, got '/no/such': there is no"):
        opened(Path("/no/such"))
    with pytest.raises(Refusal, match=r"must be a run folder with policy/ in it, .*, which holds none; the command ex"):
        opened(tmp_path)
    run = run_of(LoRAPolicy(tiny_folder, target_modules=["q_proj"]), tmp_path)
    config = run / "policy/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": "/gone/base"}))
    with pytest.raises(Refusal, match=r"run must be one whose policy and base can be loaded, got .*/gone/base"):
        opened(run)
    (run / "config.yaml").write_text("a: [")
    with pytest.raises(Refusal, match=r"run must be a folder whose config\.yaml can be read, got"):
        opened(run)
    (run / "config.yaml").write_text("data: {options: {rendering: {colour: red}}}")
    with pytest.raises(Refusal, match=r"rendering in .* must be of this version's arguments"):
        opened(run)
