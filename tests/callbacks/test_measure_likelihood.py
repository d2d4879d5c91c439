"""Likelihood within a run and at its end."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.training import train

from lightning_bnf.callbacks.measure_likelihood import MeasureLikelihood
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation.likelihood import scoring
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows
from lightning_bnf.evaluation.pass_rates import Record, complete_and_verify
from lightning_bnf.losses import BNF
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


def measured(root, folder, pairs, policy=LoRAPolicy, **settings):
    asked = LikelihoodRows(choices=[], prose=None, pairs=pairs, max_new_tokens=4, **settings.pop("rows", {}))
    callback = MeasureLikelihood(asked, **settings)
    torch.manual_seed(1)  # of the adapters
    module = PreferenceModule(policy(folder), BNF(), optimization=Optimization(learning_rate=3e-2))
    data = PreferenceData(train=pairs, examples_per_step=2, max_tokens=512)
    train(root, module, data, callbacks=[callback], max_epochs=1, limit_val_batches=0)
    return json.loads((root / "likelihood.json").read_text())


def test_a_run_is_measured_at_its_shares_and_its_end(tmp_path, tiny_folder, write_pairs, monkeypatch):
    """Three steps: the first is a third. The distance grows from there, and both ways to the base give the same."""
    monkeypatch.setenv("LIGHTNING_BNF_CACHE", str(tmp_path / "cache"))
    pairs = write_pairs()
    settings = {"at": [0.34], "rows": {"prompts": pairs, "samples": str(tmp_path / "samples.json")}}
    plain = measured(tmp_path / "plain", tiny_folder, pairs, **settings)
    cached = measured(tmp_path / "cached", tiny_folder, pairs, cache=True, **settings)
    within, end = plain["points"]
    assert [(point["step"], point["share"]) for point in plain["points"]] == [(1, 0.34), (3, 1.0)]
    assert set(end["values"]) - set(within["values"]) == {"kl_own"}, "nothing is generated within the run"
    kl = [sum(point["values"]["kl_base"]) for point in plain["points"]]
    assert 0 < abs(kl[0]) < kl[1]
    assert plain["points"] == cached["points"]
    lines = {line["measure"]: line for line in plain["measures"]}
    assert lines["pairs_margin"]["difference"] == pytest.approx(
        lines["pairs_margin"]["value"] - lines["pairs_margin"]["base"]
    )
    assert lines["pairs_won"]["value"] > 0.5, "of the pairs that it learned from"


def test_prompts_are_answered_and_verified_at_every_moment(tmp_path, tiny_folder, write_pairs, monkeypatch):
    """Greedily, by the policy: four of five, of which the first and the third pass, and one is of a kept-out family;
    within the run without pairs."""
    lines = [json.loads(line) for line in Path(write_pairs()).read_text().splitlines()]
    named = {"verifier": {"name": "ends_with_question"}, "max_new_tokens": 4}
    path = tmp_path / "verified.jsonl"
    path.write_text("".join(json.dumps({**line, **named, "kept_out": i == 1}) + "\n" for i, line in enumerate(lines)))
    made: list[list[Record]] = []

    def answered(model, tokenizer, prompts, temperature, progress):
        records = complete_and_verify(model, tokenizer, prompts, temperature, progress=progress)
        assert {record.decoding for record in records} == {"greedy"}
        made.append([replace(record, passed=i % 2 == 0) for i, record in enumerate(records)])
        return made[-1]

    monkeypatch.setattr(scoring, "complete_and_verify", answered)
    settings = {"at": [0.34], "pairs_within": 0, "rows": {"verified": str(path), "verified_rows": 4}}
    held = measured(tmp_path / "run", tiny_folder, write_pairs(), **settings)
    within, end = (point["values"] for point in held["points"])
    assert set(within) == {"passes", "passes_kept_out"}
    assert set(end) - set(within) == {"pairs_ranked", "pairs_margin", "pairs_won"}
    for values, records in zip((within, end), made, strict=True):
        passed = {
            kept_out: [float(one.passed) for one in records if (one.groups[0] == "kept-out") == kept_out]
            for kept_out in (False, True)
        }
        assert (values["passes"], values["passes_kept_out"]) == (passed[False], passed[True])
        assert [len(some) for some in passed.values()] == [3, 1]
    by_name = {line["measure"]: line for line in held["measures"]}
    assert by_name["passes"]["base"] is None, "the base does not answer them again in every run"
    with pytest.raises(Refusal, match=r"rows\.verified must be a file of prompts that carry verifiers"):
        measured(tmp_path / "none", tiny_folder, write_pairs(), rows={"verified": write_pairs()})


def test_of_full_weights_the_policy_alone_is_measured(tmp_path, tiny_folder, write_pairs):
    pairs = write_pairs()
    held = measured(tmp_path / "full", tiny_folder, pairs, FullPolicy)
    assert {line["measure"] for line in held["measures"]} == {"pairs_ranked", "pairs_margin"}
    with pytest.raises(Refusal, match=r"rows\.prompts must be null for a policy without adapters"):
        measured(tmp_path / "other", tiny_folder, pairs, FullPolicy, rows={"prompts": pairs})


def test_what_names_no_rows_is_refused(tmp_path, tiny_folder, write_pairs):
    module, data = PreferenceModule(LoRAPolicy(tiny_folder), BNF()), PreferenceData(train=write_pairs())
    callback = MeasureLikelihood(LikelihoodRows(choices=[], prose=None))
    with pytest.raises(Refusal, match=r"rows must name choices, pairs, prose or prompts \(beside verified\), got none"):
        train(tmp_path, module, data, callbacks=[callback])
    with pytest.raises(Refusal, match=r"at\[0\] must be in \(0, 1\), got 1"):
        MeasureLikelihood(at=[1.0])
