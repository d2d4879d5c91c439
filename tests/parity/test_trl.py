"""One training step of TRL's own trainers against ours: same tokens, same weights, losses and gradients to 1e-5.

Where the two differ on purpose (lightning_bnf/losses/*.py say why), the difference itself is asserted.
"""

import os
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

import pytest
import torch
import trl
from datasets import Dataset
from lightning.pytorch import Trainer as LightningTrainer
from support.models import PAIRS, tiny_llama_model
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_bnf.batch import Step
from lightning_bnf.datamodules.reading.options import DataOptions, Rendering
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.steps.loader import StepCounts
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses import (
    AOT,
    BCO,
    CPO,
    DPO,
    EXO,
    IPO,
    KTO,
    LDDPO,
    NCA,
    ORPO,
    SFT,
    SPPO,
    AOTUnpaired,
    APODown,
    APOZero,
    DiscoPOP,
    Loss,
    RobustDPO,
    RSOHinge,
    SigmoidNorm,
    SimPO,
    Sum,
    Term,
)
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy

pytestmark = pytest.mark.slow

assert trl.__version__.startswith("1.16."), "the differences below are those of TRL 1.16"

AS_TEXT = DataOptions(rendering=Rendering(strings="text"))  # TRL's standard format
ROWS = [{"prompt": prompt, "chosen": f" {chosen}", "rejected": f" {rejected}"} for prompt, chosen, rejected in PAIRS]


def models(vocabulary: int) -> tuple[Any, Any]:
    """Policy and reference: the reference's weights, and the same with noise."""
    policy, reference = tiny_llama_model(vocabulary), tiny_llama_model(vocabulary)
    g = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=g)
    return policy, reference


def settings(folder: Any, **more: Any) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": 100,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "max_length": 512,
    } | more


class Taken:
    """What one training step of a TRL trainer was made of: its loss, its gradients, its batch."""

    def __init__(self, trainer: Any):
        self.batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.train()
        trainer.model.zero_grad()
        self.loss = trainer.compute_loss(trainer.model, dict(self.batch))
        self.loss.backward()
        self.grads = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}


def rows_of(ids: Tensor, completion: Tensor, attention: Tensor, labels: list[int]) -> list[list[TokenizedCompletion]]:
    """Each sequence as (prompt ids, completion): what a TRL batch holds, without its padding."""
    found: list[Any] = []
    for sequence, mask, real, label in zip(ids, completion, attention, labels):
        where = (mask.bool() & real.bool()).nonzero().squeeze(-1)
        prompt = sequence[: where[0]][real[: where[0]].bool()].tolist()
        answer = sequence[where].tolist()
        found.append((prompt, TokenizedCompletion(answer, [True] * len(answer), label)))
    return found


def as_pairs(chosen: list[Any], rejected: list[Any]) -> list[TokenizedRow]:
    return [
        TokenizedRow(str(i), str(i), "paired", prompt, (w, lower))
        for i, ((prompt, w), (same, lower)) in enumerate(zip(chosen, rejected))
        if prompt == same
    ]


