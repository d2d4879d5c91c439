"""A run as notebooks use it: answers before and after, tables, figures and the page."""

from pathlib import Path

import pytest
import torch
from support.models import PAIRS
from support.training import FAST
from transformers import PreTrainedTokenizerBase

from lightning_bnf.aligned import Run
from lightning_bnf.losses import BNF, SFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal

QUESTIONS = [PAIRS[0][0], [{"role": "user", "content": PAIRS[1][0]}]]


def moved(policy: LoRAPolicy | FullPolicy, folder: Path) -> Run:
    """A run whose policy is far from where it began."""
    module = PreferenceModule(policy, SFT() if isinstance(policy, FullPolicy) else BNF(), optimization=FAST)
    module.configure_model()
    generator = torch.Generator().manual_seed(0)
    for parameter in module.policy.trainable().values():
        parameter.data += torch.randn(parameter.shape, generator=generator)
    return Run(folder, module)


def test_before_is_the_model_without_what_was_trained(tmp_path: Path, tiny_folder: str) -> None:
    run = moved(LoRAPolicy(tiny_folder), tmp_path)
    table = run.compare(QUESTIONS, max_new_tokens=6)
    assert list(table.columns) == ["prompt", "before", "after"]
    assert table["prompt"].tolist() == [PAIRS[0][0], PAIRS[1][0]]
    assert (table["before"] != table["after"]).all()
    untouched = Run(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=FAST))
    assert untouched.module is not None
    untouched.module.configure_model()
    same = untouched.compare(QUESTIONS, max_new_tokens=6)
    assert same["before"].tolist() == same["after"].tolist() == table["before"].tolist()
    assert run.compare(PAIRS[0][0], max_new_tokens=6)["after"].tolist() == table["after"].tolist()[:1]


def test_all_weights_need_a_frozen_copy(tmp_path: Path, tiny_folder: str) -> None:
    run = moved(FullPolicy(tiny_folder), tmp_path)
    with pytest.raises(Refusal, match=r"reference must be copy to compare with, .* got none: what the model was"):
        run.compare("Hi", max_new_tokens=2)


def test_the_copy_is_what_was_before(tmp_path: Path, tiny_folder: str) -> None:
    module = PreferenceModule(FullPolicy(tiny_folder), BNF(), optimization=FAST)
    module.configure_model()
    for parameter in module.policy.trainable().values():
        parameter.data += 0.5
    table = Run(tmp_path, module).compare("Hi", max_new_tokens=4)
    assert table.loc[0, "before"] != table.loc[0, "after"]


@pytest.mark.parametrize("take_out", ["unload", "merge_and_unload"])
def test_a_policy_without_its_adapters_is_not_compared(tmp_path: Path, tiny_folder: str, take_out: str) -> None:
    run = moved(LoRAPolicy(tiny_folder), tmp_path)
    getattr(run.policy, take_out)()
    with pytest.raises(Refusal, match=r"policy must still hold its adapters to compare with, .* run's policy/ folder"):
        run.compare("Hi", max_new_tokens=2)


def test_a_folder_is_opened_again(tmp_path: Path, tiny_folder: str) -> None:
    """The same answers as of the run itself, from what it exported."""
    run = moved(LoRAPolicy(tiny_folder), tmp_path)
    assert run.module is not None
    wanted = run.compare(QUESTIONS, max_new_tokens=6)
    weights = {name: value.detach() for name, value in run.module.policy.trainable().items()}
    run.module.policy.save(str(tmp_path / "policy"), weights, "5GB")
    run.tokenizer.save_pretrained(tmp_path / "policy")
    again = Run(str(tmp_path))
    assert repr(again) == f"Run({str(tmp_path)!r})"
    assert again.compare(QUESTIONS, max_new_tokens=6).to_dict() == wanted.to_dict()
    assert (again.policy.training, len(again.tokenizer)) == (False, len(run.tokenizer))


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"folder must be a run folder, got .*none', which is none"):
        Run(tmp_path / "none")
    with pytest.raises(Refusal, match=r"run must be a run folder with policy/ in it"):
        Run(tmp_path).policy  # noqa: B018


def test_a_run_says_what_it_is(tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    run = moved(LoRAPolicy(tiny_folder), tmp_path)
    assert repr(run) == f"Run({str(tmp_path)!r}: BNF on {tiny_folder})"
    assert not run.policy.training
    assert len(run.tokenizer) == len(tokenizer)


@pytest.mark.drawing
def test_metrics_figure_and_page_are_of_the_folder(tmp_path: Path, tiny_folder: str) -> None:
    (tmp_path / "metrics.csv").write_text("step,train/loss,train/logps_mean/chosen\n0,1.5,-2.0\n1,1.25,-1.5\n")
    run = moved(LoRAPolicy(tiny_folder), tmp_path)
    assert run.metrics.query("metric == 'loss'")["value"].tolist() == [1.5, 1.25]
    assert run.plot().axes[0].get_ylabel() == "mean log-probability (nats a token)"
    assert run.plot()._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    shown = run.report(height=300)._repr_html_()
    assert shown.startswith("<iframe srcdoc=")
    assert "height: 300px" in shown
    assert (tmp_path / "report.html").is_file()


def test_a_run_keeps_its_folder_when_another_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two losses one after the other into the same folder: the first run's numbers stay its own."""
    monkeypatch.chdir(tmp_path)

    def left(loss: float) -> Run:
        folder = Path("runs/latest")
        folder.mkdir(parents=True)
        (folder / "metrics.csv").write_text(f"step,train/loss\n0,{loss}\n")
        return Run(folder)

    first = left(1.0)
    assert first.folder == Path("runs/latest")
    Path("runs/latest").rename("runs/latest.1")
    second = left(2.0)
    assert [run.metrics["value"].tolist() for run in (first, second)] == [[1.0], [2.0]]
    assert first.folder == tmp_path / "runs/latest.1"
    monkeypatch.chdir(tmp_path.parent)
    assert second.metrics["value"].tolist() == [2.0], "nor does the working directory say which it is"
    (tmp_path / "runs/latest").rename(tmp_path / "runs/mine")
    with pytest.raises(Refusal, match="folder must stay where the run was, or beside it under a number, got none at"):
        _ = second.metrics
