"""align: the defaults of fit, with objects in place of files; what it leaves, and what it refuses before loading."""

import inspect
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from lightning.pytorch import Callback
from peft import PeftModel
from safetensors.torch import load_file
from support.commands import refused
from support.models import PAIRS
from torch.nn.functional import softplus
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase

from lightning_bnf import BNF, DPO, FullPolicy, LoRAPolicy, Loss, LossOutput, PreferenceData, QLoRAPolicy, Run, align
from lightning_bnf.alignment import POLICIES, _arguments, loss_of, shared_out
from lightning_bnf.cli.main import main
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.refusal import Refusal

ROWS = [
    {"prompt": f"{prompt} ({i})", "chosen": chosen, "rejected": rejected}
    for i in range(2)
    for prompt, chosen, rejected in PAIRS
]
SHORT = {"accelerator": "cpu", "examples_per_step": 5, "max_tokens": 512, "enable_progress_bar": False}


LORA: dict[str, Any] = {
    "revision": None,
    "r": None,
    "alpha": None,
    "dropout": 0.0,
    "target_modules": None,
    "use_rslora": None,
    "use_dora": None,
    "adapter": None,
    "dtype": "float32",
    "attention": None,
    "gradient_checkpointing": False,
    "reference_of": "start",
    "compiled": False,
}


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
        "init_args": LORA | {"r": 4, "source": tiny_folder},
    }
    assert config["model"]["loss"]["class_path"].endswith(".MeanMargin")
    assert config["model"]["optimization"]["learning_rate"] == 5e-5
    assert config["data"]["train"] == ["train (DataFrame of 10 rows)"]
    assert config["data"]["validation"] == "auto"
    assert (config["data"]["examples_per_step"], config["data"]["max_tokens"]) == (5, 512)
    assert config["trainer"]["precision"] == "32-true"


@pytest.mark.slow
def test_the_config_says_what_a_policy_of_ones_own_was_made_with(tmp_path: Path, tiny_folder: str) -> None:
    own = {"r": 8, "alpha": 4.0, "target_modules": ["q_proj", "v_proj"], "use_rslora": True, "attention": "eager"}
    run = align(LoRAPolicy(tiny_folder, **own), ROWS, MeanMargin, folder=tmp_path / "run", max_steps=1, **SHORT)
    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert config["model"]["policy"]["init_args"] == LORA | own | {"source": tiny_folder}


def test_the_arguments_of_every_policy_are_kept(tiny_folder: str) -> None:
    """By their names, which is how config.yaml finds them."""
    for kind in POLICIES.values():
        assert _arguments(kind(tiny_folder)).keys() == inspect.signature(kind).parameters.keys()
    assert _arguments(QLoRAPolicy(tiny_folder, double_quantization=False))["double_quantization"] is False


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
def test_a_run_that_reads_what_the_last_one_left_does_not_move_it_aside(tmp_path: Path, tiny_folder: str) -> None:
    """Such as going on from its adapter with another loss; and one that is refused later leaves all as it was."""
    folder, settings = tmp_path / "run", SHORT | {"max_steps": 1, "r": 4, "validation": None}
    align(tiny_folder, ROWS, "sft", folder=folder, **settings)
    before = sorted(folder.rglob("*"))
    told = rf"folder must be another folder than that of adapter {folder}/policy, got {folder}, .*folder={folder}_next"
    with pytest.raises(Refusal, match=told):
        align(tiny_folder, ROWS, "dpo", folder=folder, adapter=str(folder / "policy"), **settings)
    with pytest.raises(Refusal):
        align(tiny_folder, str(tmp_path / "none.jsonl"), "dpo", folder=folder, **settings)
    assert sorted(folder.rglob("*")) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_the_commands_go_on_from_its_folder(tmp_path: Path, tiny_folder: str, write_pairs: Any) -> None:
    run = align(tiny_folder, write_pairs(), folder=tmp_path / "run", r=4, reference="adapter_off", **SHORT)
    merged = str(tmp_path / "merged")
    main(["export", "--config", str(run.folder / "config.yaml"), "--ckpt_path", "last", "--folder", merged])
    assert Path(merged, "adapter_model.safetensors").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("rows", [list, pd.DataFrame])
