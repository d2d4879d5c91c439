"""Every command and every piece of Python in the README runs, on a tiny model and few steps."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from lightning_bnf.cli.main import main
from lightning_bnf.reproduction import scores as matrix
from lightning_bnf.reproduction.runs import expanded, read_results

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    """Every `python -m lightning_bnf ...` of the README, in its order, comments off and continued lines joined."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    found = [line.split(" #")[0].strip() for line in text.splitlines() if line.startswith("python -m lightning_bnf")]
    inline = re.findall(r"`(python -m lightning_bnf [^`]*--config[^`]*)`", README.replace("\n", " "))
    return found + inline


SHORT = {
    "analyze": {"limit": "2", "max_new_tokens": "4"},
    "cache": {"data.train": "mine.jsonl", "data.validation": "null"},
    "export": {"rows": "2"},
    "fit": {
        "trainer.max_steps": "2",
        "trainer.val_check_interval": "2",
        "trainer.limit_val_batches": "1",
        "data.examples_per_step": "2",
    },
    "test": {"trainer.limit_test_batches": "1", "data.test": "data/quickstart/validation_pairs.jsonl"},
    "predict": {"trainer.limit_predict_batches": "1"},
    "plan": {},
    "prepare": {
        "train_prompts": "1",
        "validation_prompts": "1",
        "test_prompts": "1",
        "kept_out_prompts": "1",
        "families": "[plural]",
        "kept_out": "[]",
    },
}

CALLBACK = {
    "quickstart": {"trained_prompts": "2", "kept_out_prompts": "2", "pairs": "2"},
    "experiment/collapse": {"rows": "2"},
}


