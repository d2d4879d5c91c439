"""Commands that are functions: shipped configs by their names. What they do is tested with the functions."""

from pathlib import Path

import pytest

from lightning_bnf.cli.verbs import run_verb

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["quickstart", "configs/prepare/quickstart.yaml"])
def test_a_configs_name_is_its_file_from_any_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    got: dict[str, object] = {}

    def prepare(output: Path, families: list[str], seed: int = 0) -> None:
        """Make data."""
        got.update(output=str(output), families=len(families), seed=seed)

    config = tmp_path / "own.yaml"
    config.write_text("output: out\nfamilies: [a]\n")
    run_verb(prepare, "prepare", ["--config", str(config), "--seed", "3"])
    assert got == {"output": "out", "families": 1, "seed": 3}
    with pytest.raises(SystemExit):  # the shipped file has settings that this function lacks, so it was read
        run_verb(prepare, "prepare", ["--config", name])
