"""Commands that are functions: shipped configs by their names. What they do is tested with the functions."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_bnf.cli.parser import restricted_class_paths
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


def test_settings_of_another_command_arrive_as_mappings(tmp_path: Path) -> None:
    """A class path among them too, with its defaults: `rounds` writes them down for `prepare`."""
    got: list[Any] = []

    def rounds(prepare: dict[str, Any]) -> None:
        """Align in rounds."""
        got.append(prepare)

    spec = {"class_path": "lightning_bnf.preparation.RewardModel", "init_args": {"source": "x"}}
    config = tmp_path / "own.yaml"
    config.write_text(yaml.safe_dump({"prepare": {"scorer": spec, "several": [spec], "seeds": [1, 2]}}))
    with restricted_class_paths(()):
        run_verb(rounds, "rounds", ["--config", str(config)])
    (found,) = got
    assert found["seeds"] == [1, 2]
    for one in (found["scorer"], found["several"][0]):
        assert one["class_path"] == spec["class_path"]
        assert one["init_args"]["source"] == "x"
    assert yaml.safe_load(yaml.safe_dump(found)) == found
