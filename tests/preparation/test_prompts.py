"""From a file of prompts to scored pairs: the shipped configs on tiny models, splits, kills, refusals."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from support.commands import refused
from support.models import tiny_llama_model
from transformers import LlamaForSequenceClassification

from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.reading.records import read_rows
from lightning_bnf.generation.sampling import Generated
from lightning_bnf.preparation import Scorer, engines
from lightning_bnf.preparation.engines import Engine
from lightning_bnf.preparation.prepare import prepare
from lightning_bnf.preparation.prompts import Prompt, PromptFile, draw_prompts, write_scored
from lightning_bnf.preparation.scoring import ScoringError

pytestmark = pytest.mark.slow

CONFIGS = sorted((Path(__file__).parents[2] / "configs/prepare").glob("paper_*.yaml"))


@pytest.fixture
def prompt_file(tmp_path) -> str:
    path = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"Tell me about {thing}."} for thing in ("tea", "rain", "bees", "moss", "tea", "ink", "salt")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


class Length(Scorer):
    """The longer the better; texts with an x are too long for it."""

    def score(self, groups, work_file):
        return [[None if "x" in text else float(len(text)) for text in group.completions] for group in groups]


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_best_and_worst_of_the_usable_samples(tmp_path):
    """Of "aa", "b", "aa" again, "cccc" cut off, "xxxxx" unscored, "ddd": 1 to 3 letters, so ddd against b."""
    texts = [("aa", True), ("b", True), ("aa", True), ("cccc", False), ("xxxxx", True), ("ddd", True)]
    drawn = [Generated(text, len(text), finished) for text, finished in texts]
    prompts = [Prompt(split, ({"role": "user", "content": split},)) for split in ("train", "test")]
    settings = {"prompts": PromptFile("p.jsonl"), "samples": 6, "source": "s", "temperature": 1, "scorer": "Length"}
    settings |= {"engine": Engine(), "seed": 1}
    write_scored(prompts, [drawn, drawn[:1]], Length(), tmp_path / "out", tmp_path / "work", settings)
    (pair,) = rows(tmp_path / "out", "train_pairs")
    assert (pair["chosen"][0]["content"], pair["rejected"][0]["content"]) == ("ddd", "b")
    assert (pair["score_chosen"], pair["score_rejected"]) == (3.0, 1.0)
    assert pair["all_generated_responses"] == ["aa", "b", "ddd"]
    assert pair["all_rm_scores"] == [2.0, 1.0, 3.0]
    assert [(row["label"], row["score"]) for row in rows(tmp_path / "out", "train_unpaired")] == [(True, 3), (False, 1)]
    assert rows(tmp_path / "out", "test_pairs") == [], "one answer alone makes no pair"
    assert rows(tmp_path / "out", "test_prompts")[0]["prompt"] == [{"role": "user", "content": "test"}]
    text = (tmp_path / "out/README.md").read_text()
    assert "| train | 1 | 6 | 2 | 1 | 1 | 3.000 | 1.000 | 3.0 | 1.0 |" in text
    assert "| test | 1 | 1 | 0 | 0 | 0 | - | - | - | - |" in text


def test_prompts_are_dealt_to_splits_without_repeats(prompt_file):
    found = draw_prompts(PromptFile(prompt_file), None, 1, 2, seed=1)
    assert [prompt.split for prompt in found] == ["test", "test", "validation", "train", "train", "train"]
    assert len({prompt.messages[0]["content"] for prompt in found}) == 6
    assert draw_prompts(PromptFile(prompt_file), None, 1, 2, seed=1) == found
    assert draw_prompts(PromptFile(prompt_file), None, 1, 2, seed=2) != found
    with pytest.raises(ValueError, match=r"must be at most 6 in all, the different prompts of .*, got"):
        draw_prompts(PromptFile(prompt_file), 4, 1, 2, seed=1)


@pytest.fixture
def scorers(tmp_path, tokenizer, request) -> dict[str, str]:
    return {
        "ArmoRM": request.getfixturevalue("armorm_folder"),
        "PairRM": request.getfixturevalue("pairrm_folder"),
    }


@pytest.fixture
def invented_samples(monkeypatch):
    """Samples that end, which a random model's seldom do."""

    def invented(model, tokenizer, ids, sampling):
        return [[Generated(f"It is {n} of {len(row)}", 5, True) for n in range(sampling.samples)] for row in ids]

    monkeypatch.setattr(engines, "generate_with_lengths", invented)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_the_papers_configs_run_on_tiny_models(path, scorers, invented_samples, tiny_folder, prompt_file, tmp_path):
    config = yaml.safe_load(path.read_text())
    assert set(config) == set(prepare.__annotations__) - {"return", "dry_run"}
    kind = config["scorer"]["class_path"].rpartition(".")[2]
    changes = {
        "source": tiny_folder,
        "output": tmp_path / "out",
        "work": tmp_path / "work",
        "dtype": "float32",
        "prompts.path": prompt_file,
        "prompts.split": "null",
        "scorer.init_args.source": scorers[kind],
        "scorer.init_args.dtype": "float32",
        "validation_prompts": "1",
        "test_prompts": "1",
    }
    words = [word for name, value in changes.items() for word in (f"--{name}", str(value))]
    command = ["prepare", "--config", str(path), *words]
    main(command)
    card = (tmp_path / "out/README.md").read_text()
    assert f"scored by {kind}({scorers[kind]}" in card
    assert "| train | 4 | 20 | 0 | 0 | 4 |" in card
    for row in rows(tmp_path / "out", "train_pairs"):
        assert row["score_chosen"] == max(row["all_rm_scores"]) > min(row["all_rm_scores"]) == row["score_rejected"]
    first = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    shutil.rmtree(tmp_path / "out")
    before = {file.name: file.stat().st_size for file in (tmp_path / "work").iterdir()}
    main(command)
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == first
    assert {file.name: file.stat().st_size for file in (tmp_path / "work").iterdir()} == before, "nothing is done twice"


