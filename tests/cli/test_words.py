"""Words become options, whole files before values, and what they set can be told without the parser."""

import os
import re
import shlex
from pathlib import Path

import pytest

from lightning_bnf.cli.words import Option, options, settings, split, with_sources
from lightning_bnf.runtime.refusal import Refusal

CONFIGS = Path(__file__).parents[2] / "configs"


def ready(text: str) -> list[str]:
    return [word for option in options("fit", shlex.split(text)) for word in option.words()]


def test_words_are_split_at_options_and_come_back_as_typed() -> None:
    text = "stray --a 1 --b=2 --flag --list x y --n -1 -h --c=--d"
    assert split(text.split()) == [
        Option("", ("stray",)),
        Option("a", ("1",)),
        Option("b", ("2",), joined=True),
        Option("flag"),
        Option("list", ("x", "y")),
        Option("n", ("-1", "-h")),
        Option("c", ("--d",), joined=True),
    ]
    assert [word for option in split(text.split()) for word in option.words()] == text.split()
    assert split([]) == []
    assert split(["-c", "x.yaml"]) == split(["--config", "x.yaml"])


def test_files_go_before_values_and_configs_before_both() -> None:
    """A value goes over a file wherever it stands; among files and among values the later goes over the earlier."""
    typed = (
        "--model.loss.init_args.beta 0.5 --data.seed 2 --model.loss a.yaml --trainer t.yaml --config c.yaml --config d"
    )
    assert ready(typed + " --data.seed 3 --model.loss b.yaml") == shlex.split(
        "--config c.yaml --config d --trainer t.yaml --model.loss a.yaml --model.loss b.yaml "
        "--model.loss.init_args.beta 0.5 --data.seed 2 --data.seed 3"
    )


@pytest.mark.parametrize("typed", ["--model.source ID --model.policy qlora", "--model.policy qlora --model.source=ID"])
def test_the_source_may_stand_before_or_after_the_policy(typed: str) -> None:
    words = ready(typed)
    assert words[:2] == ["--model.policy", str(CONFIGS / "policy/qlora.yaml")]
    assert "=".join(words[2:]) == "--model.policy.init_args.source=ID"


LONG = "model.policy.init_args.source"
SHORT = "model: {source: short}"


@pytest.mark.parametrize(
    ("files", "sources"),
    [
        ([SHORT], ["short"]),
        (["model.source: short"], ["short"]),
        ([SHORT, "model: {loss: dpo}"], ["short"]),
        ([SHORT, "model: {source: later}"], ["later"]),
        ([SHORT, "model: {policy: {init_args: {source: long}}}"], []),
        (["model: {policy: {init_args: {source: long}}}", SHORT], ["short"]),
        (["model: {source: [no, text]}"], []),
        (["- no mapping"], []),
    ],
)
def test_a_configs_short_source_is_an_option_over_its_files(
    tmp_path: Path, files: list[str], sources: list[str]
) -> None:
    """Under what is typed, and over the file of a policy; another config's long form, if later, is left to count."""
    words = []
    for i, text in enumerate(files):
        (tmp_path / f"{i}.yaml").write_text(text)
        words += ["--config", str(tmp_path / f"{i}.yaml")]
    made = with_sources(options("fit", [*words, "--model.policy", "full", "--model.source", "typed"]))
    assert [option.values[0] for option in made if option.key == LONG] == [*sources, "typed"]
    assert [option.key for option in made] == [*["config"] * len(files), "model.policy", *[LONG] * (len(sources) + 1)]


def test_a_config_with_both_forms_of_the_source_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "both.yaml"
    path.write_text("model: {source: a, policy: {init_args: {source: b}}}")
    message = rf"{path}: model.source and {LONG} must be one, got 'a' and 'b'"
    with pytest.raises(Refusal, match=re.escape(message)):
        with_sources(options("fit", ["--config", str(path)]))


def test_a_name_is_written_out_and_a_value_is_not_one() -> None:
    assert ready("--model.loss=dpo --data.train dpo") == [
        f"--model.loss={CONFIGS / 'loss/dpo.yaml'}",
        "--data.train",
        "dpo",
    ]


def test_settings_are_those_of_files_then_of_words(tmp_path: Path) -> None:
    (tmp_path / "part.yaml").write_text("class_path: lightning_bnf.losses.DPO\ninit_args: {beta: 0.5}\n")
    (tmp_path / "c.yaml").write_text(
        "model: {loss: part.yaml, policy: lora, reference: none}\ntrainer.max_epochs: 3\ndata: {seed: 7}\n"
    )
    found = settings(options("fit", ["--data.seed", "8", "--config", str(tmp_path / "c.yaml")]))
    assert found["model.loss.class_path"] == "lightning_bnf.losses.DPO"
    assert found["model.loss.init_args.beta"] == 0.5
    assert found["model.policy.class_path"] == "lightning_bnf.policies.LoRAPolicy"
    assert (found["model.reference"], found["trainer.max_epochs"], found["data.seed"]) == ("none", 3, "8")


def test_what_cannot_be_read_sets_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("[1, 2]")
    words = ["--config", str(tmp_path / "bad.yaml"), "--config", "/no/such.yaml", "--model.loss", "/no.yaml", "--flag"]
    assert settings(options("fit", words)) == {"model.loss": "/no.yaml", "flag": None}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    """As a config, as a file of a group, and as one that a config names."""
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    (tmp_path / "own.yaml").write_text("model: pipe.yaml")
    for typed in ("--config", "--model", "--model.loss"):
        with pytest.raises(Refusal, match=r"config must be a YAML file, got '.*pipe.yaml', a pipe or socket"):
            options("fit", [typed, str(pipe)])
    with pytest.raises(Refusal, match="a pipe or socket"):
        settings([Option("config", (str(tmp_path / "own.yaml"),))])
