"""The whole verb with a small model and invented answers: files, splits, order, interruption."""

import json
import re
from pathlib import Path
from zlib import crc32

import pytest
import yaml

from lightning_bnf.evaluation.verify import verify
from lightning_bnf.generation.sampling import Generated
from lightning_bnf.preparation import engines
from lightning_bnf.preparation.prepare import draw_splits, interleaved, prepare

pytestmark = pytest.mark.slow

SETTINGS = {
    "families": ["addition", "plural"],
    "kept_out": ["subtraction"],
    "train_prompts": 6,
    "validation_prompts": 3,
    "test_prompts": 4,
    "kept_out_prompts": 5,
    "samples": 3,
    "batch_size": 12,
    "seed": 7,
}


class Stopped(Exception):
    pass


def invented(tokenizer, stop: int | None = None):
    """A stand-in for generation: sums are right at times, plurals always, differences never; some are cut."""
    calls = 0

    def complete(model, own_tokenizer, prompts, sampling, progress=None):
        nonlocal calls
        if calls == stop:
            raise Stopped
        calls += 1
        rows = []
        for prompt in prompts:
            text = tokenizer.decode(prompt).split("user\n")[1]
            row = []
            for number in range(sampling.samples):
                luck = crc32(f"{text}{number}{sampling.seed}".encode()) % 3
                right = text.split('"')[1] + "s" if '"' in text else str(sum(map(int, re.findall(r"\d+", text))))
                said = right if "-" not in text and "minus" not in text and ('"' in text or luck) else f"no {luck}"
                row.append(Generated(said + "." * number, len(said) + number, finished=luck != 2))
            rows.append(row)
        return rows

    return complete


@pytest.fixture
def run(tiny_folder, tokenizer, tmp_path, monkeypatch):
    def run(output: str, work: str = "work", stop: int | None = None, **changed) -> Path:
        monkeypatch.setattr(engines, "generate_with_lengths", invented(tokenizer, stop))
        prepare(output=tmp_path / output, source=tiny_folder, work=tmp_path / work, **(SETTINGS | changed))
        return tmp_path / output

    return run


def rows(folder: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_files_hold_what_the_card_says(run):
    folder = run("out")
    assert set(contents(folder)) == {
        *(f"{split}_{kind}.jsonl" for split in ("train", "validation", "test") for kind in ("pairs", "unpaired")),
        "validation_prompts.jsonl",
        "test_prompts.jsonl",
        ".lightning_bnf",
        "README.md",
    }
    assert [len(rows(folder, f"{split}_prompts")) for split in ("validation", "test")] == [6, 13]
    card = (folder / "README.md").read_text()
    unpaired = rows(folder, "train_unpaired")
    assert f"| train | 2 | 12 | {len(rows(folder, 'train_pairs'))} | {len(unpaired)} |" in card
    assert "| subtraction (kept out) | 5 | 0.00 |" in card
    assert {row["family"] for row in rows(folder, "train_pairs")} == {"addition"}
    assert {(row["family"], row["label"]) for row in unpaired} >= {("plural", True), ("addition", True)}


def test_the_card_counts_the_prompts_of_every_file(run):
    folder = run("output", kept_out_validation_prompts=2)
    table = (folder / "README.md").read_text().partition("## Rows")[2].partition("## Families")[0]
    counts = [line.split("|")[1:4] for line in table.splitlines() if line.startswith(("| train", "| valid", "| test"))]
    assert {name.strip(): int(prompts) for name, _, prompts in counts} == {
        "train": 12,
        "validation": 6,
        "validation, kept-out families": 2,
        "test": 8,
        "test, kept-out families": 5,
    }
    for split in ("validation", "test"):
        held = sum(int(prompts) for name, _, prompts in counts if split in name)
        assert len(rows(folder, f"{split}_prompts")) == held


def test_rows_are_consistent(run):
    folder = run("out")
    for split in ("train", "validation", "test"):
        for row in rows(folder, f"{split}_pairs"):
            assert verify(row["chosen"][0]["content"], row["verifier"]) == row["score_chosen"] == 1.0
            assert verify(row["rejected"][0]["content"], row["verifier"]) == row["score_rejected"] < 1.0
            assert row["max_new_tokens"] == 32
        for row in rows(folder, f"{split}_unpaired"):
            assert (verify(row["completion"][0]["content"], row["verifier"]) == 1.0) is row["label"]
    kept_out = [row["kept_out"] for row in rows(folder, "test_prompts")]
    assert kept_out.count(True) == 5


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(run):
    first = contents(run("first", work="one"))
    assert contents(run("second", work="two")) == first
    assert contents(run("third", work="three", seed=8)) != first


@pytest.mark.parametrize("stop", [0, 1, 4, 9])
def test_a_stopped_run_writes_nothing_and_then_the_same(run, tmp_path, stop):
    whole = contents(run("out", work="whole"))
    (tmp_path / "out").rename(tmp_path / "expected")
    with pytest.raises(Stopped):
        run("out", stop=stop)
    assert not (tmp_path / "out").exists()
    assert contents(run("out")) == whole


def test_a_dry_run_prints_what_the_whole_takes_and_writes_nothing(run, tmp_path, capsys):
    """16 of 6 + 3 + 4 questions of two families and 5 of a third one, 31; each is answered 3 times and greedily."""
    before = set(tmp_path.rglob("*"))
    run("out", dry_run=True)
    assert set(tmp_path.rglob("*")) == before
    shown = re.sub(" +", " ", capsys.readouterr().out)
    assert "| prompts | 16 | 31 |" in shown
    assert "| completions | 64 | 124 |" in shown
    assert "| sampling | 0." in shown


def test_splits_share_no_question_in_any_words():
    placed = draw_splits(["addition", "keywords", "plural"], ["smallest"], 60, 10, 20, 30, seed=1)
    for name in ("addition", "keywords", "plural"):
        keys = [question.key for family, _, _, question in placed if family == name]
        assert len(set(keys)) == len(keys) == 90
    assert {split for family, split, kept, _ in placed if kept} == {"test"}
    assert {family for family, _, kept, _ in placed if kept} == {"smallest"}


def test_families_take_turns(run):
    families = [row["family"] for row in rows(run("out"), "test_prompts")]
    assert families == ["addition", "plural", "subtraction"] * 4 + ["subtraction"]
    assert interleaved([]) == []


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"families": ["additon"]}, "families must be of addition, .* got 'additon'"),
        ({"kept_out": ["plural"]}, "each family once, got 'plural' twice"),
        ({"kept_out_prompts": 500}, "prompts of family 'subtraction' must be at most about 81, .* got 500"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_loaded(run, changed, message):
    with pytest.raises(ValueError, match=message):
        run("out", **changed)


def test_the_shipped_config_states_every_argument():
    config = yaml.safe_load((Path(__file__).parents[2] / "configs/prepare/quickstart.yaml").read_text())
    assert set(config) == set(prepare.__annotations__) - {"return"}
