"""What the commands do to folders that hold a stranger's files: nothing, and they say so."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.commands import refused
from support.training import Write

from lightning_bnf.cli.main import main
from lightning_bnf.runtime.ownership import MARK, hold

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Config = Callable[..., str]


@pytest.fixture
def thesis(tmp_path: Path) -> Path:
    """A folder with the only copy of somebody's thesis."""
    folder = tmp_path / "documents"
    (folder / "chapters").mkdir(parents=True)
    for name in ("thesis.tex", "README.md", "chapters/one.tex", "shifts.json", "train.jsonl"):
        (folder / name).write_text("ten years of work")
    return folder


def untouched(folder: Path) -> bool:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    wanted = {"thesis.tex", "README.md", "chapters/one.tex", "shifts.json", "train.jsonl"}
    return files == wanted and all((folder / name).read_text() == "ten years of work" for name in files)


@pytest.mark.parametrize("command", ["fit", "validate", "cache"])
def test_a_run_folder_is_new_or_a_runs(
    thesis: Path, config: Config, write_pairs: Write, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    file = config(trainer__default_root_dir=str(thesis), data__validation=write_pairs("v.jsonl"))
    sentence = refused(capsys, command, "--config", file)
    assert "trainer.default_root_dir must be a new or empty folder, or one that `fit` wrote, got" in sentence
    assert untouched(thesis)


def test_a_run_that_is_refused_moves_nothing(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """Yesterday's model stays where it is while the data of today's are still faulty."""
    main(["fit", "--config", config()])
    run = tmp_path / "run"
    before = sorted(path.name for path in run.rglob("*"))
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Hi", "chosen": "Hello", "rejected": 3}\n')
    for _ in range(2):
        assert "bad.jsonl:1" in refused(capsys, "fit", "--config", config(data__train=str(tmp_path / "bad.jsonl")))
    assert sorted(path.name for path in run.rglob("*")) == before
    assert not (tmp_path / "run.1").exists()
    refused(capsys, "fit", "--config", config(data__train="no.jsonl", trainer__default_root_dir=str(tmp_path / "new")))
    assert not (tmp_path / "new").exists()


def test_verbs_refuse_anothers_output(thesis: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(thesis)]
    rows = str(tmp_path / "rows.jsonl")
    for command, words in {
        "near_duplicates": [],
        "prepare": ["--families", "[plural]"],
        "analyze": ["--policies", '{"a": "nowhere"}', "--reference", "nowhere", "--responses", rows],
        "evaluate": ["--suite", "local", "--source", "nowhere"],
        "likelihood": ["--source", "nowhere"],
    }.items():
        sentence = refused(capsys, command, *output, *words)
        assert f"output must be a new or empty folder, or one that `{command}` wrote, got" in sentence
        assert untouched(thesis)
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"prompt": "Hi"}\n')
    answers = ["--questions", str(questions), "--source", "nowhere", "--format", "arena_hard", "--name", "m"]
    sentence = refused(capsys, "generate", "--output", str(thesis / "thesis.tex"), *answers)
    assert "output must be a new file, or answers that were written with thesis.tex.settings.yaml" in sentence
    assert untouched(thesis)


def test_a_verb_replaces_its_own_output(tmp_path: Path) -> None:
    for _ in range(2):
        main(["near_duplicates", "--output", str(tmp_path / "out"), "--train", "2", "--validation", "1"])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {MARK, "train.jsonl", "validation.jsonl"}


def test_export_replaces_only_an_export_that_nobody_changed(
    tmp_path: Path, thesis: Path, config: Config, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    main(["fit", "--config", config()])
    run = tmp_path / "run"
    words = ["export", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--folder"]
    sentence = refused(capsys, *words, str(thesis))
    assert "folder must be a new or empty folder, or one that was exported and not changed since, got" in sentence
    assert "which holds README.md, chapters/one.tex, shifts.json and 2 more" in sentence
    assert untouched(thesis)
    assert "another folder than the one this command runs in" in refused(capsys, *words, str(Path.cwd()))
    sentence = refused(capsys, *words, str(run))
    assert "not changed since" in sentence, "the run's own checkpoints are no export"

    out = tmp_path / "out"
    for _ in range(2):
        main([*words, str(out)])
    (out / "notes.txt").write_text("mine")
    assert "which holds notes.txt" in refused(capsys, *words, str(out))
    assert (out / "notes.txt").read_text() == "mine"


def test_a_run_keeps_what_was_put_into_its_policy_folder(tmp_path: Path, config: Config) -> None:
    """Refused in the middle of a run it would cost the run."""
    file = config()
    main(["fit", "--config", file])
    run = tmp_path / "run"
    (run / "policy/README.md").write_text("my own card")
    (checkpoint,) = sorted((run / "checkpoints").glob("*.ckpt"))[:1]
    main(["fit", "--config", file, "--ckpt_path", str(checkpoint)])
    assert (run / "policy.1/README.md").read_text() == "my own card"
    assert (run / "policy/README.md").read_text().startswith("---\nbase_model:")


@pytest.mark.parametrize("words", [[], ["--ckpt_path", "last"]])
def test_a_second_run_into_a_folder_at_work_is_refused_and_touches_nothing(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    run = tmp_path / "run"
    main(["fit", "--config", config(trainer__max_epochs=1)])
    held = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    first = hold("x", run)
    sentence = refused(capsys, "fit", "--config", str(tmp_path / "config.yaml"), *words)
    first.release()
    assert f"trainer.default_root_dir must be a folder that no other run is writing into, got {run}" in sentence
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == held


def files(folder: Path) -> dict[Path, int]:
    """When each was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def exported(folder: Path) -> list[torch.Tensor]:
    held = load_file(folder / "adapter_model.safetensors")
    return [held[name] for name in sorted(held)]


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(a, b) for a, b in zip(exported(one), exported(other), strict=True))


def test_a_run_that_was_moved_aside_is_told_by_its_config(tmp_path: Path, config: Config, write_pairs: Write) -> None:
    """The folder that its config names holds the next run, whose adapters have the same shapes."""
    given = {"trainer__max_epochs": 1, "data__validation": write_pairs("v.jsonl")}
    main(["fit", "--config", config(**given)])
    main(["fit", "--config", config(model__loss=str(ROOT / "configs/loss/dpo.yaml"), **given)])
    first, second, out = tmp_path / "run.1", tmp_path / "run", tmp_path / "out"
    saved, before = ["--config", str(first / "config.yaml")], files(second)
    main(["export", *saved, "--folder", str(out)])
    assert same(out, first / "policy")
    assert not same(out, second / "policy")
    assert (out / "README.md").read_text() == (first / "policy/README.md").read_text(), "with its own metrics"
    main(["validate", *saved, "--ckpt_path", "last"])
    assert (first / "validation_metrics.json").is_file()
    main(["fit", *saved, "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    assert (first / "checkpoints/step=4.ckpt").is_file()
    assert files(second) == before


def test_a_new_run_with_the_config_of_one_that_was_moved_goes_where_that_says(tmp_path: Path, config: Config) -> None:
    main(["fit", "--config", config(trainer__max_epochs=1)])
    first, old, second = tmp_path / "run", tmp_path / "old", tmp_path / "run.1"
    first.rename(old)
    before = files(old)
    for _ in range(2):
        main(["fit", "--config", str(old / "config.yaml")])
    assert same(first / "policy", old / "policy")
    assert (second / "metrics.csv").is_file()
    assert files(old) == before


def test_the_config_of_a_resumed_run_is_of_the_whole_run(tmp_path: Path, config: Config) -> None:
    """It names no checkpoint: one that the run went on from is not its end, and may be gone."""
    run, out = tmp_path / "run", tmp_path / "out"
    main(["fit", "--config", config(trainer__max_epochs=1)])
    main(["fit", "--config", str(run / "config.yaml"), "--ckpt_path", "last", "--trainer.max_epochs", "2"])
    main(["export", "--config", str(run / "config.yaml"), "--folder", str(out)])
    assert same(out, run / "policy")
    main(["fit", "--config", str(run / "config.yaml")])
    table = (run / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[1] for line in table[1:]] == ["0", "1", "2", "3"], "a run from its first step"


def test_a_run_that_begins_at_anothers_checkpoint_replaces_no_run(
    tmp_path: Path, config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    """The earlier run has its folder again where the new one is refused."""
    run, other = tmp_path / "run", tmp_path / "other"
    file = config(trainer__max_epochs=1)
    for folder in (run, other):
        main(["fit", "--config", file, "--trainer.default_root_dir", str(folder)])
    (checkpoint,) = (other / "checkpoints").iterdir()
    before, words = files(run), ["fit", "--config", file, "--ckpt_path", str(checkpoint), "--trainer.max_epochs", "2"]
    assert "whose steps meant something else" in refused(capsys, *words, "--data.seed", "2")
    assert files(run) == before
    assert not (tmp_path / "run.1").exists()

    main(words)
    assert f"{run} held a run already; it is now {tmp_path / 'run.1'}" in capsys.readouterr().out
    assert {path.relative_to(tmp_path / "run.1"): at for path, at in files(tmp_path / "run.1").items()} == {
        path.relative_to(run): at for path, at in before.items()
    }
    steps = [line.split(",")[1] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert set(steps) == {"2", "3"}, "those of the other's checkpoint on"
