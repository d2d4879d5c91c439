"""What a loss needs of the data, refused before the model is loaded."""

from pathlib import Path
from typing import Any

import pytest
from support import catalog
from support import slow_rows as slow
from support.training import train

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.steps.needs import check_rows, label_sentences, usable_rows
from lightning_bnf.datamodules.tokens.rows import RowView
from lightning_bnf.losses import BNF, DPO, MADPO, SFT, SPO, AOTUnpaired, Loss, PoFT
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy

pytestmark = pytest.mark.slow


def test_a_pair_loss_refuses_unpaired_rows(tmp_path: Path, tiny_folder: str) -> None:
    path = tmp_path / "unpaired.jsonl"
    path.write_text('{"prompt": "a", "completion": "b", "label": true}\n')
    with pytest.raises(ValueError, match=r"unpaired.jsonl:1: must be a pair .* for DPO, got unpaired"):
        train(tmp_path, PreferenceModule(FullPolicy(tiny_folder), DPO()), PreferenceData(str(path)))


@pytest.mark.parametrize("seed", [1, 2])
def test_rows_in_the_order_of_their_rewards_are_those_found_one_by_one(seed: int) -> None:
    rows = slow.some_rows(200, seed)
    wanted = [row for row in rows if slow.ordered(row)]
    kept, sentence = usable_rows(RowView([rows]), SPO(), allow_drop=1.0)
    assert [*kept] == wanted
    assert sentence is not None
    assert sentence.startswith(f"{200 - len(wanted)} of 200 rows dropped")
    first = next(row for row in rows if not slow.ordered(row))
    with pytest.raises(DataError, match=f"^{first.source}: dropped rows must be at most"):
        usable_rows(RowView([rows]), SPO(), allow_drop=0.0)


@pytest.mark.parametrize(
    ("good", "wrong", "loss"),
    [("paired", "unpaired", DPO()), ("grouped", "paired", catalog.build("d2o")), ("paired", "prompt", SFT())],
)
def test_the_first_row_that_a_loss_cannot_take_is_named(good: str, wrong: str, loss: Any) -> None:
    rows = slow.some_rows(50, kinds=(good, wrong))
    bad = next(row for row in rows if row.format == wrong)
    with pytest.raises(DataError, match=f"^{bad.source}: must be"):
        check_rows(RowView([rows]), loss)
    check_rows(RowView([[row for row in rows if row.format == good]]), loss)


@pytest.mark.parametrize(
    ("kinds", "labels", "loss", "warned"),
    [
        (("unpaired",), (1, -1), BNF(), None),
        (("unpaired",), (1,), BNF(), "WARNING: no answer is labelled -1, and BNF trains on preferred ones alone"),
        (("unpaired",), (-1,), BNF(), "WARNING: no answer is labelled +1, and BNF trains on dispreferred ones alone"),
        (("unpaired",), (1,), SFT(), None),
        (("unpaired", "paired"), (1,), BNF(), None),
        (("paired", "grouped", "demonstration"), (1, -1), BNF(), ""),
    ],
)
def test_labels_of_single_answers_are_counted_and_one_that_is_missing_is_told(
    kinds: tuple[str, ...], labels: tuple[int, ...], loss: Loss, warned: str | None
) -> None:
    rows = [
        row
        for row in slow.some_rows(2000, kinds=kinds)
        if row.format != "unpaired" or row.completions[0].label in labels
    ]
    single = [row.completions[0].label for row in rows if row.format == "unpaired"]
    told = [f"labels of single answers: {single.count(1):,} +1, {single.count(-1):,} -1", warned]
    assert label_sentences(RowView([rows]), loss) == ([] if warned == "" else [line for line in told if line])


class Unloadable(FullPolicy):
    """Fails the test when its weights are loaded."""

    def load(self) -> None:
        raise AssertionError("the model was loaded before the data were refused")


@pytest.mark.parametrize(
    ("loss", "row", "sentence"),
    [
        (DPO(), '{"prompt": "a", "completion": "b", "label": true}', "must be a pair .* for DPO, got unpaired"),
        (
            catalog.build("d2o"),
            '{"prompt": "a", "chosen": "b", "rejected": "c"}',
            "must be grouped for D2O .* paired",
        ),
        (MADPO(), '{"prompt": "a", "chosen": "b", "rejected": "c"}', "score_chosen and score_rejected"),
        (PoFT(), '{"prompt": "a", "completion": "b"}', "must be a row with baseline_mean_logps for PoFT"),
        (
            SPO(),
            '{"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": 1, "score_rejected": 1}',
            "got 1 of 1, since SPO needs chosen completions scored above the rejected ones",
        ),
        (
            SFT(),
            '{"prompt": "a", "completion": "b", "label": false}',
            r"labels must be of \(1,\) for SFT.* got {-1}",
        ),
        (AOTUnpaired(), '{"prompt": "a", "completion": "b", "label": false}', "compares preferred with dispreferred"),
    ],
)
def test_data_without_what_the_loss_needs_are_refused_before_the_model_is_loaded(
    tmp_path: Path, tiny_folder: str, loss: Any, row: str, sentence: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row + "\n")
    with pytest.raises(DataError, match=sentence):
        train(tmp_path, PreferenceModule(Unloadable(tiny_folder), loss), PreferenceData(str(path)))


def test_spo_drops_and_counts_rows_without_an_order(tmp_path: Path, tiny_folder: str) -> None:
    path = tmp_path / "rows.jsonl"
    scores = [(2, 1), (1, 1), (0, 3), (1, 0)]
    path.write_text(
        "".join(
            f'{{"prompt": "p{i}", "chosen": "b", "rejected": "c", "score_chosen": {w}, "score_rejected": {lower}}}\n'
            for i, (w, lower) in enumerate(scores)
        )
    )
    data = PreferenceData(str(path), options=DataOptions(allow_drop=0.5))
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), SPO()), data, max_epochs=1)
    assert len(data.rows["train"]) == 2
    sentence = "2 of 4 rows dropped: SPO needs chosen completions scored above the rejected ones"
    assert sentence in (tmp_path / "data_report.txt").read_text()
