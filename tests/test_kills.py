"""Commands that are killed at any write of theirs and started again end as if they had not been: the same bytes,
nothing half-written that a reader takes for whole, and nothing done again that was done. What fit does is in
test_interruptions.py.

KILLS=20 kills each of them so often; by default it is twice.
"""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.kills import Command, contents, killed_again_and_again
from support.models import tiny_llama_model
from support.training import Write
from transformers import LlamaForSequenceClassification, PreTrainedTokenizerBase

from lightning_bnf.cli.main import main

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


def fit_config(tmp_path: Path, model: str, train: str) -> str:
    values = {
        "model": {
            "policy": {"class_path": "lightning_bnf.policies.LoRAPolicy", "init_args": {"source": model, "r": 2}},
            "loss": str(ROOT / "configs/loss/dpo.yaml"),
        },
        "data": {"train": train, "examples_per_step": 2, "max_tokens": 40},
        "trainer": {"accelerator": "cpu", "max_steps": 2, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return str(path)


def test_cache(scratch: Path, tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    words = ["cache", "--config", fit_config(tmp_path, tiny_folder, write_pairs(rows=8))]
    command = Command(
        [*words, "--model.reference_cache", "{root}/cache"],
        "lightning_bnf.policies.reference.providers:AdapterOff.forward",
    )

    def read(root: Path) -> dict[str, bytes]:
        """What is whole only when all is there: the folder grows, and is read as far as it has come."""
        found = contents(root / "cache")
        if len(found.get("keys-0.bin", b"")) < 16 * 32:
            raise FileNotFoundError
        return {name: found[name] for name in ("manifest.json", "keys-0.bin", "values-0.f32")}

    killed_again_and_again(command, scratch, read)


def test_prepare(scratch: Path, tiny_folder: str) -> None:
    words = ["--families", '["addition", "plural"]', "--kept_out", '["subtraction"]', "--train_prompts", "6"]
    words += ["--validation_prompts", "2", "--test_prompts", "2", "--kept_out_prompts", "2", "--samples", "2"]
    words += ["--batch_size", "4", "--source", tiny_folder, "--output", "{root}/out", "--work", "{root}/work"]
    command = Command(["prepare", *words], "lightning_bnf.preparation.engines:generate_with_lengths")

    def read(root: Path) -> dict[str, bytes]:
        (root / "out" / "README.md").stat()
        return contents(root / "out")

    killed_again_and_again(command, scratch, read)


def test_generate(scratch: Path, tmp_path: Path, tiny_folder: str) -> None:
    asked = tmp_path / "asked.jsonl"
    asked.write_text("".join(json.dumps({"prompt": f"What is {i} + {i}?"}) + "\n" for i in range(10)))
    words = ["--questions", str(asked), "--format", "alpaca_eval", "--name", "tiny", "--max_new_tokens", "6"]
    words += ["--source", tiny_folder, "--batch_size", "2", "--temperature", "1.0"]
    words += ["--output", "{root}/out.json", "--work", "{root}/work"]
    command = Command(["generate", *words], "lightning_bnf.generation.answers:generate_with_lengths")

    def read(root: Path) -> list[bytes]:
        return [(root / name).read_bytes() for name in ("out.json", "out.json.settings.yaml")]

    killed_again_and_again(command, scratch, read)


def test_export(scratch: Path, tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """Merged, over an earlier export of the adapter: at each moment there is the one or the other, or none, and then
    the earlier one comes back."""
    main(["fit", "--config", fit_config(tmp_path, tiny_folder, write_pairs(rows=8))])
    words = ["export", "--config", str(tmp_path / "run" / "config.yaml"), "--folder"]
    main([*words, str(tmp_path / "before" / "out")])
    before = contents(tmp_path / "before" / "out")

    def read(root: Path) -> dict[str, bytes]:
        held = contents(root / "out")
        if held == before:
            raise FileNotFoundError
        return held

    command = Command([*words, "{root}/out", "--merge", "true"])
    killed_again_and_again(command, scratch, read, tmp_path / "before")
    assert not list((scratch / "root").glob(".out.*")), "what kills left, of the size of a model, is cleared away"


def test_reproduce(scratch: Path, tmp_path: Path) -> None:
    """The matrix around the fits, which are stood in for: which are done, which are picked, and their results."""
    (tmp_path / "base.yaml").write_text("{}")
    methods = {"a": {}, "b": {"grid": [{"x": 1}, {"x": 2}]}}
    matrix = {"base": str(tmp_path / "base.yaml"), "methods": methods, "seeds": [1, 2]}
    (tmp_path / "matrix.yaml").write_text(yaml.safe_dump(matrix))
    words = ["reproduce", "--config", str(tmp_path / "matrix.yaml"), "--output", "{root}/out", "--work", "{root}/work"]
    command = Command(words, "lightning_bnf.reproduction.runs:train", "trained")

    def read(root: Path) -> dict[str, Any]:
        found = {name: json.loads(content) for name, content in contents(root / "out").items()}
        if len(found) < 5:
            raise FileNotFoundError
        return {name: record | {"minutes": 0} for name, record in found.items()}

    killed_again_and_again(command, scratch, read)


def test_judge(scratch: Path, tmp_path: Path) -> None:
    """No reply that was kept is asked for again: each costs money."""
    for name in ("mine", "base"):
        rows = [{"instruction": f"Question {i}", "output": f"{name} {i}", "generator": name} for i in range(6)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    words = ["judge", "--benchmark", "arena_hard_v0.1", "--answers", str(tmp_path / "mine.json"), "--prompt", "own"]
    words += ["--baseline", str(tmp_path / "base.json"), "--server.base_url", "http://127.0.0.1:9/v1"]
    words += ["--server.model", "judge", "--server.at_once", "1", "--output", "{root}/out"]
    command = Command(words, "lightning_bnf.judging.server_judge:ask", "judged")

    def read(root: Path) -> list[dict[str, Any]]:
        lines = (root / "out/judgments.jsonl").read_text().splitlines()
        if len(lines) < 14:
            raise FileNotFoundError
        return [json.loads(line) | {"time": 0} for line in lines]

    killed_again_and_again(command, scratch, read)


def test_rounds(scratch: Path, tmp_path: Path) -> None:
    """The stages of two rounds, which are stood in for; what prepare, cache and fit do is tested of each. Without
    verifiers the evaluation asks nothing."""
    (tmp_path / "fit.yaml").write_text("{}")
    config = {"fit": str(tmp_path / "fit.yaml"), "prepare": {"families": ["addition"]}, "rounds": 2}
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(config))
    words = ["rounds", "--config", str(tmp_path / "rounds.yaml"), "--output", "{root}/out"]
    command = Command(words, "lightning_bnf.reproduction.rounds:run_command", "staged")

    def read(root: Path) -> dict[str, Any]:
        (root / "out/rounds.png").stat()
        found = {name: content for name, content in contents(root / "out").items() if not name.endswith(".png")}
        table = found.pop("rounds.md").decode().splitlines()
        stages = {name: json.loads(found[name]) for name in found if name.count("/") == 1 and name.endswith(".json")}
        told = {name: record | {"minutes": 0} for name, record in stages.items()}
        return told | {"table": [row.rsplit("|", 2)[0] for row in table]}

    killed_again_and_again(command, scratch, read)


@pytest.mark.skipif("KILLS" not in os.environ, reason="minutes: KILLS=20 kills the stages of rounds themselves")
def test_the_stages_of_rounds(
    scratch: Path, tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Two rounds with prepare, cache and fit themselves, killed at writes of each."""
    prompts, reward, killed_in = tmp_path / "prompts.jsonl", str(tmp_path / "reward"), Counter[str]()
    prompts.write_text("".join(json.dumps({"prompt": f"What is {i} + {i}?"}) + "\n" for i in range(10)))
    scorer = tiny_llama_model(len(tokenizer)).config
    scorer.num_labels = 1
    LlamaForSequenceClassification(scorer).save_pretrained(reward)
    tokenizer.save_pretrained(reward)
    prepare: dict[str, Any] = {"prompts": {"path": str(prompts), "max_new_tokens": 6}, "engine": {"cut_off": "keep"}}
    prepare["scorer"] = {"class_path": "lightning_bnf.preparation.RewardModel", "init_args": {"source": reward}}
    prepare |= {"train_prompts": 8, "validation_prompts": 0, "test_prompts": 2, "samples": 3, "batch_size": 6}
    config = {"fit": fit_config(tmp_path, tiny_folder, "given by rounds"), "prepare": prepare, "source": tiny_folder}
    config["settings"] = {"model.reference": "cache"}
    (tmp_path / "rounds.yaml").write_text(yaml.safe_dump(config))
    words = ["rounds", "--config", str(tmp_path / "rounds.yaml"), "--output", "{root}/out"]
    command = Command(words, "lightning_bnf.reproduction.rounds:run_command", "stage_here")

    def read(root: Path) -> dict[str, Any]:
        logs = sorted((root / "out").glob("*/*.log"), key=lambda path: path.stat().st_mtime_ns)
        if not (root / "out/rounds.png").is_file():
            killed_in[logs[-1].stem if logs else "before"] += 1
            raise FileNotFoundError
        found = contents(root / "out")
        kept = [name for name in found if "/sample/" in name or name.endswith(".safetensors")]
        stages = [name for name in found if name.count("/") == 1 and name.endswith(".json")]
        assert len(stages) == 9, "a start, and three stages and an evaluation a round"
        return {name: found[name] for name in kept} | {
            name: json.loads(found[name]) | {"minutes": 0} for name in stages
        }

    killed_again_and_again(command, scratch, read)
    print(dict(killed_in))
