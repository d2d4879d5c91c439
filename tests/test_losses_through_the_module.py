"""Every loss through module, loader and a tiny model: micro-batches, layouts, passes over the step, state, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from support import catalog
from support.training import FAST, Write, full_module, train
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PACKED, PADDED, SHARED_PROMPT, Layout, layout_for
from lightning_bnf.datamodules.steps.loader import Part, StepLoader
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.derived import Mismatched
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses import BCO, KTO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.training.checkpoints import CheckpointError

pytestmark = pytest.mark.slow


def step_gradient(
    module: PreferenceModule, rows: list[TokenizedRow], layout: Layout, max_tokens: int
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradient of one step over all rows, as the module takes it."""
    labels = module.loss.labels
    others = Mismatched(rows, 200)
    plan, partners_plan = (
        StepPlan(
            *(layout.lengths_of(some, labels), len(rows), max_tokens),
            seed=3,
            packed=layout.packed,
            common=layout.common,
        )
        for some in (rows, others)
    )
    partners = Part(others, partners_plan)
    step = StepLoader(rows, plan, layout, labels, mismatched=partners).step(0, 0)
    if max_tokens < 200:
        assert len(step.micro_batches) > 1
    count, total = module.loss.value_count(step.context), 0.0
    module.zero_grad()
    for batch, context in zip(step.micro_batches, module.contexts(step)):
        result = module.evaluate(batch, context)
        (result.objective / count).backward()
        total += result.value.sum().item() / count
    return total, {name: p.grad.clone() for name, p in module.policy.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("name", catalog.FILES)
def test_micro_batches_and_layouts_change_nothing(
    name: str, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_for: Write
) -> None:
    """In float64, whole passes over the step included: one micro-batch, many, prompts shared, packed, and what they
    begin with shared.

    To 1e-6: the model's own RMSNorm and rotary embedding compute in float32 whatever the weights' dtype.
    """
    loss = catalog.build(name)
    rows, _ = load_rows(write_for(loss, rows=6), tokenizer)
    module = full_module(tiny_folder, loss)
    module.trainer = Trainer(accelerator="cpu", logger=False)
    value, whole = step_gradient(module, rows, PADDED, 10_000)
    norm = torch.cat([grad.flatten() for grad in whole.values()]).norm()
    assert norm > 0
    alike = layout_for("packed_shared", rows)
    assert alike.common > 20, "the system prompt"
    for layout, budget in ((PADDED, 150), (SHARED_PROMPT, 100), (PACKED, 150), (alike, 100)):
        again, parts = step_gradient(module, rows, layout, budget)
        assert again == pytest.approx(value, rel=1e-6)
        assert torch.cat([(parts[name] - grad).flatten() for name, grad in whole.items()]).norm() < 1e-6 * norm


def test_ktos_kl_is_that_of_single_mismatched_rows(
    tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    """Over the whole step, whatever its micro-batches: the mean of R(x_i, y_j), one sequence at a time."""
    rows, _ = load_rows(write_pairs(rows=5), tokenizer)
    module = full_module(tiny_folder, KTO())
    policy, ref = module.policy, module.reference.policy  # type: ignore[union-attr]
    policy.model, ref.model = ref.model, policy.model  # so that the mean is positive, and the clamp does nothing
    module.trainer = Trainer(accelerator="cpu", logger=False)
    ratios = []
    for row in Mismatched(rows, 200):
        for i in range(2):
            one = PADDED.batch([row], (1, -1))
            ratio = module.policy(one).token_logps - module.reference(one)  # type: ignore[misc]
            ratios.append(one.completions(ratio).sum()[i].item())
    kl = sum(ratios) / len(ratios)
    plan = StepPlan(PADDED.lengths_of(rows, (1, -1)), 5, 150)
    others = Mismatched(rows, 200)
    partners = Part(others, StepPlan(PADDED.lengths_of(others, (1, -1)), 5, 150))
    step = StepLoader(rows, plan, PADDED, mismatched=partners).step(0, 0)
    for context in module.contexts(step):
        assert context.statistics["kto/kl"].item() == pytest.approx(kl, rel=1e-6)
    assert kl > 0.1


@pytest.mark.parametrize("labels", ["mixed", "true", "false"])
@pytest.mark.parametrize("name", [n for n in catalog.FILES if not catalog.build(n).needs_pairs])
def test_unpaired_losses_train_on_unpaired_data(tmp_path: Path, tiny_folder: str, name: str, labels: str) -> None:
    loss = catalog.build(name)
    if loss.needs_groups:
        return
    path = tmp_path / "unpaired.jsonl"
    marked = {"mixed": ["true", "false", "true", "true", "false"], "true": ["true"] * 5, "false": ["false"] * 5}[labels]
    path.write_text(
        "".join(
            f'{{"prompt": "say {i}", "completion": "{i} {i}", "label": {label}, "baseline_mean_logps": -1.0}}\n'
            for i, label in enumerate(marked)
        )
    )
    module = PreferenceModule(LoRAPolicy(tiny_folder), loss, optimization=FAST)
    data = PreferenceData(str(path), examples_per_step=5)
    if (labels == "false" and -1 not in loss.labels) or (labels != "mixed" and loss.needs_both_labels):
        with pytest.raises(DataError, match=r"data\.train: labels must be "):
            train(tmp_path, module, data)
        return
    trainer = train(tmp_path, module, data)
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert trainer.callback_metrics["train/grad_norm"] > 0


def test_what_a_loss_carries_survives_a_checkpoint(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    path = write_pairs(rows=8)

    def module() -> PreferenceModule:
        return PreferenceModule(LoRAPolicy(tiny_folder), BCO(beta=1.0), optimization=FAST)

    torch.manual_seed(1)
    whole = module()
    train(tmp_path, whole, PreferenceData(path, examples_per_step=2), max_steps=6, max_epochs=-1)
    torch.manual_seed(1)
    first = train(tmp_path, module(), PreferenceData(path, examples_per_step=2), max_steps=3, max_epochs=-1)
    first.save_checkpoint(tmp_path / "at3.ckpt")
    held = torch.load(tmp_path / "at3.ckpt", weights_only=True)["loss_state"]
    assert held["bco/seen"] == 12.0  # 3 steps of 2 pairs
    second = module()
    resumed = Trainer(
        accelerator="cpu",
        max_steps=6,
        max_epochs=-1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=tmp_path,
    )
    resumed.fit(second, PreferenceData(path, examples_per_step=2), ckpt_path=str(tmp_path / "at3.ckpt"))
    assert second.state["bco/seen"] == whole.state["bco/seen"] == 24.0
    assert second.state["bco/shift"] != 0.0
    other = PreferenceModule(LoRAPolicy(tiny_folder), KTO())
    with pytest.raises(CheckpointError, match=r"model\.loss is KTO\(.*\) and was BCO\("):
        Trainer(
            accelerator="cpu", max_steps=6, logger=False, enable_checkpointing=False, default_root_dir=tmp_path
        ).fit(other, PreferenceData(path, examples_per_step=2), ckpt_path=str(tmp_path / "at3.ckpt"))


def test_entropy_is_logged_where_it_is_asked_for(tmp_path: Path, tiny_folder: str, write_pairs: Write) -> None:
    from lightning_bnf.losses import BNF

    logged: dict[bool, dict[str, Any]] = {}
    for asked in (True, False):
        module = PreferenceModule(LoRAPolicy(tiny_folder), BNF(), entropy=asked)
        data = PreferenceData(write_pairs(), validation=write_pairs("val.jsonl"), examples_per_step=5)
        logged[asked] = dict(train(tmp_path, module, data, max_epochs=1).callback_metrics)
    assert 0 < logged[True]["train/entropy"] < 11  # log 49,152 = 10.8
    assert {"val/entropy", "train/bnf/eq4", "val/bnf/eq4"} <= set(logged[True])
    assert not any("entropy" in name or "eq4" in name for name in logged[False])
    assert logged[True]["train/loss"] == logged[False]["train/loss"]


@pytest.mark.parametrize("name", [n for n in catalog.FILES if not catalog.build(n).needs_reference])
def test_a_loss_without_need_of_a_reference_never_causes_one(
    name: str, tiny_folder: str, write_for: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a reference was built")

    monkeypatch.setattr("lightning_bnf.policies.reference.providers.FrozenCopy.__init__", refuse)
    monkeypatch.setattr("lightning_bnf.policies.reference.providers.AdapterOff.__init__", refuse)
    loss = catalog.build(name)
    for policy in (FullPolicy(tiny_folder), LoRAPolicy(tiny_folder)):
        module = PreferenceModule(policy, loss)
        train(tmp_path, module, PreferenceData(write_for(loss)), max_epochs=1)
        assert module.reference is None