def test_the_rows_are_training_data(invented_samples, tmp_path, prompt_file, tiny_folder, tokenizer):
    """With a reward model saved as a user has it."""
    from lightning_bnf.preparation import RewardModel

    model = tiny_llama_model(len(tokenizer))
    model.config.num_labels = 1
    LlamaForSequenceClassification(model.config).save_pretrained(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")

    prepare(
        tmp_path / "out",
        prompts=PromptFile(prompt_file),
        scorer=RewardModel(str(tmp_path / "reward")),
        source=tiny_folder,
        train_prompts=4,
        validation_prompts=1,
        test_prompts=1,
        work=tmp_path / "work",
    )
    pairs = read_rows(str(tmp_path / "out/train_pairs.jsonl"))
    assert [row.format for row in pairs] == ["paired"] * 4
    for row in pairs:
        chosen, rejected = (completion.numbers["reward"] for completion in row.completions)
        assert chosen > rejected
    assert [row.completions[0].label for row in read_rows(str(tmp_path / "out/train_unpaired.jsonl"))] == [1, -1] * 4


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "families must be names of families, or prompts given with a scorer, got []"),
        (
            ["--prompts.path", "p.jsonl"],
            "scorer must be one such as lightning_bnf.preparation.RewardModel with prompts, got null",
        ),
        (
            ["--prompts.path", "p", "--families", "[plural]"],
            "families must be [] (kept_out too) where prompts are given, got ['plural']",
        ),
        (
            ["--families", "[plural]", "--scorer", "RewardModel", "--scorer.source", "x"],
            "scorer must be null without prompts, got RewardModel(x, label=None, float32)",
        ),
        (
            ["--families", "[plural]", "--train_prompts", "null"],
            "train_prompts must be a whole number with families, got null",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(words, sentence, capsys, tmp_path):
    assert sentence in refused(capsys, "prepare", "--output", str(tmp_path / "out"), *words)


class Lacking(Scorer):
    """Cannot be had."""

    def score(self, groups, work_file):
        raise ScoringError("scorer must be a folder with weights, got none")


def test_a_scorer_that_cannot_score_is_refused_before_the_answers_are_drawn(tmp_path, prompt_file, monkeypatch):
    monkeypatch.setattr("lightning_bnf.preparation.prepare.sample_prompts", None)
    splits = {"train_prompts": 1, "validation_prompts": 1, "test_prompts": 1}
    with pytest.raises(ScoringError, match="a folder with weights"):
        prepare(tmp_path / "out", prompts=PromptFile(prompt_file), scorer=Lacking(), work=tmp_path, **splits)
