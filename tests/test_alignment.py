"""align: the defaults of fit, with objects in place of files; what it leaves, and what it refuses before loading."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from peft import PeftModel
from support.models import PAIRS
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lightning_bnf import BNF, DPO, FullPolicy, LoRAPolicy, Loss, LossOutput, Run, align
from lightning_bnf.alignment import loss_of, shared_out
from lightning_bnf.cli.main import main
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.refusal import Refusal

ROWS = [
    {"prompt": f"{prompt} ({i})", "chosen": chosen, "rejected": rejected}
    for i in range(2)
    for prompt, chosen, rejected in PAIRS
]
SHORT = {"accelerator": "cpu", "examples_per_step": 5, "max_tokens": 512, "enable_progress_bar": False}


class MeanMargin(Loss):
    """A loss of a notebook's cell."""

    needs_reference = False
    needs_pairs = True

    def __init__(self, width: float = 1.0):
        self.width = width

    def __call__(self, policy: Any, reference: Any, examples: Any, step: Any) -> LossOutput:
        return LossOutput(softplus(-examples.chosen_minus_rejected(policy.mean()) / self.width))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> Run:
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    folder = tmp_path_factory.mktemp("runs") / "run"
    return align(model, pd.DataFrame(ROWS), MeanMargin, tokenizer=tokenizer, folder=folder, r=4, **SHORT)


@pytest.mark.slow
def test_a_loaded_model_a_table_and_a_loss_of_ones_own(run: Run) -> None:
    """10 rows, of which none is held out: two steps of five."""
    assert isinstance(run.policy, PeftModel)
    assert isinstance(run.module.loss, MeanMargin)
    assert run.metrics.query("split == 'train' and metric == 'loss'")["step"].tolist() == [0, 1]
    for name in ("metrics.csv", "report.html", "policy/adapter_model.safetensors", "checkpoints/step=2.ckpt"):
        assert (run.folder / name).is_file(), name


@pytest.mark.slow
def test_the_config_says_what_the_run_was_made_with(run: Run, tiny_folder: str) -> None:
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["policy"] == {
        "class_path": "lightning_bnf.policies.LoRAPolicy",
        "init_args": {"r": 4, "source": tiny_folder, "dtype": "float32"},
    }
    assert config["model"]["loss"]["class_path"].endswith(".MeanMargin")
    assert config["model"]["optimization"]["learning_rate"] == 5e-5
    assert config["data"]["train"] == ["train (DataFrame of 10 rows)"]
    assert config["data"]["validation"] == "auto"
    assert (config["data"]["examples_per_step"], config["data"]["max_tokens"]) == (5, 512)
    assert config["trainer"]["precision"] == "32-true"


@pytest.mark.slow
def test_a_hub_id_or_folder_and_a_second_run(tmp_path: Path, tiny_folder: str) -> None:
    settings: dict[str, Any] = SHORT | {"max_steps": 1, "enable_checkpointing": False, "policy": "full"}
    first = align(tiny_folder, ROWS, "dpo", folder=tmp_path / "run", validation=None, **settings)
    assert isinstance(first.module.loss, DPO)
    assert first.module.optimization.learning_rate == 5e-7
    assert not (first.folder / "checkpoints").exists()
    second = align(tiny_folder, ROWS, DPO(beta=0.5), folder=tmp_path / "run", validation=ROWS[:2], **settings)
    assert (tmp_path / "run.1/config.yaml").is_file()
    assert second.metrics["split"].unique().tolist() == ["train", "val"] or "val" in set(second.metrics["split"])
    assert yaml.safe_load((second.folder / "config.yaml").read_text())["model"]["loss"]["init_args"]["beta"] == 0.5


@pytest.mark.slow
def test_the_commands_go_on_from_its_folder(tmp_path: Path, tiny_folder: str, write_pairs: Any) -> None:
    run = align(tiny_folder, write_pairs(), folder=tmp_path / "run", r=4, reference="adapter_off", **SHORT)
    merged = str(tmp_path / "merged")
    main(["export", "--config", str(run.folder / "config.yaml"), "--ckpt_path", "last", "--folder", merged])
    assert Path(merged, "adapter_model.safetensors").is_file()


def test_a_strangers_folder_is_refused_and_left(tmp_path: Path, tiny_folder: str) -> None:
    (tmp_path / "thesis.tex").write_text("all of it")
    with pytest.raises(Refusal, match="folder must be a new or empty folder, or one that `fit` wrote"):
        align(tiny_folder, ROWS, folder=tmp_path, **SHORT)
    assert (tmp_path / "thesis.tex").read_text() == "all of it"


def test_each_setting_goes_to_the_object_that_has_it() -> None:
    parts = shared_out(
        {"r": 4, "max_length": 100, "examples_per_step": 8, "schedule": "linear", "entropy": True, "max_epochs": 3},
        LoRAPolicy,
    )
    assert parts == ({"r": 4}, {"max_length": 100}, {"examples_per_step": 8}, {"schedule": "linear"},
                     {"entropy": True}, {"max_epochs": 3})  # fmt: skip


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("lr", "did you mean 'learning_rate'"),
        ("batch_size", "did you mean 'examples_per_step'"),
        ("epochs", "did you mean 'max_epochs'"),
        ("max_epoch", "did you mean 'max_epochs'"),
        ("default_root_dir", "got 'default_root_dir'"),
        ("xyzzy", "got 'xyzzy'$"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_that_is_meant(name: str, hint: str) -> None:
    with pytest.raises(Refusal, match=f"settings must be arguments of policy, data, module or Trainer, .*{hint}"):
        shared_out({name: 1}, LoRAPolicy)
    with pytest.raises(Refusal, match="got 'r'"):
        shared_out({"r": 4}, FullPolicy)


def test_a_loss_is_a_name_a_class_or_an_object(tmp_path: Path) -> None:
    assert isinstance(loss_of("bnf"), BNF)
    assert repr(loss_of("DPO")) == repr(loss_of(DPO)) == repr(DPO())
    assert repr(loss_of("dpo_nll")).startswith("Sum(")
    own = DPO(beta=0.5)
    assert loss_of(own) is own
    (tmp_path / "own.yaml").write_text("class_path: lightning_bnf.losses.DPO\ninit_args: {beta: 0.7}\n")
    assert loss_of(str(tmp_path / "own.yaml")).beta == 0.7  # type: ignore[attr-defined]
    for bad in ("dpp", "no.yaml", torch.nn.Linear, 3):
        with pytest.raises(Refusal, match=r"loss must be one of aot, .*, a YAML file, or a loss, got"):
            loss_of(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["lra", Policy.__mro__[1]])
def test_no_such_policy(tiny_folder: str, policy: Any) -> None:
    with pytest.raises(Refusal, match="policy must be lora, qlora, full or a class of Policy, got"):
        align(tiny_folder, ROWS, policy=policy)


def test_a_loaded_model_needs_its_tokenizer(tiny_llama: Any) -> None:
    with pytest.raises(Refusal, match="tokenizer must be given beside a model that is loaded, got none"):
        align(tiny_llama, ROWS)
