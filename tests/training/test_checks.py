"""What is checked at the start and in the first steps: head, reference, finite losses, gradients that arrive."""

import math
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from support.training import FAST, Write, perturbed, train
from transformers import PreTrainedTokenizerBase

from lightning_bnf.callbacks import ExportPolicy
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.losses import BNF, SFT, Completions, Examples, Loss, LossOutput, StepContext
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.training.checks import NonFiniteError
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


class Explodes(Loss):
    needs_reference = False

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        return LossOutput(policy.sum() * math.inf)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, tokenizer: PreTrainedTokenizerBase
) -> None:
    path = write_pairs()
    rows, _ = load_rows(path, tokenizer)
    module = PreferenceModule(FullPolicy(tiny_folder), Explodes())
    with pytest.raises(NonFiniteError, match="step 0: the loss is") as error:
        train(tmp_path, module, PreferenceData(train=path, examples_per_step=2))
    assert sum(row.id in str(error.value) for row in rows) == 2


def test_weights_that_are_not_finite_are_neither_saved_nor_exported(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """A learning rate of infinity for one step: no later step would notice."""
    module = PreferenceModule(FullPolicy(tiny_folder), SFT(), optimization=Optimization(learning_rate=1e38))
    saving = ModelCheckpoint(tmp_path / "checkpoints", save_on_train_epoch_end=True)
    trainer = Trainer(
        accelerator="cpu", max_steps=1, logger=False, default_root_dir=tmp_path, callbacks=[saving, ExportPolicy()]
    )
    with pytest.raises(NonFiniteError, match=r"step 1: \d+ of \d+ trained tensors are no longer finite \(.*nothing of"):
        trainer.fit(module, PreferenceData(train=write_pairs(), examples_per_step=8))
    assert not (tmp_path / "policy").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


class Constant(Loss):
    needs_reference = False

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        return LossOutput(policy.sum() * 0)


def test_a_tensor_that_never_gets_a_gradient_is_an_error(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    module = PreferenceModule(LoRAPolicy(tiny_folder), Constant())
    with pytest.raises(PolicyError, match="28 trainable tensors got no gradient in 2 steps"):
        train(tmp_path, module, PreferenceData(train=write_pairs(), examples_per_step=2))


def test_steps_without_an_example_for_the_loss_change_nothing(tmp_path: Path, tiny_folder: str) -> None:
    """SFT, a row a step, one of four preferred: steps without any must neither fail nor count as checked."""
    path = tmp_path / "unpaired.jsonl"
    rows = [f'{{"prompt": "a {i}", "completion": "b", "label": {"true" if i == 3 else "false"}}}' for i in range(4)]
    path.write_text("\n".join(rows) + "\n")
    module = PreferenceModule(LoRAPolicy(tiny_folder), SFT(), optimization=FAST)
    trainer = train(tmp_path, module, PreferenceData(str(path), examples_per_step=1), max_epochs=3)
    assert trainer.global_step == 12


def test_a_head_that_is_not_understood_is_refused(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    module = PreferenceModule(FullPolicy(tiny_folder), SFT())
    module.configure_model()
    forward = module.policy.causal_lm.forward

    def doubled(*args: Any, **kwargs: Any) -> Any:
        out = forward(*args, **kwargs)
        out.logits = out.logits * 2
        return out

    module.policy.causal_lm.forward = doubled  # type: ignore[method-assign]
    with pytest.raises(PolicyError, match=r"differ by .* nats from the model's own logits"):
        train(tmp_path, module, PreferenceData(train=write_pairs(), examples_per_step=2))


def test_a_reference_that_is_not_the_start_is_said(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    module = PreferenceModule(FullPolicy(tiny_folder), BNF(), optimization=FAST)
    module.configure_model()
    perturbed(module)
    with pytest.warns(UserWarning, match="the reference is not the starting policy"):
        train(tmp_path, module, PreferenceData(train=write_pairs(), examples_per_step=5), max_epochs=1)
