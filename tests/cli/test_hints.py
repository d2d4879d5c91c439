"""What users of other trainers type leads to the setting here, and every setting that is named exists."""

import inspect

import pytest
from support.commands import refused

from lightning_bnf.cli.hints import _MEANS, _NOTES, _OURS, meant
from lightning_bnf.cli.words import SHORT_FORMS
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import LoRAPolicy
from lightning_bnf.training.optimization import Optimization


@pytest.mark.parametrize(
    ("typed", "setting"),
    [
        ("lr", "model.optimization.learning_rate"),
        ("model.lr", "model.optimization.learning_rate"),
        ("learning-rate", "model.optimization.learning_rate"),
        ("data.batch_size", "data.examples_per_step"),
        ("batch_size", "data.examples_per_step"),
        ("gradient_accumulation_steps", "data.examples_per_step"),
        ("trainer.epochs", "trainer.max_epochs"),
        ("num_train_epochs", "trainer.max_epochs"),
        ("model.model", "model.source"),
        ("model.name", "model.source"),
        ("model_name_or_path", "model.source"),
        ("data.path", "data.train"),
        ("data.dataset", "data.train"),
        ("output_dir", "trainer.default_root_dir"),
        ("model.rank", "model.policy.init_args.r"),
        ("lora_r", "model.policy.init_args.r"),
        ("model.policy.rank", "model.policy.init_args.r"),
        ("max_length", "data.options.max_length"),
        ("beta", "model.loss.init_args.beta"),
        ("bf16", "trainer.precision"),
        ("fp16", "trainer.precision"),
        ("warmup_ratio", "model.optimization.warmup_ratio"),
        ("seed", "seed_everything"),
        ("trainer.seed", "seed_everything"),
        ("eval_steps", "trainer.val_check_interval"),
    ],
)
def test_a_word_of_elsewhere_means_a_setting_here(typed: str, setting: str) -> None:
    found = meant(typed)
    assert found is not None
    assert found.setting == setting


@pytest.mark.parametrize("typed", ["data.trian", "trainer.max_epoch", "trainer.max_epochs", ""])
def test_misspellings_are_left_to_the_letters(typed: str) -> None:
    assert meant(typed) is None


def test_every_word_means_one_setting_and_every_note_has_its_word() -> None:
    words = [word for words in _MEANS.values() for word in words.split()]
    assert sorted(words) == sorted(set(words))
    assert set(_NOTES) <= set(_OURS)


def test_every_setting_of_the_table_is_there() -> None:
    inside = {
        "model": PreferenceModule,
        "model.optimization": Optimization,
        "model.generation": Sampling,
        "model.policy.init_args": LoRAPolicy,
        "data": PreferenceData,
        "data.options": DataOptions,
    }
    for setting in set(_MEANS) - set(SHORT_FORMS) - {"model.loss.init_args.beta"}:
        group, _, name = setting.rpartition(".")
        if group in inside:
            assert name in inspect.signature(inside[group]).parameters, setting
        else:
            assert group in ("trainer", ""), setting


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["fit", "--lr", "1e-5"], "did you mean 'model.optimization.learning_rate'?"),
        (["fit", "--lora"], "did you mean 'model.policy'? (--model.policy lora)"),
        (["fit", "--data.trian", "x"], "did you mean 'data.train'?"),
        (["evaluate", "--limti", "3"], "did you mean 'limit'?"),
    ],
)
def test_the_command_line_says_it(capsys: pytest.CaptureFixture[str], words: list[str], hint: str) -> None:
    assert hint in refused(capsys, *words)


@pytest.mark.slow
def test_no_command_names_a_setting_that_it_does_not_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean" not in refused(capsys, "evaluate", "--lr", "1")
