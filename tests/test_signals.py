"""Commands that get SIGTERM or Ctrl-C at a known point of their work: they end with the status of the signal, keep what
was done and nothing half-written, and go on from there."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from support.answers import generate, lines
from support.kills import contents
from support.training import Write

from lightning_bnf.cli.main import main
from lightning_bnf.evaluation import pass_rates
from lightning_bnf.export import command as export_command
from lightning_bnf.generation import answers
from lightning_bnf.generation.answers import Said
from lightning_bnf.policies.reference.providers import AdapterOff
from lightning_bnf.preparation import engines
from lightning_bnf.reproduction import commands
from lightning_bnf.runtime import workers
from lightning_bnf.runtime.progress import Progress

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
STATUS = {signal.SIGTERM: 143, signal.SIGINT: 130}


def telling(original: Callable[..., Any], at: int, number: signal.Signals) -> Callable[..., Any]:
    """A function that sends its own process a signal in its call of that number, and counts its calls."""

    def told(*arguments: Any, **named: Any) -> Any:
        told.calls += 1  # type: ignore[attr-defined]
        if told.calls == at:  # type: ignore[attr-defined]
            assert signal.getsignal(number) is not signal.SIG_DFL, "else the tests would end"
            signal.raise_signal(number)
        return original(*arguments, **named)

    told.calls = 0  # type: ignore[attr-defined]
    return told


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Python's own, which a shell may have left out, and which are put back."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def config(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> str:
    values = {
        "model": {
            "policy": {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": tiny_folder, "r": 2}},
            "loss": str(ROOT / "configs/loss/dpo.yaml"),
        },
        "data": {"train": write_pairs(rows=8), "examples_per_step": 2, "max_tokens": 40},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


@pytest.fixture
def questions(tmp_path: Path) -> str:
    path = tmp_path / "asked.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"What is {i} + {i}?"}) + "\n" for i in range(5)))
    return str(path)


@pytest.mark.parametrize("number", STATUS)
def test_while_the_cache_is_filled(
    tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """In the third batch: two are kept, and the next run computes the others alone. `fit` fills it too (over all rows,
    so in the order in which `cache` does)."""
    words = ["--config", config, "--trainer.max_steps", "4", "--model.reference_cache"]
    main(["cache", *words, str(tmp_path / "whole")])
    wanted = contents(tmp_path / "whole")
    batches = telling(AdapterOff.forward, 3, number)
    monkeypatch.setattr(AdapterOff, "forward", batches)
    with pytest.raises(SystemExit) as stop:
        main(["fit", *words, str(tmp_path / "told"), "--model.reference", "cache"])
    assert (stop.value.code, batches.calls) == (STATUS[number], 3)  # type: ignore[attr-defined]
    main(["cache", *words, str(tmp_path / "told")])
    found = contents(tmp_path / "told")
    assert {name: found[name] for name in wanted} == wanted


@pytest.mark.parametrize("number", STATUS)
def test_while_answers_are_generated(
    questions: str, tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    batches = telling(answers.generate_with_lengths, 2, number)
    monkeypatch.setattr(answers, "generate_with_lengths", batches)
    words = ["--source", tiny_folder, "--batch_size", "2"]
    with pytest.raises(SystemExit) as stop:
        generate(questions, tmp_path, *words)
    assert stop.value.code == STATUS[number]
    assert not (tmp_path / "out.jsonl").exists()
    assert len(lines(generate(questions, tmp_path, *words))) == 5
    assert batches.calls == 4, "three batches, and the one that was in hand"  # type: ignore[attr-defined]


def test_while_samples_are_drawn(tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = telling(engines.generate_with_lengths, 2, signal.SIGTERM)
    monkeypatch.setattr(engines, "generate_with_lengths", batches)
    words = ["--families", '["plural"]', "--train_prompts", "2", "--validation_prompts", "1", "--test_prompts", "1"]
    words += ["--samples", "2", "--source", tiny_folder, "--output", str(tmp_path / "out"), "--work", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        main(["prepare", *words])
    assert stop.value.code == 143
    assert not (tmp_path / "out").exists()
    main(["prepare", *words])
    assert batches.calls == 3, "sampled, greedy, and the one that was in hand"  # type: ignore[attr-defined]


def test_while_a_merge_is_measured(tmp_path: Path, config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the merged model is left behind, and the run's own files stay."""
    main(["fit", "--config", config])
    monkeypatch.setattr(export_command, "rescored", telling(export_command.rescored, 1, signal.SIGTERM))
    words = ["--config", str(tmp_path / "run" / "config.yaml"), "--folder", str(tmp_path / "out" / "merged")]
    with pytest.raises(SystemExit) as stop:
        main(["export", *words, "--merge", "true"])
    assert stop.value.code == 143
    assert list((tmp_path / "out").iterdir()) == []


