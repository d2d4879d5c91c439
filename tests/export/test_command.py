"""From data to an exported folder on the command line, with the trainer and policy files for a 24 GB card."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from support.commands import refused
from support.hubs import folder_hub
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_bnf.cli.main import main
from lightning_bnf.policies.sources import load_model
from lightning_bnf.results.tables import read_metrics

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Fit = Callable[..., Path]


@pytest.fixture
def fit(tmp_path: Path, tiny_folder: str, write_pairs: Callable[..., str]) -> Fit:
    """Trains on the CPU with the files for a 24 GB card; further words replace settings. Returns the run folder."""
    data, validation = write_pairs(rows=10), write_pairs("validation.jsonl", rows=3)

    def run(*words: str, policy: str = "qlora") -> Path:
        given = {
            "model.policy": str(ROOT / f"configs/policy/{policy}.yaml"),
            "model.policy.init_args.source": tiny_folder,
            "model.policy.init_args.dtype": "float32",
            "model.loss": str(ROOT / "configs/loss/bnf.yaml"),
            "model.optimization.learning_rate": "0.01",
            "data.train": data,
            "data.validation": validation,
            "data.examples_per_step": "5",
            "trainer": str(ROOT / "configs/trainer/qlora_24gb.yaml"),
            "trainer.accelerator": "cpu",
            "trainer.max_epochs": "3",
            "trainer.default_root_dir": str(tmp_path / "run"),
        }
        main(["fit", *(part for name, value in given.items() for part in (f"--{name}", value)), *words])
        return tmp_path / "run"

    return run


def exported(run: Path, *words: str) -> Path:
    folder = run.parent / "out"
    main(["export", "--config", str(run / "config.yaml"), "--folder", str(folder), *words])
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_a_24_gb_run_trains_resumes_exports_and_merges(
    fit: Fit, tiny_folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit()
    whole = weights(run / "policy")
    first = run.parent / "run" / "checkpoints" / "step=2.ckpt"
    if not first.exists():  # only the last two are kept
        first = sorted((run / "checkpoints").glob("*.ckpt"))[0]
    fit("--ckpt_path", str(first))
    for name, value in weights(run / "policy").items():
        assert torch.equal(value, whole[name]), "a resumed run ends as one that was not interrupted"
    capsys.readouterr()
    folder = exported(run, "--ckpt_path", "last")
    assert f"{folder}: QLoRAPolicy of step 6\n" in capsys.readouterr().out
    assert all(torch.equal(value, whole[name]) for name, value in weights(folder).items())
    assert (folder / "README.md").read_text() == (run / "policy" / "README.md").read_text()
    folder = exported(run, "--ckpt_path", "last", "--merge", "true", "--dtype", "float32", "--rows", "2")
    shown = capsys.readouterr().out
    found = re.search(
        r"step 6, merged into float32 weights; token log-probs of (\d+) tokens in 2 rows differ by", shown
    )
    assert found is not None, shown
    assert int(found[1]) > 10
    mean = re.search(r"nats \((\S+) on average\) from those of the trained policy", shown)
    assert mean is not None
    assert ("That is another model than the trained one" in shown) == (float(mean[1]) > 0.05)
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    wanted = PeftModel.from_pretrained(load_model(tiny_folder), run / "policy")
    ids = torch.tensor([[1, 50, 60, 70]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, wanted(ids).logits, rtol=0, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert "library_name: transformers" in (folder / "README.md").read_text()


def test_30_steps_of_the_quickstarts_data_lower_the_loss(fit: Fit) -> None:
    """Means of five steps, as each step has other rows."""
    run = fit(
        *("--data.train", str(ROOT / "data/quickstart/train_pairs.jsonl"), "--trainer.limit_train_batches", "30"),
        *("--trainer.max_epochs", "1", "--trainer.precision", "32-true", "--trainer.limit_val_batches", "0"),
        *("--model.loss", str(ROOT / "configs/loss/sft.yaml")),
    )
    table = read_metrics(run)
    losses = table[(table["split"] == "train") & (table["metric"] == "loss")]["value"].tolist()
    assert len(losses) == 30
    assert sum(losses[-5:]) / 5 < sum(losses[:5]) / 5 - 0.2


def test_an_unquantized_merge_changes_next_to_nothing(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    """The figure that is printed for LoRA on float32 weights, merged in float32, is rounding."""
    run = fit("--trainer.precision", "32-true", policy="lora")
    exported(run, "--ckpt_path", "last", "--merge", "true", "--dtype", "float32")
    shown = capsys.readouterr().out
    found = re.search(r"differ by at most (\S+) nats \((\S+) on average\)", shown)
    assert found is not None
    assert 0 <= float(found[2]) <= float(found[1]) < 1e-4
    assert "those of the base alone, as it was trained beside and as it is now, by at most 0 (0)" in shown


def test_an_export_is_pushed_when_it_is_whole(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The hub holds what the folder does, but for the hidden mark of whose folder it is."""
    hub = folder_hub(tmp_path / "hub", monkeypatch)
    folder = exported(fit(policy="lora"), "--push", "me/aligned")
    assert "pushed to https://hub/me/aligned" in capsys.readouterr().out
    there = {path.name: path.read_bytes() for path in hub.at("me/aligned", "model").iterdir()}
    assert there == {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}
    assert hub.public == set()
    hub.public.add("me/aligned")
    words = ["--config", str(tmp_path / "run/config.yaml"), "--folder", str(tmp_path / "other")]
    assert "push must be a private model" in refused(capsys, "export", *words, "--push", "me/aligned")
    assert "push must be a model of the hub, owner/name" in refused(capsys, "export", *words, "--push", "./here")
    assert not (tmp_path / "other").exists()


def test_a_full_policy_is_exported_and_not_merged(fit: Fit, capsys: pytest.CaptureFixture[str]) -> None:
    """In bfloat16, with what that leaves of the change, as the run itself has; or whole."""
    run = fit("--trainer.precision", "32-true", policy="full")
    folder = exported(run, "--ckpt_path", "last", "--max_shard_size", "4MB")
    told = r"rounded to bfloat16: the change that is written has cosine (0\.9\d\d|1\.000) to the trained one"
    assert re.search(told, capsys.readouterr().out)
    assert re.search(told, (folder / "README.md").read_text())
    assert len(list(folder.glob("model-*.safetensors"))) == 2
    held = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
    kept = AutoModelForCausalLM.from_pretrained(run / "policy", dtype="auto").state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in held.items())
    whole = exported(run, "--ckpt_path", "last", "--dtype", "float32")
    for name, value in AutoModelForCausalLM.from_pretrained(whole, dtype="auto").state_dict().items():
        assert (value.dtype, held[name].dtype) == (torch.float32, torch.bfloat16)
        assert torch.equal(value.bfloat16(), held[name])
    with pytest.raises(SystemExit):
        exported(run, "--ckpt_path", "last", "--merge", "true")
    assert "merge must be false with FullPolicy, which has no adapter, got true" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--ckpt_path", "/no/such.ckpt"],
            "ckpt_path must be a checkpoint, or 'last', got /no/such.ckpt",
        ),
        (["--ckpt_path", "last", "--rows", "0"], "rows must be >= 1, got 0"),
        (["--ckpt_path", "last", "--model.policy.init_args.r", "3"], "of another shape"),
    ],
)
def test_refusals(fit: Fit, capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    run = fit("--trainer.max_epochs", "1")
    with pytest.raises(SystemExit) as stop:
        exported(run, *words)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
