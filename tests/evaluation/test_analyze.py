"""The verb `analyze` as a user types it, on tiny models."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from peft import LoraConfig, get_peft_model
from support.models import tiny_llama_model
from support.training import Write
from transformers import PreTrainedTokenizerBase

from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.evaluation.shift_report import read_shifts
from lightning_bnf.evaluation.shifts import single_responses
from lightning_bnf.generation.sampling import Sampling, generate_ids

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture
def adapter(tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> str:
    """A peft folder as runs export it."""
    torch.manual_seed(1)
    config = LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    adapted = get_peft_model(tiny_llama_model(len(tokenizer)), config)
    adapted.peft_config["default"].base_model_name_or_path = tiny_folder
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    return str(tmp_path / "adapter")


def analyze(output: Path, policies: dict[str, str], **settings: object) -> None:
    """Words in their order: what comes after a config wins over it."""
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    main(["analyze", *words, "--output", str(output), "--policies", json.dumps(policies)])


def test_given_responses(
    tmp_path: Path, tiny_folder: str, adapter: str, write_pairs: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reference as one of the policies has not moved at all; the adapter has, and defines the bins."""
    analyze(
        tmp_path / "out", {"same": tiny_folder, "moved": adapter},
        reference=tiny_folder, responses=write_pairs(), bins_of="moved",
    )  # fmt: skip
    assert "moved" in capsys.readouterr().out
    found = read_shifts(tmp_path / "out")
    assert found.responses.groupby("policy").size().to_dict() == {"same": 10, "moved": 10}
    same, moved = (found.responses[found.responses["policy"] == name] for name in ("same", "moved"))
    assert same[["logp_shift", "logit_shift", "gini_logit"]].abs().max().max() == 0
    assert (moved["logit_shift"] > 0.1).all()
    assert moved["label"].tolist() == [1, -1] * 5
    assert (moved["logp_shift"] / moved["tokens"]).to_numpy() == pytest.approx(moved["logp_shift_per_token"], abs=1e-5)
    shares = found.bins.pivot(index="bin", columns="policy", values="share")
    assert shares["moved"].to_numpy() == pytest.approx(np.full(10, 0.1), abs=0.02)
    assert shares["same"].max() == 1.0, "zero lies in one of the bins"
    assert found.bins["up_to"].max() == np.inf
    assert found.table.loc["same", "absolute logit shift"] == "0 [0, 0]"
    record = json.loads((tmp_path / "out/shifts.json").read_text())
    assert record["policies"]["moved"]["weights"] != record["reference"]["weights"]
    assert record["policies"]["same"]["weights"] == record["reference"]["weights"]
    for name in ("shifts.png", "shift_bins.png"):
        assert (tmp_path / "out" / name).stat().st_size > 10_000
    assert found.bins_of == "moved"


def test_own_greedy_responses(
    tmp_path: Path, tiny_folder: str, adapter: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    """Every policy answers each prompt once; the lengths are those of its own completions."""
    file = write_pairs()
    analyze(
        tmp_path / "out", {"base": tiny_folder, "moved": adapter},
        reference=tiny_folder, prompts=file, limit=3, max_new_tokens=6,
    )  # fmt: skip
    found = read_shifts(tmp_path / "out/shifts.json").responses
    prompts = [row.prompt_ids for row in load_rows(file, tokenizer)[0][:3]]
    model = tiny_llama_model(len(tokenizer))
    right = [len(ids) for (ids,) in generate_ids(model, tokenizer, prompts, Sampling(0.0, 6))]
    assert found[found["policy"] == "base"]["tokens"].tolist() == right
    assert found.groupby("policy").size().to_dict() == {"base": 3, "moved": 3}


def test_a_file_of_responses_for_each_policy(
    tmp_path: Path, tiny_folder: str, adapter: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    files = {"a": write_pairs("a.jsonl"), "b": write_pairs("b.jsonl", rows=2)}
    analyze(
        tmp_path / "out", {"a": adapter, "b": adapter},
        reference=tiny_folder, responses=json.dumps(files), labels="[-1]",
    )  # fmt: skip
    found = read_shifts(tmp_path / "out").responses
    assert found.groupby("policy").size().to_dict() == {"a": 5, "b": 2}
    rejected = single_responses(load_rows(files["b"], tokenizer)[0], (-1,))
    assert found[found["policy"] == "b"]["id"].tolist() == [row.id for row in rejected]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "responses and prompts must be given one without the other"),
        ({"responses": "a.jsonl", "prompts": "b.jsonl"}, "responses and prompts must be given one without the other"),
        ({"responses": '{"x": "a.jsonl"}'}, "responses must be one file for all, or one each for p, got x"),
        ({"responses": "a.jsonl", "bins_of": "dpo"}, "bins_of must be of p, got 'dpo'"),
        ({"responses": "a.jsonl", "labels": "[0]"}, "labels must be [1], [-1], [1, -1] or null, got [0]"),
        ({"responses": "no-such.jsonl"}, "no-such.jsonl"),
    ],
)
def test_refusals(
    tmp_path: Path, tiny_folder: str, settings: dict[str, str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        analyze(tmp_path / "out", {"p": tiny_folder}, reference=tiny_folder, **settings)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_policy_with_other_tokens_is_refused(
    tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, capsys
) -> None:
    other = type(tokenizer).from_pretrained(tiny_folder)
    other.chat_template = "{{ messages }}"
    tiny_llama_model(len(tokenizer)).save_pretrained(tmp_path / "other")
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(SystemExit):
        analyze(tmp_path / "out", {"p": str(tmp_path / "other")}, reference=tiny_folder, responses=write_pairs())
    assert "policies must be trained from the reference, got 'p', whose template differs" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "configs/analyze").glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_configs(
    tmp_path: Path, tiny_folder: str, adapter: str, monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    policies = yaml.safe_load(path.read_text())["policies"]
    analyze(
        tmp_path / "out", dict.fromkeys(policies, adapter),
        config=path, reference=tiny_folder, limit=2, max_new_tokens=4,
    )  # fmt: skip
    assert read_shifts(tmp_path / "out").responses.groupby("policy").size().to_dict() == dict.fromkeys(policies, 2)