def ours(
    loss: Loss, folder: str, weights: Any, rows: list[TokenizedRow], others: list[TokenizedRow] | None = None
) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of our module for one step over these rows."""
    module = PreferenceModule(FullPolicy(folder), loss)
    module.configure_model()
    module.policy.loaded.load_state_dict(weights.state_dict())
    module.trainer = LightningTrainer(accelerator="cpu", logger=False)
    batch = PADDED.batch(rows, loss.labels)
    context = StepCounts(rows, loss.labels).context(range(len(rows)))
    step = Step((batch,), context, (PADDED.batch(others, (1, -1)),) if others else ())
    (context,) = module.contexts(step)
    result = module.evaluate(batch, context)
    count = loss.value_count(step.context)
    (result.objective / count).backward()
    grads = {name.removeprefix("model."): p.grad for name, p in module.policy.named_parameters() if p.grad is not None}
    return result.value.sum().item() / count, grads


def assert_equal(ours: tuple[float, dict[str, Tensor]], theirs: Taken, factor: float = 1.0) -> None:
    """Loss and gradients to 1e-5 relative; `factor`: how many of ours theirs is."""
    value, grads = ours
    assert theirs.loss.item() == pytest.approx(factor * value, rel=1e-5)
    assert set(grads) == set(theirs.grads)
    whole = torch.cat([grad.flatten() for grad in theirs.grads.values()])
    mine = torch.cat([factor * grads[name].flatten() for name in theirs.grads])
    assert whole.norm() > 0
    assert (whole - mine).norm() <= 1e-5 * whole.norm()


def dpo_step(tmp_path: Any, tokenizer: PreTrainedTokenizerBase, loss_type: str, **more: Any) -> tuple[Taken, Any]:
    from trl import DPOConfig, DPOTrainer

    policy, reference = models(len(tokenizer))
    trainer = DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(**settings(tmp_path, loss_type=[loss_type], **more)),
        train_dataset=Dataset.from_list(ROWS),
        processing_class=tokenizer,
    )
    return Taken(trainer), policy


def dpo_rows(taken: Taken) -> list[TokenizedRow]:
    half = len(taken.batch["input_ids"]) // 2
    labels = [1] * half + [-1] * half
    found = rows_of(taken.batch["input_ids"], taken.batch["completion_mask"], taken.batch["attention_mask"], labels)
    rows = as_pairs(found[:half], found[half:])
    assert len(rows) == len(ROWS)
    return rows


DPO_CASES: dict[str, tuple[Loss, dict[str, Any], float]] = {
    "sigmoid": (DPO(beta=0.3), {"beta": 0.3}, 1.0),
    "hinge": (RSOHinge(gamma=0.3), {"beta": 0.3}, 1.0),
    "ipo": (IPO(tau=0.3), {"beta": 0.3}, 1.0),
    "exo_pair": (EXO(beta=0.3, label_smoothing=0.1), {"beta": 0.3, "label_smoothing": 0.1}, 1.0),
    "nca_pair": (NCA(beta=0.3), {"beta": 0.3}, 1.0),
    "robust": (RobustDPO(beta=0.3, label_smoothing=0.2), {"beta": 0.3, "label_smoothing": 0.2}, 1.0),
    "bco_pair": (BCO(beta=0.3), {"beta": 0.3}, 2.0),  # theirs: no shift, and summed over the pair
    "sppo_hard": (SPPO(beta=0.3), {"beta": 0.3}, 2.0),  # theirs lacks the factor 1/2
    "aot": (AOT(beta=0.3), {"beta": 0.3}, 1.0),
    "aot_unpaired": (AOTUnpaired(beta=0.3), {"beta": 0.3}, 1.0),
    "apo_zero": (APOZero(beta=0.3), {"beta": 0.3}, 1.0),
    "apo_down": (APODown(beta=0.3), {"beta": 0.3}, 1.0),
    "discopop": (DiscoPOP(beta=0.3, tau=0.05), {"beta": 0.3, "discopop_tau": 0.05}, 1.0),
    "sft": (SFT(reduction="token_mean"), {}, 1.0),
    "sigmoid_norm": (SigmoidNorm(beta=0.3), {"beta": 0.3}, 1.0),
}


@pytest.mark.parametrize("loss_type", DPO_CASES)
def test_dpo_trainer(tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, loss_type: str) -> None:
    loss, arguments, factor = DPO_CASES[loss_type]
    taken, policy = dpo_step(tmp_path, tokenizer, loss_type, **arguments)
    assert_equal(ours(loss, tiny_folder, policy, dpo_rows(taken)), taken, factor)


def test_ld_dpo(tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    taken, policy = dpo_step(tmp_path, tokenizer, "sigmoid", beta=0.3, ld_alpha=0.4)
    assert_equal(ours(LDDPO(beta=0.3, alpha=0.4), tiny_folder, policy, dpo_rows(taken)), taken)


def test_both_read_the_same_tokens_from_the_same_rows(tmp_path: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    import json

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    rows, _ = load_rows(str(path), tokenizer, AS_TEXT)
    taken, _ = dpo_step(tmp_path / "run", tokenizer, "sigmoid")
    mine = {(tuple(row.prompt_ids), *(tuple(c.ids) for c in row.completions)) for row in rows}
    theirs = {(tuple(row.prompt_ids), *(tuple(c.ids) for c in row.completions)) for row in dpo_rows(taken)}
    assert mine == theirs


@pytest.mark.parametrize("weights", [(1.0, 1.0), (1.5, 0.7)])
def test_kto_trainer(
    tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, weights: tuple[float, float]
) -> None:
    """Theirs takes as the partner the completion one row on within the batch; ours is given the same here."""
    from trl import KTOConfig, KTOTrainer

    policy, reference = models(len(tokenizer))
    rows = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for i, row in enumerate(ROWS)
        for side in (("chosen", "rejected") if i else ("rejected",))
    ]
    config = settings(tmp_path, beta=0.3, desirable_weight=weights[0], undesirable_weight=weights[1])
    trainer = KTOTrainer(
        model=policy,
        ref_model=reference,
        args=KTOConfig(**config),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    taken = Taken(trainer)
    labels = [1 if label else -1 for label in taken.batch["label"]]

    def single(prefix: str) -> list[TokenizedRow]:
        parts = (taken.batch[prefix + name] for name in ("input_ids", "completion_mask", "attention_mask"))
        found = rows_of(*parts, labels)  # type: ignore[misc]
        return [TokenizedRow(str(i), str(i), "unpaired", prompt, (one,)) for i, (prompt, one) in enumerate(found)]

    loss = KTO(beta=0.3, desirable_weight=weights[0], undesirable_weight=weights[1])
    assert_equal(ours(loss, tiny_folder, policy, single(""), single("KL_")), taken)


def legacy_step(make: Callable[..., Any], policy: Any, tokenizer: PreTrainedTokenizerBase, args: Any) -> Taken:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Taken(make(model=policy, args=args, train_dataset=Dataset.from_list(ROWS), processing_class=tokenizer))


def legacy_rows(taken: Taken) -> list[TokenizedRow]:
    sides = []
    for side, label in (("chosen", 1), ("rejected", -1)):
        ids, labels, real = (taken.batch[f"{side}_{name}"] for name in ("input_ids", "labels", "attention_mask"))
        sides.append(rows_of(ids, labels != -100, real, [label] * len(ids)))
    rows = as_pairs(*sides)
    assert len(rows) == len(ROWS)
    return rows


def test_simpo(tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase) -> None:
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    policy, _ = models(len(tokenizer))
    config = CPOConfig(**settings(tmp_path, loss_type="simpo", beta=2.0, cpo_alpha=0.0, simpo_gamma=0.5))
    taken = legacy_step(CPOTrainer, policy, tokenizer, config)
    assert_equal(ours(SimPO(beta=2.0, gamma_beta_ratio=0.25), tiny_folder, policy, legacy_rows(taken)), taken)


def test_cpo_differs_by_its_nll_over_the_tokens_of_the_batch(
    tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Theirs: the mean over the batch's chosen tokens, prompts included; ours: each completion's own mean."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    policy, _ = models(len(tokenizer))
    plain = CPOConfig(**settings(tmp_path, loss_type="sigmoid", beta=0.3, cpo_alpha=0.0))
    taken = legacy_step(CPOTrainer, policy, tokenizer, plain)
    assert_equal(ours(CPO(beta=0.3, alpha=0.0), tiny_folder, policy, legacy_rows(taken)), taken)
    config = CPOConfig(**settings(tmp_path, loss_type="sigmoid", beta=0.3, cpo_alpha=0.8))
    taken = legacy_step(CPOTrainer, models(len(tokenizer))[0], tokenizer, config)
    rows = legacy_rows(taken)
    by_token = Sum([Term(CPO(beta=0.3, alpha=0.0)), Term(SFT(reduction="token_mean"), 0.8)])
    assert_equal(ours(by_token, tiny_folder, policy, rows), taken)
    own, _ = ours(CPO(beta=0.3, alpha=0.8), tiny_folder, policy, rows)
    assert abs(own - taken.loss.item()) > 1e-3 * own


def test_orpo_differs_by_its_nll_over_prompt_and_completion(
    tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Theirs: the mean over all tokens of the batch's chosen sequences, prompts included."""
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    policy, _ = models(len(tokenizer))
    taken = legacy_step(ORPOTrainer, policy, tokenizer, ORPOConfig(**settings(tmp_path, beta=0.4)))
    rows = legacy_rows(taken)
    # The chosen sequences once more, as demonstrations of everything but their first token.
    whole = [
        TokenizedRow(
            row.id,
            row.source,
            "demonstration",
            row.prompt_ids[:1],
            (
                TokenizedCompletion(
                    row.prompt_ids[1:] + row.completions[0].ids,
                    [True] * (len(row.prompt_ids) - 1 + len(row.completions[0].ids)),
                    1,
                ),
            ),
        )
        for row in rows
    ]
    odds, odds_grads = ours(ORPO(odds_weight=0.4), tiny_folder, policy, rows)
    mean, mean_grads = ours(SFT(reduction="mean"), tiny_folder, policy, rows)
    every, every_grads = ours(SFT(reduction="token_mean"), tiny_folder, policy, whole)
    grads = {name: odds_grads[name] - mean_grads[name] + every_grads[name] for name in odds_grads}
    assert_equal((odds - mean + every, grads), taken)
    assert abs(odds - taken.loss.item()) > 1e-3 * odds


