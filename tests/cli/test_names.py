"""Short names are files that come with the package; what is the user's own stays as it is."""

from pathlib import Path

import pytest

from lightning_bnf.cli.names import config_of, file_of, names, source_in, with_files

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    ("setting", "value", "file"),
    [
        ("model.loss", "dpo", "loss/dpo.yaml"),
        ("model.loss", "DPO", "loss/dpo.yaml"),
        ("model.loss", "SimPO", "loss/simpo.yaml"),
        ("model.loss", "APOZero", "loss/apo_zero.yaml"),
        ("model.loss", "apo-zero", "loss/apo_zero.yaml"),
        ("model.loss", "lightning_bnf.losses.RSOHinge", "loss/rso_hinge.yaml"),
        ("model.policy", "lora", "policy/lora.yaml"),
        ("model.policy", "QLoRAPolicy", "policy/qlora.yaml"),
        ("model.policy", "lightning_bnf.policies.FullPolicy", "policy/full.yaml"),
        ("model.optimizer", "AdamW8bit", "optimizer/adamw_8bit.yaml"),
        ("trainer", "single_gpu", "trainer/single_gpu.yaml"),
        ("trainer", "configs/trainer/cpu.yaml", "trainer/cpu.yaml"),
    ],
)
def test_a_name_is_a_shipped_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, value: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert file_of(setting, value) == str(CONFIGS / file)


@pytest.mark.parametrize(
    "value", ["dpp", "Sum", "my_losses.DPO", "torch.optim.AdamW", "mine.yaml", "{class_path: DPO}"]
)
def test_what_is_no_name_stays_as_it_is(value: str) -> None:
    assert file_of("model.loss", value) is None


def test_a_file_of_the_users_goes_before_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dpo").write_text("class_path: lightning_bnf.losses.BNF\n")
    Path("quickstart").touch()
    assert file_of("model.loss", "dpo") is None
    assert config_of("fit", "quickstart") is None


@pytest.mark.parametrize(
    ("command", "value", "file"),
    [
        ("fit", "quickstart", "quickstart.yaml"),
        ("prepare", "quickstart", "prepare/quickstart.yaml"),
        ("fit", "collapse", "experiment/collapse.yaml"),
        ("reproduce", "collapse", "reproduce/collapse.yaml"),
        ("fit", "paper/llama3_bnf", "paper/llama3_bnf.yaml"),
        ("fit", "configs/quickstart.yaml", "quickstart.yaml"),
    ],
)
def test_a_config_is_named_for_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, value: str, file: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_of(command, value) == str(CONFIGS / file)
    assert config_of(command, "no_such") is None


@pytest.mark.parametrize("setting", ["model.loss", "model.policy", "model.optimizer", "trainer"])
def test_every_shipped_file_has_its_name(setting: str) -> None:
    folder = {"trainer": "trainer"}.get(setting, setting.rpartition(".")[2])
    assert set(names(setting).values()) == {str(path) for path in (CONFIGS / folder).glob("*.yaml")}


def test_names_inside_a_config_become_files_and_nothing_else_changes() -> None:
    config = {
        "model": {"loss": "IPO", "policy": {"class_path": "LoRAPolicy"}, "reference": "auto"},
        "model.loss": "dpo",
    }
    assert with_files(config) == {
        "model": {
            "loss": str(CONFIGS / "loss/ipo.yaml"),
            "policy": {"class_path": "LoRAPolicy"},
            "reference": "auto",
        },
        "model.loss": str(CONFIGS / "loss/dpo.yaml"),
    }
    assert with_files({"model": {"source": "a", "loss": "mine"}, "model.source": "b"}) == {"model": {"loss": "mine"}}
    assert with_files({"model": {"source": ["a"]}}) == {"model": {"source": ["a"]}}
    assert with_files("dpo") == "dpo"
    assert config["model.loss"] == "dpo"


@pytest.mark.parametrize(
    ("config", "source"),
    [
        ({"model": {"source": "a"}}, "a"),
        ({"model.source": "a"}, "a"),
        ({"model": {"source": None}}, None),
        ({"model": "a"}, None),
        ("model.source", None),
    ],
)
def test_a_config_may_name_its_source_in_short(config: object, source: str | None) -> None:
    assert source_in(config) == source
