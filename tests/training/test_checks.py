"""What is checked at the start and in the first steps: head, reference, finite losses, gradients that arrive."""

import math
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from support.training import FAST, Write, perturbed, train
from torch import nn
from transformers import MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.callbacks import ExportPolicy
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.losses import BNF, NPO, SFT, Completions, Examples, Loss, LossOutput, SLiC, StepContext
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.training.checks import GradientCheck, MovementCheck, NonFiniteError

pytestmark = pytest.mark.slow


class Explodes(Loss):
    needs_reference = False

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepContext
    ) -> LossOutput:
        return LossOutput(policy.sum() * math.inf)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_rows(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    path = write_pairs()
    module = PreferenceModule(FullPolicy(tiny_folder), Explodes())
    with pytest.raises(NonFiniteError, match="step 0: the loss is") as error:
        train(tmp_path, module, PreferenceData(train=path, examples_per_step=2))
    assert len(set(re.findall(rf"{path}:\d", str(error.value)))) == 2, error.value


class Breaks(Callback):
    """What a rate that is too high does in the end."""

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        next(iter(pl_module.policy.trainable().values())).data.fill_(math.inf)


def test_weights_that_are_not_finite_are_neither_saved_nor_exported(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    """After the last step: no later one would notice."""
    module = PreferenceModule(FullPolicy(tiny_folder), SFT())
    saving = ModelCheckpoint(tmp_path / "checkpoints", save_on_train_epoch_end=True)
    trainer = Trainer(
        accelerator="cpu",
        max_steps=1,
        logger=False,
        default_root_dir=tmp_path,
        callbacks=[Breaks(), saving, ExportPolicy()],
    )
    with pytest.raises(NonFiniteError, match=r"step 1: \d+ of \d+ trained tensors are no longer finite \(.*nothing of"):
        trainer.fit(module, PreferenceData(train=write_pairs(), examples_per_step=8))
    assert not (tmp_path / "policy").exists()
    assert not list(tmp_path.rglob("*.ckpt"))


def trained(count: int, arrived: int, value: float = 1.0) -> dict[str, nn.Parameter]:
    """Tensors of which the first few got a gradient."""
    tensors = {f"t{i}": nn.Parameter(torch.zeros(2)) for i in range(count)}
    for name in [*tensors][:arrived]:
        tensors[name].grad = torch.tensor([0.0, value])
    return tensors


def test_most_tensors_without_a_gradient_are_an_error() -> None:
    """In two steps with a gradient: t0 alone of three in the first, and in the second too."""
    check = GradientCheck(trained(3, 0))
    check(trained(3, 1))
    with pytest.raises(PolicyError, match=r"2 of 3 trainable tensors got no gradient in 2 steps: t1, t2\. Most of"):
        check(trained(3, 1))


def test_few_tensors_without_a_gradient_are_named(recwarn: pytest.WarningsRecorder) -> None:
    """Two of four in the first step, three in the second: t3 is of an expert that got no token. Then nothing more."""
    check = GradientCheck(trained(4, 0))
    check(trained(4, 2))
    assert not len(recwarn)
    with pytest.warns(UserWarning, match="1 of 4 trainable tensors got no gradient in 2 steps: t3. They stay as they"):
        check(trained(4, 3))
    check(trained(4, 0))
    assert not len(recwarn)


def test_steps_in_which_the_loss_is_flat_count_as_none() -> None:
    """A hinge that no pair has reached: it is said once, and the check goes on when gradients come."""
    check = GradientCheck(trained(2, 0))
    check(trained(2, 2, value=0.0))
    with pytest.warns(UserWarning, match="the gradient was 0 in 2 steps: while the loss is flat, nothing is trained"):
        check(trained(2, 0))
    check(trained(2, 0))
    check(trained(2, 1))
    with pytest.warns(UserWarning, match="1 of 2 trainable tensors got no gradient in 2 steps: t1"):
        check(trained(2, 1))


@pytest.mark.parametrize("loss", [SLiC(regularization=0.0, delta=1e-3), NPO(retain_weight=0.0)])
def test_losses_that_begin_flat_are_trained(tmp_path: Path, tiny_folder: str, write_pairs: Write, loss: Loss) -> None:
    train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), loss), PreferenceData(write_pairs(), examples_per_step=1))


def test_numbers_that_are_not_finite_are_not_blamed_on_the_architecture(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    module = PreferenceModule(LoRAPolicy(tiny_folder), BNF())
    module.configure_model()
    module.policy.causal_lm.model.layers[1].mlp.up_proj.weight.data[3] = torch.nan
    with pytest.raises(PolicyError, match=r"source must be a model of finite .* 1 tensors hold others: .*up_proj"):
        train(tmp_path, module, PreferenceData(write_pairs()))


def test_the_term_that_balances_experts_is_said_to_be_left_out(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, num_local_experts=2, output_router_logits=True, **sizes
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "moe")
    tokenizer.save_pretrained(tmp_path / "moe")
    module = PreferenceModule(FullPolicy(str(tmp_path / "moe")), SFT())
    told = r"a load-balancing loss of its routers \(router_aux_loss_coef 0.001\): it is trained without"
    with pytest.warns(UserWarning, match=told):
        train(tmp_path, module, PreferenceData(write_pairs()), max_steps=1)


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


@pytest.mark.parametrize(("dtype", "share"), [(torch.float32, 100), (torch.bfloat16, 0)])
def test_weights_that_do_not_move_are_said_once(
    dtype: torch.dtype, share: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Steps of a millionth from 1: bfloat16's next number below is 1 - 2^-8. What gets no gradient does not count."""
    trained, frozen = (nn.Parameter(torch.ones(40, dtype=dtype)) for _ in range(2))
    optimizer = torch.optim.SGD([trained, frozen], 1e-6)
    MovementCheck(optimizer)

    def steps(count: int) -> None:
        for _ in range(count):
            trained.grad, frozen.grad = torch.ones_like(trained), torch.zeros_like(frozen)
            optimizer.step()

    told = f"{share}% of the trained numbers have moved in 10 steps"
    with caplog.at_level("INFO"), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        steps(25)
    said = [record.getMessage() for record in caplog.records] + [str(one.message) for one in warned]
    assert [one[: len(told)] for one in said] == [told]
    assert bool(warned) is (share < 50)
