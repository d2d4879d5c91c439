"""Near-duplicate pairs: one digit apart, the chosen one right, and the committed files are what the command writes."""

import json
import re
from pathlib import Path

import pytest

from lightning_bnf.cli.main import main
from lightning_bnf.preparation.near_duplicates import pairs

ROOT = Path(__file__).parents[2]


def test_pairs_differ_in_one_digit_and_the_chosen_sums_are_right() -> None:
    rows = pairs(200, seed=4)
    assert len({row["prompt"] for row in rows}) == 200
    for row in rows:
        chosen, rejected = row["chosen"], row["rejected"]
        assert len(chosen) == len(rejected)
        differing = [(a, b) for a, b in zip(chosen, rejected) if a != b]
        assert len(differing) == 1
        assert all(a.isdigit() and b.isdigit() for a, b in differing)
        sums = re.findall(r"(\d+) ([-+*]) (\d+) = (\d+)", chosen)
        assert len(sums) == 2
        for left, sign, right, result in sums:
            a, b = int(left), int(right)
            assert {"+": a + b, "-": a - b, "*": a * b}[sign] == int(result)
        assert f"So {sums[1][3]} " in chosen
        assert not re.search(r"\b0\d", rejected)


def test_the_committed_files_are_what_the_command_writes(tmp_path: Path) -> None:
    main(["near_duplicates", "--output", str(tmp_path)])
    for name, count in (("train.jsonl", 240), ("validation.jsonl", 24)):
        text = (tmp_path / name).read_text()
        assert text == (ROOT / "data/near_duplicates" / name).read_text()
        assert len([json.loads(line) for line in text.splitlines()]) == count


def test_bad_counts_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["near_duplicates", "--output", str(tmp_path), "--train", "0"])
    assert "train must be >= 1, got 0" in capsys.readouterr().err