def test_while_a_fit_scores_prompts(
    tmp_path: Path, config: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of 5 prompts, one at a time, the first is told: it ends after a token and no other is begun; the run saves
    before the validation that follows, and goes on to the weights of one that was not told."""
    rows = [json.loads(line) for line in Path(write_pairs("plain.jsonl")).read_text().splitlines()]
    extra = {"verifier": {"name": "ends_with_question"}, "max_new_tokens": 8, "family": "f"}
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row | extra) + "\n" for row in rows))
    scoring = {"splits": [], "every_n_steps": 2, "batch_size": 1}
    callbacks = [{"class_path": "lightning_bnf.callbacks.ScorePrompts", "init_args": scoring}]

    def fit(root: str, *words: str) -> dict[str, torch.Tensor]:
        more = {"--data.validation": str(tmp_path / "v.jsonl"), "--trainer.max_steps": "4"}
        more |= {"--trainer.callbacks": json.dumps(callbacks), "--trainer.default_root_dir": str(tmp_path / root)}
        main(["fit", "--config", config, *(part for pair in more.items() for part in pair), *words])
        return load_file(tmp_path / root / "policy" / "adapter_model.safetensors")

    wanted = fit("whole")
    prompts = telling(pass_rates.generate_with_lengths, 1, signal.SIGTERM)
    monkeypatch.setattr(pass_rates, "generate_with_lengths", prompts)
    with pytest.raises(SystemExit) as stop:
        fit("told")
    assert (stop.value.code, prompts.calls) == (143, 1)  # type: ignore[attr-defined]
    assert (tmp_path / "told" / "checkpoints" / "step=2.ckpt").is_file()
    assert "val/pass_rate of step 2 is left out: the run was told to end" in caplog.text
    found = fit("told", "--ckpt_path", "last")
    assert prompts.calls == 6, "those of step 4"  # type: ignore[attr-defined]
    assert all(torch.equal(value, found[name]) for name, value in wanted.items())
    tables = (pd.read_csv(tmp_path / root / "metrics.csv") for root in ("whole", "told"))
    whole, gone_on = (table[table.pop("val/pass_rate").isna()].reset_index(drop=True) for table in tables)
    pd.testing.assert_frame_equal(gone_on.sort_index(axis=1), whole.sort_index(axis=1))


def test_while_a_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nine questions, asked one at a time, the second is under way when the first answer is kept and Ctrl-C comes:
    it is kept too, and no other is asked."""
    asked: list[int] = []
    kept: list[int] = []
    under_way, told = threading.Event(), threading.Event()

    def ask(index: int) -> Said:
        asked.append(index)
        if index == 1:
            under_way.set()
            assert told.wait(60)
        return Said("text", 1, True, 0.0)

    def keep(index: int, said: Said) -> None:
        kept.append(index)
        if index == 0:
            assert under_way.wait(60)
            raise KeyboardInterrupt

    drain = workers._drain

    def drained(queue: Any) -> None:
        drain(queue)
        told.set()

    monkeypatch.setattr(workers, "_drain", drained)
    with pytest.raises(KeyboardInterrupt):
        workers.at_once(ask, range(9), 1, Progress(9, None), keep)
    assert asked == kept == [0, 1]


def test_the_second_time_a_server_is_not_waited_for() -> None:
    never = threading.Event()

    def ask(index: int) -> Said:
        assert index < 2 or never.wait(600)
        return Said("text", 1, True, 0.0)

    def keep(index: int, said: Said) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workers.at_once(ask, range(3), 3, Progress(3, None), keep)
    never.set()


def test_a_matrix_of_runs_ends_the_one_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM while a fit runs: the fit is told too, and no other is begun. A program that sleeps stands in for it, and
    says that it has begun by a file."""
    begun, started = tmp_path / "begun", []
    program = f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep(600)"

    class Sleeps(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **named: Any):
            started.append(self)
            super().__init__([sys.executable, "-c", program], **named)

    def told() -> None:
        while not begun.exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    (tmp_path / "base.yaml").write_text("{}")
    matrix = {"base": str(tmp_path / "base.yaml"), "methods": {"a": {}, "b": {}}, "seeds": [1]}
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    monkeypatch.setattr(commands.subprocess, "Popen", Sleeps)
    words = ["--config", str(tmp_path / "matrix.yaml"), "--output", str(tmp_path / "out")]
    words += ["--work", str(tmp_path / "work")]
    teller = threading.Thread(target=told)
    teller.start()
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", *words])
    teller.join()
    assert (stop.value.code, [fit.returncode for fit in started]) == (143, [-signal.SIGTERM])
    assert list((tmp_path / "out").iterdir()) == []
