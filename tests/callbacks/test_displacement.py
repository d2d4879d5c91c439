"""The displacement alarm: it fires exactly where its bound is crossed, says so once, and stops if asked to."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.training import FAST, Write, train

from lightning_bnf.callbacks import DisplacementAlarm
from lightning_bnf.callbacks.displacement import alarms, evenly_spaced
from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses import NLLPLL, SFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("since", "fired"),
    [
        ({"chosen": -0.11, "rejected": -0.2, "held_out": 0.0}, {"both_classes"}),
        (
            {"chosen": -0.09, "rejected": -2.0, "held_out": -0.19},
            set(),
        ),  # the chosen hold, the text is within its bound
        ({"chosen": -0.2, "rejected": 0.5}, set()),
        ({"chosen": 0.0, "held_out": -0.2}, {"held_out"}),
        ({"chosen": -0.1, "rejected": -0.1, "held_out": -0.2}, {"both_classes", "held_out"}),
        ({"chosen": -5.0}, set()),  # one class alone is no pair
    ],
)
def test_fires_exactly_at_its_bounds(since: dict[str, float], fired: set[str]) -> None:
    assert set(alarms(since, fall=0.1, held_out_fall=0.2)) == fired


def test_the_sentences_hold_the_numbers() -> None:
    found = alarms({"chosen": -0.3, "rejected": -1.25, "held_out": -0.5}, 0.1, 0.2)
    assert "(-0.30 and -1.25 nats a token; bound -0.10)" in found["both_classes"]
    assert "has lost 0.50 nats a token since the start (bound 0.20)" in found["held_out"]


def texts(folder: Path) -> str:
    path = folder / "held_out.jsonl"
    path.write_text('{"prompt": "Rivers are", "completion": " older than maps."}\n')
    return str(path)


def run(
    tmp_path: Path, folder: str, data: str, alarm: DisplacementAlarm, loss: Any = None, **more: Any
) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(1)
    module = PreferenceModule(LoRAPolicy(folder), loss or NLLPLL(), optimization=FAST)
    trainer = train(tmp_path, module, PreferenceData(data, examples_per_step=5), callbacks=[alarm], **more)
    return trainer, json.loads((tmp_path / "displacement.json").read_text())


def test_what_it_measures_is_what_the_policy_gives(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    alarm = DisplacementAlarm(texts(tmp_path), rows=3, every_n_steps=2, fall=99, held_out_fall=99)
    trainer, record = run(tmp_path, tiny_folder, write_pairs(rows=10), alarm, max_epochs=3)
    assert [found["step"] for found in record["measured"]] == [0, 2, 4, 6]
    assert record["alarms"] == {}
    module = trainer.lightning_module
    rows = evenly_spaced(trainer.datamodule.rows["train"], 3)
    means = module.mean_logps(rows, 10_000)
    last = record["measured"][-1]
    assert last["chosen"] == pytest.approx(sum(pair[0] for pair in means) / 3, rel=1e-6)
    assert last["rejected"] == pytest.approx(sum(pair[1] for pair in means) / 3, rel=1e-6)
    change = last["held_out"] - record["measured"][0]["held_out"]
    assert trainer.callback_metrics["displacement/held_out"].item() == pytest.approx(change, rel=1e-4)


def test_it_says_so_once_at_the_first_step_past_the_bound(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, caplog: pytest.LogCaptureFixture
) -> None:
    alarm = DisplacementAlarm(texts(tmp_path), every_n_steps=1, fall=0.5, held_out_fall=0.5)
    with pytest.warns(UserWarning, match="displacement alarm, step"):
        _, record = run(tmp_path, tiny_folder, write_pairs(), alarm, max_epochs=25)
    start = record["measured"][0]
    for kind, past in (
        ("both_classes", lambda now: max(now[side] - start[side] for side in ("chosen", "rejected")) <= -0.5),
        ("held_out", lambda now: now["held_out"] - start["held_out"] <= -0.5),
    ):
        crossed = [now["step"] for now in record["measured"] if past(now)]
        assert (kind in record["alarms"]) == bool(crossed)
        if crossed:
            assert record["alarms"][kind].startswith(f"step {crossed[0]}: ")
    assert record["alarms"], "NLL + PLL on a tiny model is to collapse here"


def test_it_stops_the_run_if_asked_to(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    alarm = DisplacementAlarm(texts(tmp_path), every_n_steps=1, fall=0.5, held_out_fall=0.5, stop=True)
    with pytest.warns(UserWarning, match="displacement alarm"):
        trainer, record = run(tmp_path, tiny_folder, write_pairs(), alarm, max_epochs=40)
    assert trainer.global_step == record["measured"][-1]["step"] < 40
    assert f"step {trainer.global_step}: " in next(iter(record["alarms"].values()))


def test_a_run_that_harms_nothing_raises_no_alarm(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    alarm = DisplacementAlarm(rows=5, every_n_steps=1)
    _, record = run(tmp_path, tiny_folder, write_pairs(), alarm, loss=SFT(), max_epochs=3)
    assert record["alarms"] == {}
    assert record["measured"][-1]["chosen"] > record["measured"][0]["chosen"]


def test_what_it_has_measured_survives_a_checkpoint() -> None:
    first, second = DisplacementAlarm(), DisplacementAlarm()
    first.measured, first.alarms = [{"step": 0, "chosen": -1.0}], {"held_out": "step 3: ..."}
    second.load_state_dict(first.state_dict())
    assert (second.measured, second.alarms) == (first.measured, first.alarms)


def test_watched_rows_are_spread_evenly() -> None:
    answer = TokenizedCompletion([7], [True], 1)
    rows = [TokenizedRow(str(i), "", "unpaired", [1], (answer,)) for i in range(10)]
    assert [row.id for row in evenly_spaced(rows, 3)] == ["0", "3", "6"]
    assert evenly_spaced(rows[:2], 3) == rows[:2]


def test_bad_arguments_are_refused() -> None:
    for arguments, message in (
        ({"rows": 0}, "rows must be >= 1, got 0"),
        ({"fall": 0.0}, "fall must be > 0, got 0.0"),
        ({"held_out_fall": -1.0}, "held_out_fall must be > 0, got -1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            DisplacementAlarm(**arguments)


def test_the_collapse_config_runs_on_a_tiny_model(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = Path(__file__).parents[2]
    monkeypatch.chdir(root)
    words = ["--model.policy.init_args.source", tiny_folder, "--trainer.limit_train_batches", "2"]
    words += ["--trainer.default_root_dir", str(tmp_path / "run"), "--trainer.callbacks.init_args.rows", "2"]
    main(["fit", "--config", "configs/experiment/collapse.yaml", *words])
    record = json.loads((tmp_path / "run/displacement.json").read_text())
    assert [found["step"] for found in record["measured"]] == [0, 1, 2]
    assert set(record["measured"][0]) == {"step", "chosen", "rejected", "held_out"}
    saved = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert saved["trainer"]["callbacks"][0]["class_path"] == "lightning_bnf.callbacks.DisplacementAlarm"