def test_a_run_on_rows_in_memory_is_exported_and_merged_without_them(
    tmp_path: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str], rows: Any
) -> None:
    """Nothing is there to measure the merge on, which is said; other commands say why they read nothing."""
    run = align(tiny_folder, rows(ROWS), folder=tmp_path / "run", r=4, **SHORT)
    words, merged = ["export", "--config", str(run.folder / "config.yaml"), "--folder"], tmp_path / "merged"
    main([*words, str(tmp_path / "adapter")])
    main([*words, str(merged), "--merge"])
    told = "what that changes was not measured: the run's rows were in memory"
    assert told in capsys.readouterr().out
    assert told in (merged / "README.md").read_text()
    assert f"{rows.__name__} of {len(ROWS)} rows" in (merged / "README.md").read_text()
    adapter = "adapter_model.safetensors"
    wanted, found = (load_file(folder / adapter) for folder in (run.folder / "policy", tmp_path / "adapter"))
    assert all(torch.equal(found[name], value) for name, value in wanted.items())
    whole = AutoModelForCausalLM.from_pretrained(merged).state_dict()
    base = AutoModelForCausalLM.from_pretrained(tiny_folder).state_dict()
    assert any(not torch.equal(whole[name], value) for name, value in base.items())
    message = refused(capsys, "validate", "--config", str(run.folder / "config.yaml"))
    assert "these rows were in memory when the run was made, and its config holds none of them" in message


@pytest.mark.slow
def test_a_run_that_has_lost_its_checkpoints_is_not_replaced(
    tmp_path: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings: dict[str, Any] = SHORT | {"folder": tmp_path / "run", "r": 4, "max_steps": 1}
    first = align(tiny_folder, ROWS, **settings, enable_checkpointing=False)
    metrics = (first.folder / "metrics.csv").read_text()
    align(tiny_folder, ROWS, **settings, resume=True)
    assert f"{tmp_path / 'run'} held a run already; it is now {tmp_path / 'run.1'}" in capsys.readouterr().out
    assert (tmp_path / "run.1/metrics.csv").read_text() == metrics


class Signal(Callback):
    """A kernel's interrupt, or a queue's end, in the middle of the first step."""

    def __init__(self, number: int):
        self.number = number

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == 0:
            signal.raise_signal(self.number)


@pytest.mark.slow
def test_an_interrupted_run_is_returned_and_gone_on_with(
    tmp_path: Path, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two steps: after the first the policy is that of its checkpoint, and both are the second run's beginning."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    settings: dict[str, Any] = SHORT | {"folder": tmp_path / "run", "r": 4}
    run = align(tiny_folder, ROWS, **settings, callbacks=[Signal(signal.SIGINT)])
    assert "stopped after step 1 of 2; go on with align(..., resume=True)" in capsys.readouterr().out
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert run.metrics.query("split == 'train' and metric == 'loss'")["step"].tolist() == [0]
    (checkpoint,) = (tmp_path / "run/checkpoints").glob("*.ckpt")
    saved, held = torch.load(checkpoint, weights_only=True)["state_dict"], run.policy.state_dict()
    assert saved
    written = load_file(tmp_path / "run/policy/adapter_model.safetensors")
    plain = {name.replace(".default", "").removeprefix("policy.model."): value for name, value in saved.items()}
    assert {name: value.tolist() for name, value in written.items()} == {
        name: value.tolist() for name, value in plain.items()
    }
    assert all(torch.equal(held[name.removeprefix("policy.model.")], value) for name, value in saved.items())
    again = align(tiny_folder, ROWS, **settings, resume=True)
    whole = align(tiny_folder, ROWS, **(settings | {"folder": tmp_path / "whole"}))
    assert not (tmp_path / "run.1").exists()
    assert again.metrics.query("split == 'train' and metric == 'loss'")["step"].tolist() == [0, 1]
    wanted = whole.policy.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.policy.state_dict().items())


@pytest.mark.slow
def test_what_is_told_to_end_ends(tmp_path: Path, tiny_folder: str) -> None:
    with pytest.raises(SystemExit) as stop:
        align(tiny_folder, ROWS, folder=tmp_path / "run", r=4, callbacks=[Signal(signal.SIGTERM)], **SHORT)
    assert stop.value.code == 143


class Twice(Signal):
    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        signal.raise_signal(self.number)
        signal.raise_signal(self.number)


class Early(Signal):
    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        signal.raise_signal(self.number)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Twice, Early])
