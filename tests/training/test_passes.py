"""The routers' loss of a whole step through the module, against a slow one of single completions; KTO's and AOT's
passes are tested with their losses."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from support.models import tiny_mixture
from support.training import FAST, Write, perturbed, train
from torch import Tensor
from transformers import MixtralConfig, PreTrainedTokenizerBase, Qwen2MoeConfig

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import LAYOUTS, PADDED, Layout
from lightning_bnf.datamodules.steps.loader import StepLoader
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses import SFT, SimPO
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.policies.routing import Router
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.checkpoints import CheckpointError
from lightning_bnf.training.passes import routing_of_step, scored_steps, trained_router

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("steps", "validations", "asked"),
    [
        (7, 1.0, {"train": 7, "validation": None}),
        (7, 3, {"train": 7, "validation": 3}),
        (7, 0.5, {"train": 7, "validation": None}),
        (7, 0, {"train": 7}),
        (7, 0.0, {"train": 7}),
        (math.inf, 1.0, {"train": None, "validation": None}),
        (0, 1.0, {"train": None, "validation": None}),
    ],
)
def test_a_fit_asks_its_reference_of_the_steps_that_it_takes(
    steps: float, validations: float, asked: dict[str, int | None]
) -> None:
    trainer = cast(Trainer, SimpleNamespace(estimated_stepping_batches=steps, limit_val_batches=validations))
    assert scored_steps(trainer) == asked


WEIGHT = 3.0  # so that it outweighs the loss
LOSSES = {"mixtral": SFT(), "qwen2_moe": SimPO()}  # of tokens, and of pairs


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerBase) -> dict[str, str]:
    """Folders of tiny mixtures; one's config weights the loss by 0."""
    folders = {}
    for name, kind in {"mixtral": MixtralConfig, "qwen2_moe": Qwen2MoeConfig, "light": MixtralConfig}.items():
        weight = 0.0 if name == "light" else WEIGHT
        folders[name] = str(tmp_path_factory.mktemp(name))
        tiny_mixture(kind, len(tokenizer), router_aux_loss_coef=weight).save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


def slow(module: PreferenceModule, rows: list[TokenizedRow]) -> tuple[float, Tensor]:
    """L of all completions' tokens, each completion alone with its own prompt, and the gradient of loss + WEIGHT * L
    in one vector: softmax, the largest two, and means, as the formula has them."""
    step = StepLoader(rows, _plan(module, rows, PADDED, 10_000), PADDED, module.loss.labels).step(0, 0)
    probabilities, chosen = [], []
    module.zero_grad()
    for row in rows:
        for completion in [one for one in row.completions if one.label in module.loss.labels]:
            ids = torch.tensor([[*row.prompt_ids, *completion.ids]])
            for layer in module.policy.body(input_ids=ids, output_router_logits=True, use_cache=False).router_logits:
                probability = layer.softmax(-1)
                largest = probability.sort(-1, descending=True).indices[:, :2]
                probabilities.append(probability)
                chosen.append(torch.nn.functional.one_hot(largest, 4).sum(1).double())
    balance = 4 * (torch.cat(chosen).mean(0) * torch.cat(probabilities).mean(0)).sum()
    value = module.evaluate(step.micro_batches[0], step.context).objective / module.loss.value_count(step.context)
    (value + WEIGHT * balance).backward()
    return balance.item(), _gradient(module)


def _plan(module: PreferenceModule, rows: list[TokenizedRow], layout: Layout, max_tokens: int) -> StepPlan:
    lengths = layout.lengths_of(rows, module.loss.labels)
    return StepPlan(lengths, len(rows), max_tokens, packed=layout.packed)


def _gradient(module: PreferenceModule) -> Tensor:
    trained = module.policy.trainable().values()
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in trained])


def as_trained(module: PreferenceModule, rows: list[TokenizedRow], layout: Layout, budget: int) -> tuple[float, Tensor]:
    """The same of one step as the module takes it."""
    step = StepLoader(rows, _plan(module, rows, layout, budget), layout, module.loss.labels).step(0, 0)
    assert (len(step.micro_batches) > 1) == (budget < 1000)
    module.zero_grad()
    module.means.reset()
    module.means.add("router_loss", 0.0, 1)
    count, chosen = module.loss.value_count(step.context), routing_of_step(module.policy, step.micro_batches)
    for batch, context in zip(step.micro_batches, module.contexts(step)):
        module.objective(module.evaluate(batch, context), chosen, count).backward()
    return module.means.compute()["router_loss"], _gradient(module)


@pytest.mark.parametrize("checkpointing", [False, "offloaded"])
@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe"])
def test_it_is_that_of_the_whole_step_whatever_the_micro_batches_and_the_layout(
    mixtures: dict[str, str], tokenizer: PreTrainedTokenizerBase, write_pairs: Write, name: str, checkpointing: Any
) -> None:
    """To 1e-6: some of the models' parts compute in float32, whatever the weights are."""
    rows, _ = load_rows(write_pairs(rows=5), tokenizer)
    policy = FullPolicy(mixtures[name], gradient_checkpointing=checkpointing)
    module = PreferenceModule(policy, LOSSES[name], router_loss=True)
    module.configure_model()
    perturbed(module.to(torch.float64))
    policy.causal_lm.set_experts_implementation("eager")  # torch's grouped products know no float64
    module.trainer = Trainer(accelerator="cpu", logger=False)
    value, gradient = slow(module, rows)
    for layout, budget in (("padded", 10_000), ("padded", 120), ("packed", 120), ("shared_prompt", 90)):
        found, parts = as_trained(module, rows, LAYOUTS[layout], budget)
        assert found == pytest.approx(value, rel=1e-6), (layout, budget)
        assert (parts - gradient).norm() < 1e-6 * gradient.norm(), (layout, budget)


def test_a_fit_logs_it_and_its_checkpoint_is_not_gone_on_with_without(
    tmp_path: Path, mixtures: dict[str, str], write_pairs: Write
) -> None:
    """Adapters: their routers stay as they are, and what they are given is trained. Even routing would be 2."""
    logged = []
    data = {"train": write_pairs(), "examples_per_step": 5, "max_tokens": 100}

    def module(router_loss: bool) -> PreferenceModule:
        return PreferenceModule(LoRAPolicy(mixtures["mixtral"], r=4), SFT(), "none", FAST, router_loss=router_loss)

    class Logged(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            logged.append(float(trainer.callback_metrics["train/router_loss"]))

    trainer = train(tmp_path, module(True), PreferenceData(**data), max_steps=8, max_epochs=-1, callbacks=[Logged()])
    assert logged[0] > logged[-1] > 1.9
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.router_loss is False and was True"):
        train(tmp_path, module(False), PreferenceData(**data), tmp_path / "last.ckpt", max_steps=9, max_epochs=-1)


def test_it_is_that_of_a_policy_that_is_loaded_before_too(mixtures: dict[str, str]) -> None:
    policy = LoRAPolicy(mixtures["mixtral"], r=4)
    policy.load()
    PreferenceModule(policy, SFT(), router_loss=True).configure_model()
    assert policy.router == Router(2, WEIGHT)


def test_models_that_have_none_are_refused(mixtures: dict[str, str], tiny_folder: str) -> None:
    compiled = FullPolicy(mixtures["mixtral"])
    for policy, words in (
        (FullPolicy(tiny_folder), "a model without Switch"),
        (FullPolicy(mixtures["light"]), "whose config weights it by 0"),
        (compiled, "compiled must be false with router_loss"),
    ):
        policy.load()
        compiled.compiled = True
        with pytest.raises(Refusal, match=words):
            trained_router(policy)
