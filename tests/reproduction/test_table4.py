"""The steps of Table 4: their commands, their order, and what their results depend on."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from lightning_bnf.judging.server_judge import JudgeServer
from lightning_bnf.reproduction.printed import BASE_MODELS, table4
from lightning_bnf.reproduction.table4 import Answering, Judged, Reasoning, Row, Step, Table4, steps_of
from lightning_bnf.runtime.refusal import Refusal

ROOT = Path(__file__).parents[2]


@pytest.fixture
def table(tmp_path: Path) -> Table4:
    """A released model and one that is trained."""
    (tmp_path / "base.yaml").write_text("model: {reference: cache}")
    (tmp_path / "row.yaml").write_text("model: {}")
    (tmp_path / "questions.jsonl").write_text("{}")
    fit = Row(configs=[str(tmp_path / "base.yaml"), str(tmp_path / "row.yaml")], settings={"trainer.devices": 2})
    server = JudgeServer("http://host/v1", "judge", price_in=1.0, price_out=2.0)
    judged = Judged(str(tmp_path / "questions.jsonl"), 5, "own", server=server, max_cost=3.0)
    return Table4({"m": {"Base": Row("some/model"), "BNF": fit}}, wildbench=judged, zeroeval=Reasoning())


def named(table: Table4, output: Path) -> dict[str, Step]:
    return {step.name: step for step in steps_of(table, output)}


def value(step: Step, name: str) -> str:
    return step.words[step.words.index(name) + 1]


def test_commands_and_their_order(table: Table4, tmp_path: Path) -> None:
    found = named(table, tmp_path / "out")
    answered = ["answers_wildbench", "zeroeval", "judge_wildbench"]
    assert list(found) == [f"m/Base/{kind}" for kind in answered] + [
        f"m/BNF/{kind}" for kind in ("cache", "fit", *answered)
    ]
    fit, asked = found["m/BNF/fit"], found["m/BNF/answers_wildbench"]
    assert list(fit.words[1:]) == list(found["m/BNF/cache"].words[1:])
    assert (value(fit, "--trainer.devices"), fit.needs) == ("2", ["m/BNF/cache"])
    assert value(fit, "--trainer.default_root_dir") == str(tmp_path / "out/m/BNF/fit")
    assert (value(asked, "--source"), value(asked, "--name")) == (str(tmp_path / "out/m/BNF/fit/policy"), "m/BNF")
    assert value(found["m/Base/zeroeval"], "--source") == "some/model"
    judge = found["m/BNF/judge_wildbench"]
    assert value(judge, "--answers") == value(asked, "--output")
    assert [value(judge, f"--{name}") for name in ("server.price_in", "max_cost", "prompt")] == ["1.0", "3.0", "own"]
    assert not {"--baseline", "--source", "--server.api_key_variable"} & set(judge.words)


def test_a_server_answers_under_the_models_source(table: Table4, tmp_path: Path) -> None:
    served = replace(table, answering=Answering(base_url="http://host/v1"))
    step = named(served, tmp_path / "out")["m/BNF/answers_wildbench"]
    assert value(step, "--server.model") == str(tmp_path / "out/m/BNF/fit/policy")
    assert "--source" not in step.words
    (own,) = (step for name, step in named(table, tmp_path / "out").items() if name == "m/BNF/answers_wildbench")
    assert own.fingerprint({"m/BNF/fit": "f"}) == step.fingerprint({"m/BNF/fit": "f"}), "each file says who answered"


def test_results_depend_on_settings_and_contents_and_on_no_price_or_address(table: Table4, tmp_path: Path) -> None:
    assert table.wildbench is not None

    def judge(changed: Table4) -> str:
        return named(changed, tmp_path / "out")["m/Base/judge_wildbench"].fingerprint({"m/Base/answers_wildbench": "a"})

    before = judge(table)
    same = JudgeServer("https://other/v1", "judge", api_key_variable="KEY", at_once=2)
    assert judge(replace(table, wildbench=replace(table.wildbench, server=same, max_cost=None))) == before
    other = JudgeServer("http://host/v1", "better judge")
    assert judge(replace(table, wildbench=replace(table.wildbench, server=other))) != before
    fit = named(table, tmp_path / "out")["m/BNF/fit"]
    made = fit.fingerprint({"m/BNF/cache": "c"})
    assert named(table, tmp_path / "moved")["m/BNF/fit"].fingerprint({"m/BNF/cache": "c"}) == made
    (tmp_path / "row.yaml").write_text("model: {x: 1}")
    assert fit.fingerprint({"m/BNF/cache": "c"}) != made
    (tmp_path / "questions.jsonl").write_text("{} ")
    assert judge(table) != before


def test_a_local_model_that_was_written_anew_is_another(table: Table4, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    local = replace(table, models={"m": {"Base": Row(str(tmp_path / "model"))}})
    step = named(local, tmp_path / "out")["m/Base/zeroeval"]
    before = step.fingerprint({})
    assert step.fingerprint({}) == before
    (tmp_path / "model/config.json").write_text('{"a": 1}')
    assert step.fingerprint({}) != before


def test_refusals(table: Table4, tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="source must be a model, or configs those of a fit, got None and"):
        Row()
    with pytest.raises(Refusal, match="source must be a model, or configs those of a fit, got x and"):
        Row("x", ["y.yaml"])
    with pytest.raises(Refusal, match=r"models must be named without slashes and not begin with a dot, got '\.\./m'"):
        steps_of(replace(table, models={"../m": {"Base": Row("x")}}), tmp_path)
    with pytest.raises(Refusal, match=r"configs must be YAML files of `fit`, got nowhere\.yaml, which is none"):
        steps_of(replace(table, models={"m": {"BNF": Row(configs=["nowhere.yaml"])}}), tmp_path)


def test_the_shipped_table_has_the_papers_lines() -> None:
    """Every printed line and no other; BNF alone is trained, by configs that are shipped."""
    held = yaml.safe_load((ROOT / "configs/reproduce/table4_paper.yaml").read_text())["table4"]["models"]
    assert tuple(held) == BASE_MODELS
    for model, rows in held.items():
        assert list(rows) == list(table4(model).scores.index)
        assert [method for method, row in rows.items() if "configs" in row] == ["BNF"]
        assert all((ROOT / path).is_file() for path in rows["BNF"]["configs"])
    sources = [row["source"] for rows in held.values() for row in rows.values() if "source" in row]
    assert len(set(sources)) == len(sources) == 17