def test_a_second_interrupt_is_the_kernels_own(tmp_path: Path, tiny_folder: str, kind: type[Signal]) -> None:
    """And the first, where no step is there to save after; Lightning would have the kernel ignore all later ones."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            align(tiny_folder, ROWS, folder=tmp_path / "run", r=4, callbacks=[kind(signal.SIGINT)], **SHORT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_all_weights_of_a_loaded_model_are_not_gone_on_with(tmp_path: Path, tiny_llama: Any, tokenizer: Any) -> None:
    with pytest.raises(Refusal, match="model must be a name or folder to resume with where all weights are trained"):
        align(tiny_llama, ROWS, tokenizer=tokenizer, policy="full", folder=tmp_path, resume=True, **SHORT)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_policy_is_aligned_once(tmp_path: Path, tiny_folder: str) -> None:
    """A second run is refused before the folder is touched, and one that was interrupted is gone on with."""
    policy, settings = LoRAPolicy(tiny_folder, r=4), SHORT | {"folder": tmp_path / "run"}
    align(policy, ROWS, **settings, callbacks=[Signal(signal.SIGINT)])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(Refusal, match="policy must be one that no run has trained, got a LoRAPolicy that one has"):
        align(policy, ROWS, "dpo", **settings)
    assert sorted(tmp_path.rglob("*")) == before
    again = align(policy, ROWS, **settings, resume=True)
    whole = align(LoRAPolicy(tiny_folder, r=4), ROWS, **(settings | {"folder": tmp_path / "whole"}))
    wanted = whole.policy.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in again.policy.state_dict().items())


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
        ("default_root_dir", "did you mean 'folder'"),
        ("output_dir", "did you mean 'folder'"),
        ("ckpt_path", "did you mean 'resume'"),
        ("resume_from_checkpoint", "did you mean 'resume'"),
        ("max_new_tokens", "did you mean 'generation'"),
        ("beta", r"a loss's own settings go into the loss, as in loss=DPO\(beta=0.3\)$"),
        ("xyzzy", "got 'xyzzy'$"),
    ],
)
def test_an_unknown_setting_is_refused_with_the_one_that_is_meant(name: str, hint: str) -> None:
    with pytest.raises(Refusal, match=f"settings must be arguments of policy, data, module or Trainer, .*{hint}"):
        shared_out({name: 1}, LoRAPolicy)
    with pytest.raises(Refusal, match="got 'r'"):
        shared_out({"r": 4}, FullPolicy)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"r": 64, "alpha": 128}, r"beside a policy, got 'r'; the policy's own go into it: LoRAPolicy\(\.\.\., r=64\)"),
        ({"dtype": "bfloat16"}, r"beside a policy, got 'dtype'; .* LoRAPolicy\(\.\.\., dtype='bfloat16'\)"),
        ({"tokenizer": 1}, r"tokenizer must be left out beside a policy, got one: LoRAPolicy.of\(model, tokenizer\)"),
        ({"policy": "full"}, "policy must be left out where the model is one, a LoRAPolicy, got 'full'"),
        ({"policy": FullPolicy}, "policy must be left out where the model is one, a LoRAPolicy, got <class"),
    ],
)
def test_what_a_policy_that_is_given_says_itself_is_refused(
    tmp_path: Path, tiny_folder: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        align(LoRAPolicy(tiny_folder), ROWS, folder=tmp_path / "run", **settings, **SHORT)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"max_length": 512}, r"got 'max_length'; .* PreferenceData\(\.\.\., options=DataOptions\(max_length=512\)\)"),
        (
            {"examples_per_step": 8},
            r"beside a PreferenceData, got 'exam.*; .*\(\.\.\., examples_per_step=8\)",
        ),
        ({"validation": "val.jsonl"}, "validation must be left out beside a PreferenceData, got 'val.jsonl': Pref"),
        ({"validation": None}, "validation must be left out beside a PreferenceData, got None"),
        ({"validation": pd.DataFrame(ROWS)}, "validation must be left out beside a PreferenceData, got DataFrame"),
        (
            {"seed": 7},
            r"seed must be that of the PreferenceData beside one, 3, got 7: Pre.*\(\.\.\., seed=7\)",
        ),
    ],
)
def test_what_data_that_are_given_say_themselves_is_refused(
    tmp_path: Path, tiny_folder: str, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(Refusal, match=words):
        align(tiny_folder, PreferenceData(ROWS, seed=3), folder=tmp_path / "run", accelerator="cpu", **settings)
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_is_none_of_a_name(tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(Refusal, match=r"tokenizer must be left out beside the name of a model, got one with '.*'"):
        align(tiny_folder, ROWS, tokenizer=tokenizer, folder=tmp_path / "run", **SHORT)


def test_a_losss_own_setting_is_refused_with_where_it_goes() -> None:
    with pytest.raises(Refusal, match=r"got 'beta'; a loss's own settings go into the loss: loss=DPO\(beta=0.3\)$"):
        shared_out({"beta": 0.3}, LoRAPolicy, DPO())
    with pytest.raises(Refusal, match=r"got 'beta'; a loss's own settings go into the loss, as in loss=DPO"):
        shared_out({"beta": 0.3}, LoRAPolicy, MeanMargin())


def test_a_misspelled_loss_is_refused_with_the_nearest() -> None:
    with pytest.raises(Refusal, match=r"got 'dpoo'; did you mean 'dpo'\?$"):
        loss_of("dpoo")


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