def test_every_command_runs(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, write_pairs: object
) -> None:
    """The commands build on each other (a run, then its test), so they run in order in one folder."""
    for name in ("configs", "data"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    write_pairs("mine.jsonl")  # type: ignore[operator]
    apart = (" reproduce ", " generate ", " evaluate ", "analyze/table4_small")  # they have tests of their own
    listed = [shlex.split(command)[3:] for command in commands() if not any(word in command for word in apart)]
    assert {words[0] for words in listed} == {"fit", "test", "predict", "prepare", "analyze", "cache", "export", "plan"}
    quickstart = ["fit", "--config", "configs/quickstart.yaml"]  # what make quickstart runs
    assert " ".join(quickstart) in (ROOT / "Makefile").read_text()
    for words in [quickstart, *listed]:
        command = words[0]
        if words[-1] == "last":  # the folder may hold another policy's run by now
            shutil.move("runs/quickstart", "runs/other")
        model = {"prepare": "source", "analyze": "reference"}.get(command, "model.policy.init_args.source")
        source = {model: tiny_folder}
        changes = SHORT[command] | source | ({"output": "out", "work": "work"} if command == "prepare" else {})
        if command == "fit":
            (config,) = (name for name in CALLBACK if f"configs/{name}.yaml" in words)
            changes |= {f"trainer.callbacks.init_args.{key}": value for key, value in CALLBACK[config].items()}
        last = sorted(Path("runs/quickstart/checkpoints").glob("*.ckpt"))
        words = [str(last[-1]) if word.endswith(".ckpt") else word for word in words]
        main([*words, *(part for name, value in changes.items() for part in (f"--{name}", value))])
    assert Path("runs/mine/policy/adapter_model.safetensors").is_file()
    # later runs into the same folder have moved the first one aside
    assert Path("runs/quickstart.1/predictions_0.jsonl").stat().st_size
    assert Path("out/train_pairs.jsonl").is_file()


def test_every_matrix_is_one_that_test_reproduction_runs() -> None:
    found = [shlex.split(command)[4:] for command in commands() if " reproduce " in command]
    shipped = ROOT / "configs/reproduce"
    named = {Path(expanded(words, shipped)[1]).name for words in found}
    assert named == {path.name for path in shipped.glob("*.yaml")}


def test_generate_and_evaluate_run(tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    lettered = {"question": "What is hot?", "options": "A. fire\nB. ice\nC. fog\nD. rain\nE. snow", "answer": "A. fire"}
    rows = {
        "bnf_asdiv": {"passage": "Ann has 2 pens.", "question": "How many?", "answer": "2 (pens)"},
        "bnf_commonsense_qa": lettered,
        "bnf_openbookqa": lettered,
    }
    for task, row in rows.items():
        Path(f"{task}.jsonl").write_text(json.dumps(row) + "\n")
    short = {
        "generate": ["--limit", "2", "--max_new_tokens", "4"],
        "evaluate": ["--limit", "1", "--files", json.dumps({task: f"{task}.jsonl" for task in rows})],
    }
    listed = [shlex.split(command)[3:] for command in commands() if " generate " in command or " evaluate " in command]
    assert [words[0] for words in listed] == ["generate", "evaluate"]
    for words in listed:
        main([*words, "--source", tiny_folder, *short[words[0]]])
    assert len(Path("runs/answers/quickstart.jsonl").read_text().splitlines()) == 2
    assert "ASDiv" in Path("runs/evaluate/quickstart/scores.md").read_text()


def test_the_rows_of_the_readme_are_read(tmp_path: Path) -> None:
    from lightning_bnf.datamodules.reading.records import read_rows

    (lines,) = (block.strip().splitlines() for block in blocks("json"))
    kinds = []
    for i, line in enumerate(lines):
        path = tmp_path / f"{i}.jsonl"
        path.write_text(line + "\n")
        kinds += [row.format for row in read_rows(str(path))]
    assert kinds == ["paired", "unpaired", "demonstration"]


def test_the_loss_of_the_readme_is_a_loss() -> None:
    import torch
    from torch.nn.functional import softplus

    from lightning_bnf.losses import Completions, Examples, Loss, LossOutput, StepContext

    (source,) = (block for block in blocks("python") if "class MeanMargin" in block)
    names = {"Loss": Loss, "LossOutput": LossOutput, "softplus": softplus}
    exec(source, names)  # noqa: S102 - the README's own code
    policy = Completions(torch.tensor([-1.0, -3.0]), torch.tensor([0, 1]), torch.tensor([1, 1]))
    context = StepContext(pairs=1, preferred=1, dispreferred=1, preferred_tokens=1, smallest_length=1)
    examples = Examples(torch.tensor([1, -1]), torch.tensor([[0, 1]]))
    value = names["MeanMargin"]()(policy, None, examples, context).value  # type: ignore[operator]
    assert value.item() == pytest.approx(softplus(torch.tensor(-2.0)).item())


def test_the_table_of_the_readme_is_the_stored_result() -> None:
    stored = (ROOT / "notebooks/results/quickstart/before_after.md").read_text().strip()
    assert stored in README
    config = yaml.safe_load((ROOT / "configs/quickstart.yaml").read_text())
    result = yaml.safe_load((ROOT / "notebooks/results/quickstart/before_after.json").read_text())
    assert result["settings"]["steps"] == config["trainer"]["limit_train_batches"]
    assert (ROOT / re.findall(r"!\[.*?\]\((.*?)\)", README)[0]).is_file()


def test_table_4_is_what_the_stored_results_give() -> None:
    runs = matrix.picked(read_results(ROOT / "notebooks/results/table4_small"))
    scores = matrix.by_prompt(runs)
    shown = matrix.texts(matrix.means({name: scores[name] for name in matrix.QUALITIES}))
    level = matrix.win_rates(runs)["at equal lengths"]
    begins = re.compile(r"\| (base|[A-Z]\S+) \| 0\.\d\d \[")
    lines = [line.strip("| ").split(" | ") for line in README.splitlines() if begins.match(line)]
    assert {line[0] for line in lines} == {"base"} | {method for method in runs if method != "Base"}
    for method, instructions, *wins, reasoning, others in lines:
        name = "Base" if method == "base" else method
        assert [instructions, reasoning, others] == shown.loc[name, ["instructions", *matrix.QUALITIES[2:]]].tolist()
        assert wins == (["", ""] if name == "Base" else [shown.loc[name, "win rate"], level[name]])
