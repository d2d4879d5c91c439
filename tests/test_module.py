"""The module through a tiny real model: the paper's gradient, partition invariance, start-up checks, refusals."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from support import oracles
from support.plain_path import PlainLoRAPolicy
from support.training import FAST, Write, full_module, train
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import padded
from lightning_bnf.datamodules.steps.loader import StepCounts
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses import BNF, DPO, NLLPLL, SFT, Loss
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy, PolicyError
from lightning_bnf.training.checkpoints import CheckpointError
from lightning_bnf.training.optimization import Optimization

pytestmark = pytest.mark.slow


def gradients(
    module: PreferenceModule, batches: Sequence[Sequence[TokenizedRow]], labels: tuple[int, ...] = (1, -1)
) -> dict[str, Tensor]:
    """The gradient of a whole step, cut into these micro-batches."""
    together = [row for batch in batches for row in batch]
    context = StepCounts(together, labels).context(range(len(together)))
    module.zero_grad()
    for rows in batches:
        objective = module.evaluate(padded(rows, labels), context).objective
        (objective / module.loss.value_count(context)).backward()
    return {name: p.grad.clone() for name, p in module.policy.trainable().items() if p.grad is not None}


def test_bnf_gradient_of_every_weight_equals_eq4_through_a_real_model(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    """Eq. 4 over the whole vocabulary, one completion at a time, against the fused head on a padded batch."""
    rows, _ = load_rows(write_pairs(), tokenizer)
    module = full_module(tiny_folder, BNF())
    ours = gradients(module, [rows])
    module.zero_grad()
    total, clipped = 0.0, 0
    for row in rows:
        for completion in row.completions:
            ids, start = torch.tensor([row.prompt_ids + completion.ids]), len(row.prompt_ids)
            y = torch.tensor(completion.ids)
            logits = module.policy.causal_lm(ids, use_cache=False).logits[0, start - 1 : -1]
            with torch.no_grad():
                ref_logits = module.reference.policy.causal_lm(ids, use_cache=False).logits[0, start - 1 : -1]  # type: ignore[union-attr]
            n, label = torch.tensor([len(y)]), torch.tensor([completion.label])
            total = (
                total + oracles.bnf_eq4(logits, ref_logits, y, torch.zeros(len(y), dtype=torch.long), n, label).sum()
            )
            gather = [z.log_softmax(-1).gather(-1, y[:, None]) for z in (logits, ref_logits)]
            clipped += int((gather[0] < gather[1]).sum())
    assert 0 < clipped < sum(len(c.ids) for row in rows for c in row.completions), "both branches are to be tried"
    (total / 10).backward()  # type: ignore[attr-defined]
    for name, parameter in module.policy.trainable().items():
        assert parameter.grad is not None
        scale = parameter.grad.abs().max()
        torch.testing.assert_close(ours[name], parameter.grad, rtol=1e-9, atol=1e-10 * scale.item())


@pytest.mark.parametrize("loss", [BNF(), BNF("step_min"), SFT(), SFT("token_mean"), NLLPLL(), DPO()])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_splitting_or_reordering_a_step_changes_nothing(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, loss: Loss, dtype: torch.dtype
) -> None:
    rows, _ = load_rows(write_pairs(rows=9), tokenizer)
    module = full_module(tiny_folder, loss, dtype)
    whole = gradients(module, [rows], loss.labels)
    splits = [
        [rows[:4], rows[4:]],
        [rows[:1], rows[1:2], rows[2:4], rows[4:5], rows[5:7], rows[7:8], rows[8:]],
        [rows[::-1]],
        [[rows[3], rows[8]], [], [rows[i] for i in (5, 0, 7, 1, 2, 6, 4)]],
    ]
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    for split in splits:
        parts = gradients(module, split, loss.labels)
        norm = math.sqrt(sum(float(g.double().square().sum()) for g in whole.values()))
        error = math.sqrt(sum(float((parts[name] - g).double().square().sum()) for name, g in whole.items()))
        assert error <= tolerance * norm


def test_weight_is_one_at_step_0_for_the_same_forward_and_within_tolerance_for_others(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    rows, _ = load_rows(write_pairs(), tokenizer)
    module = PreferenceModule(FullPolicy(tiny_folder), BNF())
    module.configure_model()
    context = StepCounts(rows, (1, -1)).context(range(len(rows)))
    assert module.evaluate(padded(rows), context).metrics["bnf/weight"].eq(1).all()
    assert module.reference is not None
    together = module.reference(padded(rows))
    alone = torch.cat([module.reference(padded([row])) for row in rows])
    assert (together - alone).abs().quantile(0.99) <= 1e-4


@pytest.mark.parametrize("loss", [BNF(), DPO()])
def test_fused_and_plain_way_give_the_same_objective(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write, loss: Loss
) -> None:
    """The objective that is differentiated and the values that are logged must not drift apart."""
    rows, _ = load_rows(write_pairs(), tokenizer)
    result = full_module(tiny_folder, loss).evaluate(padded(rows), StepCounts(rows, (1, -1)).context(range(len(rows))))
    torch.testing.assert_close(result.objective, result.value.sum())


def test_freed_memory_is_kept_while_it_trains(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[bool] = []
    monkeypatch.setattr("lightning_bnf.module.keep_freed_memory", kept.append)
    train(tmp_path, PreferenceModule(FullPolicy(tiny_folder), BNF()), PreferenceData(write_pairs()), max_steps=1)
    assert kept == [True, False]


@pytest.mark.parametrize("make", [FullPolicy, LoRAPolicy])
def test_two_runs_with_one_seed_are_bit_equal(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: type[FullPolicy] | type[LoRAPolicy]
) -> None:
    path = write_pairs(rows=10)

    def run() -> dict[str, Tensor]:
        torch.manual_seed(5)
        module = PreferenceModule(make(tiny_folder), BNF(), optimization=FAST)
        train(tmp_path, module, PreferenceData(train=path, examples_per_step=4, max_tokens=300))
        return module.policy.state_dict()

    first, second = run(), run()
    assert first.keys() == second.keys()
    assert first
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_micro_batch_budget_changes_memory_not_the_result(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    path, ends = write_pairs(rows=8), []
    for max_tokens in (10_000, 120):
        module = PreferenceModule(FullPolicy(tiny_folder), DPO(), optimization=FAST)
        train(tmp_path, module, PreferenceData(train=path, examples_per_step=8, max_tokens=max_tokens), max_epochs=1)
        ends.append(module.policy.state_dict())
    for name, value in ends[0].items():
        torch.testing.assert_close(value, ends[1][name], rtol=1e-4, atol=1e-5)


def test_training_prefers_chosen_completions(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    module = PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=FAST)
    data = PreferenceData(train=write_pairs(), validation=write_pairs("val.jsonl"), examples_per_step=5)
    trainer = train(tmp_path, module, data, max_epochs=15)
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert metrics["val/rewards/accuracies"] == 1.0
    assert metrics["val/rewards/chosen"] > 1
    assert metrics["val/bnf/weight"] < 1
    assert math.isfinite(metrics["train/grad_norm"])


def test_a_loss_without_need_of_a_reference_has_none(tiny_folder: str) -> None:
    module = PreferenceModule(FullPolicy(tiny_folder), SFT())
    module.configure_model()
    assert module.reference is None


@pytest.mark.parametrize(
    ("reference", "policy", "message"),
    [
        ("none", LoRAPolicy, "reference must be auto, adapter_off, copy or cache with a loss that needs one, got none"),
        ("adapter_off", FullPolicy, "reference must be auto, copy, cache or none with FullPolicy, got adapter_off"),
    ],
)
def test_contradicting_references_are_refused_before_loading(
    reference: Any, policy: type[FullPolicy] | type[LoRAPolicy], message: str
) -> None:
    with pytest.raises(PolicyError, match=message):
        PreferenceModule(policy("no/such-model"), BNF(), reference)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches must be 1, .*got 2"),
        ({"gradient_clip_val": 1.0}, "gradient_clip_val must be null.* got 1.0"),
    ],
)
def test_lightnings_own_accumulation_and_clipping_are_refused(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tmp_path, PreferenceModule(FullPolicy(tiny_folder), SFT()), PreferenceData(write_pairs()), **option)


@pytest.mark.parametrize("label", ["true", "false"])
def test_unpaired_rows_of_one_label_train(tmp_path: Path, tiny_folder: str, label: str) -> None:
    path = tmp_path / "unpaired.jsonl"
    path.write_text(f'{{"prompt": "a", "completion": "b", "label": {label}}}\n')
    trainer = train(tmp_path, PreferenceModule(FullPolicy(tiny_folder), BNF()), PreferenceData(str(path)))
    there, absent = ("chosen", "rejected") if label == "true" else ("rejected", "chosen")
    assert f"train/logps/{there}" in trainer.callback_metrics
    assert f"train/logps/{absent}" not in trainer.callback_metrics


def test_resuming_in_the_middle_of_an_epoch_equals_not_stopping(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    path = write_pairs(rows=12)

    def module() -> PreferenceModule:
        # constant: the schedule must not depend on where the first part was told to stop
        optimization = Optimization(learning_rate=1e-2, schedule="constant", warmup_ratio=0.0)
        return PreferenceModule(LoRAPolicy(tiny_folder), BNF(), optimization=optimization)

    def data() -> PreferenceData:
        return PreferenceData(train=path, examples_per_step=2)

    whole, first, second = module(), module(), module()
    torch.manual_seed(1)  # of the adapters' start
    train(tmp_path, whole, data(), max_steps=10, max_epochs=-1)
    torch.manual_seed(1)
    trainer = train(tmp_path, first, data(), max_steps=4, max_epochs=-1)
    trainer.save_checkpoint(tmp_path / "at4.ckpt")
    resumed = Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        max_steps=10,
        max_epochs=-1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        use_distributed_sampler=False,
    )
    resumed.fit(second, data(), ckpt_path=str(tmp_path / "at4.ckpt"), weights_only=True)
    assert resumed.global_step == 10
    for name, value in whole.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name
    held = torch.load(tmp_path / "at4.ckpt", weights_only=True)["state_dict"]
    assert set(held) == {f"policy.{name}" for name in whole.policy.trainable()}


def test_a_checkpoint_of_another_policy_is_refused(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    path = write_pairs()
    trainer = train(tmp_path, PreferenceModule(LoRAPolicy(tiny_folder), SFT()), PreferenceData(path), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "lora.ckpt")
    other = PreferenceModule(FullPolicy(tiny_folder), SFT())
    with pytest.raises(CheckpointError, match="the checkpoint must have the tensors that this policy trains"):
        Trainer(accelerator="cpu", default_root_dir=tmp_path, logger=False, enable_checkpointing=False).fit(
            other, PreferenceData(path), ckpt_path=str(tmp_path / "lora.ckpt"), weights_only=True
        )


@pytest.mark.parametrize("make", [FullPolicy, lambda folder: LoRAPolicy(folder, dropout=0.5)], ids=["full", "lora"])
def test_a_policy_that_is_loaded_and_asked_before_trains_as_any_other(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, make: Any
) -> None:
    ends, path = [], write_pairs()
    for before in (False, True):
        torch.manual_seed(1)
        policy = make(tiny_folder)
        if before:
            policy.load()
            policy.eval()
        module = PreferenceModule(policy, DPO(), optimization=FAST)
        train(tmp_path, module, PreferenceData(path, examples_per_step=5))
        assert module.reference is not None
        ends.append(policy.state_dict())
    assert ends[0]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


def test_a_policy_that_a_run_has_trained_begins_no_other(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """It is evaluated still, under other losses too, by the reference that it began at; and its own module goes on."""
    data, policy = PreferenceData(write_pairs(), write_pairs()), LoRAPolicy(tiny_folder)
    module = PreferenceModule(policy, SFT(), optimization=FAST)
    trainer = train(tmp_path, module, data, max_steps=1, max_epochs=-1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    words = r"no run has trained, got a LoRAPolicy .* a new LoRAPolicy\(\.\.\.\) to .* policy/ folder as its adapter "
    with pytest.raises(PolicyError, match=words):
        train(tmp_path, PreferenceModule(policy, DPO()), data, max_steps=1, max_epochs=-1)
    assert trainer.validate(PreferenceModule(policy, DPO()), data)[0]["val/rewards/margins"] != 0
    goes_on = PreferenceModule(policy, SFT(), optimization=FAST)
    trainer = train(tmp_path, goes_on, data, tmp_path / "last.ckpt", max_steps=2, max_epochs=-1)
    assert trainer.global_step == 2, "a checkpoint's weights take the place of its own"
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        train(tmp_path, module, data, max_steps=1, max_epochs=-1)
    ours = [
        str(one.message) for one in told if "this module" in str(one.message) or "policy and ref" in str(one.message)
    ]
    assert len(ours) == 1
    assert ours[0].startswith("this module was trained by a fit before: it goes on from there with a new optimizer")


@pytest.mark.parametrize("reference", ["copy", "cache"])
def test_what_all_weights_were_before_a_run_is_no_later_modules_reference(
    tmp_path: Path, tiny_folder: str, write_pairs: Write, reference: Any
) -> None:
    policy, data = FullPolicy(tiny_folder), PreferenceData(write_pairs(), write_pairs())
    cache = str(tmp_path / "cache")
    module = PreferenceModule(policy, DPO(), reference, FAST, reference_cache=cache)
    trainer = train(tmp_path, module, data, max_steps=1, max_epochs=-1)
    assert trainer.validate(module, data)[0]["val/rewards/margins"] != 0, "its own has it"
    with pytest.raises(PolicyError, match=f"no run has trained with reference {reference}, got a FullPolicy"):
        trainer.validate(PreferenceModule(policy, DPO(), reference, reference_cache=cache), data)
    with pytest.raises(PolicyError, match="that run's policy/ folder as its source to go on"):
        train(tmp_path, PreferenceModule(policy, SFT()), data, max_steps=1)
    trainer.validate(PreferenceModule(policy, SFT()), data)


def test_a_policy_with_a_checkpoints_weights_begins_no_run(
    tmp_path: Path, tiny_folder: str, write_pairs: Write
) -> None:
    def module(policy: LoRAPolicy) -> PreferenceModule:
        return PreferenceModule(policy, SFT(), optimization=FAST)

    data, policy = PreferenceData(write_pairs(), write_pairs()), LoRAPolicy(tiny_folder)
    trainer = train(tmp_path, module(LoRAPolicy(tiny_folder)), data, max_steps=1, max_epochs=-1)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer.validate(module(policy), data, ckpt_path=str(tmp_path / "last.ckpt"), weights_only=True)
    with pytest.raises(PolicyError, match="policy must be one that no run has trained"):
        train(tmp_path, module(policy), data, max_steps=1)


def test_the_fast_path_trains_as_the_plain_one_does(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """20 steps: cached reference, prompts once for both answers and gradients made by tile, against full logits."""
    path, ends = write_pairs(rows=12), []
    for kind, layout, reference in ((LoRAPolicy, "auto", "cache"), (PlainLoRAPolicy, "padded", "adapter_off")):
        torch.manual_seed(1)
        optimization = Optimization(learning_rate=1e-2)
        module = PreferenceModule(
            kind(tiny_folder), BNF(), reference, optimization, reference_cache=str(tmp_path / "cache")
        )
        data = PreferenceData(train=path, validation=path, examples_per_step=4, layout=layout)
        trainer = train(tmp_path, module, data, max_steps=20, max_epochs=-1, limit_val_batches=2, val_check_interval=1)
        ends.append({name: float(value) for name, value in trainer.callback_metrics.items()})
    fast, plain = ends
    assert set(fast) == set(plain)
    for name in fast:
        assert fast[name] == pytest.approx(plain[name], abs=1e-4), name


def test_a_lora_checkpoint_is_the_adapter_and_its_moments(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    """float32 weights and AdamW's two moments, and at most a fifth more: nothing of the frozen base."""
    module = PreferenceModule(LoRAPolicy(tiny_folder, r=64), BNF(), optimization=FAST)
    trainer = train(tmp_path, module, PreferenceData(write_pairs()), max_steps=2)
    trainer.save_checkpoint(tmp_path / "step=2.ckpt")
    numbers = sum(p.numel() for p in module.policy.trainable().values())
    size = (tmp_path / "step=2.ckpt").stat().st_size
    assert 3 * 4 * numbers < size <= 1.2 * 3 * 4 * numbers