def test_twenty_steps_of_dpo_have_trls_losses(
    tmp_path: Any, tiny_folder: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """The same rows in the same order, AdamW, constant learning rate, clipping at 1: step by step to 1e-4."""
    import json

    from lightning.pytorch import Callback
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    from lightning_bnf.datamodules.preference import PreferenceData
    from lightning_bnf.datamodules.steps.plan import StepPlan
    from lightning_bnf.training.optimization import Optimization

    rows = [row | {"prompt": f"{row['prompt']} ({i})"} for i, row in enumerate(ROWS * 12)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    mine: list[float] = []
    theirs: list[float] = []

    class Losses(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            mine.append(float(trainer.callback_metrics["train/loss"]))

    optimization = Optimization(learning_rate=1e-3, schedule="constant", warmup_ratio=0.0)
    trainer = LightningTrainer(
        accelerator="cpu",
        max_steps=20,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        use_distributed_sampler=False,
        default_root_dir=tmp_path,
        callbacks=[Losses()],
    )
    data = PreferenceData(str(path), examples_per_step=3, max_tokens=200, layout="shared_prompt", options=AS_TEXT)
    trainer.fit(PreferenceModule(FullPolicy(tiny_folder), DPO(beta=0.3), optimization=optimization), data)

    plan = StepPlan([(1,)] * len(rows), 3, 1, seed=1)
    order = [i for step in range(20) for i in plan.rows(0, step)]

    class TheirLosses(TrainerCallback):
        def on_log(self, *_: Any, logs: dict[str, float] | None = None, **__: Any) -> None:
            if logs and "loss" in logs:
                theirs.append(logs["loss"])

    run = settings(tmp_path / "trl", beta=0.3, loss_type=["sigmoid"], learning_rate=1e-3, max_steps=20)
    run |= {"per_device_train_batch_size": 3, "logging_strategy": "steps", "logging_steps": 1}
    run |= {"lr_scheduler_type": "constant", "train_sampling_strategy": "sequential", "save_strategy": "no"}
    DPOTrainer(
        model=tiny_llama_model(len(tokenizer)),
        ref_model=tiny_llama_model(len(tokenizer)),
        args=DPOConfig(**run),
        train_dataset=Dataset.from_list([rows[i] for i in order]),
        processing_class=tokenizer,
        callbacks=[TheirLosses()],
    ).train()
    assert len(mine) == len(theirs) == 20
    assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-4)
    assert min(mine) < 0.6 < mine[0], "it is to have learned something"
