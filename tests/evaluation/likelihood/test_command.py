"""The verb `likelihood` on tiny models."""

import json
from pathlib import Path

import pytest
from support.commands import refused

from lightning_bnf.cli.main import main


@pytest.fixture
def words(tmp_path, write_pairs):
    texts = tmp_path / "texts.jsonl"
    texts.write_text(json.dumps({"text": "The ship left the harbour at noon."}) + "\n")
    pairs = write_pairs()
    settings = {"choices": "[]", "prose": str(texts), "pairs": pairs, "prompts": pairs, "max_new_tokens": "4"}
    return [word for name, value in settings.items() for word in (f"--rows.{name}", value)]


def test_a_model_against_itself_has_gone_no_distance(words, tiny_folder, tmp_path, capsys):
    output = tmp_path / "out"
    main(["likelihood", "--source", tiny_folder, "--reference", tiny_folder, "--output", str(output), *words])
    held = json.loads((output / "likelihood.json").read_text())
    by_name = {line["measure"]: line for line in held["measures"]}
    assert set(by_name) == {"pairs_ranked", "pairs_margin", "pairs_won", "prose", "kl_base", "kl_own"}
    assert by_name["kl_base"]["value"] == by_name["kl_own"]["value"] == pytest.approx(0, abs=1e-4)
    assert by_name["prose"]["difference"] == 0
    assert held["values"]["prose"] == held["reference_values"]["prose"]
    assert held["values"]["pairs_won"] == [0.5] * 5, "equal ratios are ties"
    assert held["policy"]["weights"] == held["reference"]["weights"]
    assert (output / "likelihood.md").read_text().strip() in capsys.readouterr().out


def test_a_model_alone(words, tiny_folder, tmp_path):
    main(["likelihood", "--source", tiny_folder, "--output", str(tmp_path / "out"), *words[:6]])
    held = json.loads((tmp_path / "out" / "likelihood.json").read_text())
    assert {line["measure"] for line in held["measures"]} == {"pairs_ranked", "pairs_margin", "prose"}
    assert held["reference_values"] is None


@pytest.mark.slow
def test_both_models_answer_verified_prompts(words, tiny_folder, tmp_path, write_pairs):
    lines = [json.loads(line) for line in Path(write_pairs()).read_text().splitlines()]
    path = tmp_path / "verified.jsonl"
    named = {"verifier": {"name": "no_commas"}, "max_new_tokens": 4}
    path.write_text("".join(json.dumps({**line, **named}) + "\n" for line in lines))
    output = tmp_path / "out"
    given = ["--source", tiny_folder, "--reference", tiny_folder, "--rows.verified", str(path)]
    main(["likelihood", "--output", str(output), *given, *words])
    held = json.loads((output / "likelihood.json").read_text())
    (line,) = (line for line in held["measures"] if line["measure"] == "passes")
    assert (line["n"], line["difference"]) == (5, 0.0)
    assert held["values"]["passes"] == held["reference_values"]["passes"]


def test_what_cannot_be_measured_is_refused(words, tiny_folder, tmp_path, capsys):
    given = ["likelihood", "--source", tiny_folder, "--output", str(tmp_path / "out")]
    assert "reference must be a model where rows.prompts names a file, got none" in refused(capsys, *given, *words)
    nothing = ["--rows.choices", "[]", "--rows.prose", "null"]
    assert "rows must name choices, pairs, prose or prompts (beside verified), got none of them" in refused(
        capsys, *given, *nothing
    )
    assert not (tmp_path / "out").exists()
