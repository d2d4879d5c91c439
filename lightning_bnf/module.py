"""PreferenceModule: policy, reference, loss and optimizer under Lightning's Trainer. No formula lives here."""

import contextlib
import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from lightning_bnf.batch import MicroBatch, Step
from lightning_bnf.datamodules.contract import DataNeeds, ScoredData
from lightning_bnf.datamodules.steps.layout import PADDED, ToScore
from lightning_bnf.datamodules.steps.loader import PromptBatch, StepLoader
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.pass_rates import verified_prompts
from lightning_bnf.evaluation.verify import verify
from lightning_bnf.generation.sampling import Sampling, generate_with_lengths
from lightning_bnf.losses.base import Loss, StepContext
from lightning_bnf.losses.outputs import check_declared, checked_output
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.casts import KeptCasts, cast_layers
from lightning_bnf.policies.reference.build import build_reference, check_reference
from lightning_bnf.policies.reference.cached import CachedReference, untrained
from lightning_bnf.policies.reference.providers import AdapterOff, AsItIs, Reference, ReferenceKind
from lightning_bnf.policies.routing import Routing, balancing_loss, over_ranks
from lightning_bnf.policies.sharding import load_sharded
from lightning_bnf.runtime.distributed import several, whole
from lightning_bnf.runtime.memory import keep_freed_memory
from lightning_bnf.training.checks import GradientCheck, check_start, stop_not_finite, stop_not_finite_weights
from lightning_bnf.training.defaults import with_learning_rate
from lightning_bnf.training.fitting import PolicyFitting
from lightning_bnf.training.metrics import PREFERENCE_METRICS, Means, preference_metrics
from lightning_bnf.training.optimization import Optimization, OptimizerFactory, check_optimizer, scheduled
from lightning_bnf.training.passes import first_steps, logps_of_step, routing_of_step, scored_steps, trained_router
from lightning_bnf.training.resuming import Resuming
from lightning_bnf.training.strategies import forward_context, parallelism_of
from lightning_bnf.training.support import Combination, check_trainer, check_untrained

DEFAULT_OPTIMIZATION = Optimization()
DEFAULT_GENERATION = Sampling(temperature=0.0, max_new_tokens=256)


class Evaluated(NamedTuple):
    """A micro-batch under the loss: `objective` (scalar, differentiable) is the sum of `value`, one per example."""

    objective: Tensor
    value: Tensor
    metrics: dict[str, Tensor]
    token_logps: Tensor  # (N,) of the policy, detached
    routing: Routing | None = None


class PreferenceModule(LightningModule):
    """Trains a policy on completions with a loss, one dataloader item per optimizer step.

    A step's micro-batches are summed and divided by the step's number of examples, so the result depends neither on
    their size nor on the number of ranks.
    """

    def __init__(
        self,
        policy: Policy,
        loss: Loss,
        reference: ReferenceKind = "auto",
        optimization: Optimization = DEFAULT_OPTIMIZATION,
        optimizer: OptimizerFactory | None = None,
        generation: Sampling = DEFAULT_GENERATION,
        entropy: bool = False,
        reference_cache: str | None = None,
        resume_changed: bool = False,
        router_loss: bool = False,
    ):
        """
        Args:
            policy: The model to align, and how: all weights or adapters.
            loss: The loss, as a YAML file of `configs/loss/` or a class.
            reference: Where reference log-probabilities come from: `adapter_off` (the policy without its adapters),
                `copy` (a frozen copy of the starting model), `cache` (stored in a folder, made once and reused by every
                run and loss), `none`, or `auto` (adapters off where there are any, else a copy).
            optimization: Learning rate, schedule and clipping, for any optimizer.
            optimizer: A YAML file of `configs/optimizer/`, or any class of torch's form with its arguments but `lr`;
                null is torch's AdamW with the weight decay and betas of `optimization`.
            generation: How `predict` draws completions; rows with their own `max_new_tokens` keep to it.
            entropy: Whether to log the policy's entropy (nats a token), and with BNF the value of the paper's Eq. 4;
                costs one more pass over each tile of logits.
            reference_cache: Folder for `reference: cache`; null takes one below the user's cache folder, by the model.
            resume_changed: Whether to go on from a checkpoint though rows, seed, loss or base are others than in its
                run, so that its steps meant something else. What differs is printed.
            router_loss: Whether a mixture of experts is trained with its routers' load-balancing loss too, weighted by
                its config's `router_aux_loss_coef`, of all tokens of a step on all ranks; costs one more forward pass.
        """
        super().__init__()
        self.automatic_optimization = False
        self.strict_loading = False  # checkpoints hold trainable tensors only; on_load_checkpoint checks their names
        self.policy = policy
        self.loss = check_declared(loss)
        self.reference_kind = check_reference(reference, policy, loss.needs_reference)
        self.optimization = with_learning_rate(optimization, policy, loss)
        self.optimizer_factory = optimizer
        self.generation = generation
        self.entropy = entropy
        self.reference_cache = reference_cache
        self.router_loss = router_loss
        self.state = dict(loss.state)
        self.reference: Reference | None = None
        self._begun_trained: bool | None = None  # whether another run had trained the policy; None before it is loaded
        self.means = Means(["grad_norm", "router_loss", *PREFERENCE_METRICS, *loss.metric_names])
        self._resuming = Resuming(resume_changed)
        self._gradient_check = GradientCheck({})
        self._casts = KeptCasts()
        self._data: ScoredData | None = None

    def meet(self, data: ScoredData) -> DataNeeds:
        """Called by the data when they are set up, before any weights are loaded: see `datamodules.contract`."""
        self._data, policy, prompts = data, self.policy, self.generation.batch_size
        fitting = PolicyFitting(policy, self.optimization, self.optimizer_factory, partial(forward_context, self))
        return DataNeeds(policy.tokenizer, policy.end_ids, self.loss, prompts, fitting)

    # Building -------------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """A verifier that does not exist is refused before any weights are loaded; of a fit's its callbacks know."""
        split = {"validate": "validation", "test": "test", "predict": "test"}.get(stage)
        if split is not None and self._data is not None:
            verified_prompts(self._data.split(split))

    def configure_callbacks(self) -> list[Any]:
        """What ends with a run; refuses what manual optimization cannot take, before Lightning does and with what to
        set instead."""
        check_trainer(self.trainer)
        Combination.of(self.policy, self.reference_kind, self.trainer).check()
        strategy = self.trainer.strategy
        check_optimizer(self.optimization, self.optimizer_factory, strategy.root_device, parallelism_of(strategy))
        return [self._casts]

    def configure_model(self) -> None:
        if self._begun_trained is None:
            self._load()
        self._casts.keep(cast_layers(self.policy, self._trainer), self.policy.loaded.modules())

    def _load(self) -> None:
        if several():  # adapters begin alike on all ranks
            torch.manual_seed(self.trainer.strategy.broadcast(torch.initial_seed()))
        copied = None
        if self._trainer and parallelism_of(self.trainer.strategy) == "fsdp2":
            mesh, device = cast(Any, self.device_mesh)["data_parallel"], self.trainer.strategy.root_device
            mixed, kept = str(self.trainer.precision) == "bf16-mixed", self.reference_kind == "copy"
            copied = load_sharded(self.policy, mesh, mixed, device, kept)
        self.policy.load()
        self.policy.train()  # loaded before, it may have answered questions since
        run = (self.trainer.global_rank, str(self.trainer.precision)) if self._trainer else (0, "")
        self.reference = copied or build_reference(self.reference_kind, self.policy, self.reference_cache, *run)
        self.policy.router = trained_router(self.policy) if self.router_loss else None
        self._begun_trained = self.policy.trained

    def configure_optimizers(self) -> Any:
        steps = self.trainer.estimated_stepping_batches
        made = scheduled(self.policy, self.optimization, self.optimizer_factory, steps)
        return self._resuming.keeping(made, self.optimization, str(self.trainer.precision), steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        stop_not_finite_weights(self.global_step, self.policy.trainable())
        checkpoint["loss_state"] = dict(self.state)
        checkpoint |= self._resuming.written(self.policy, self.loss, self._data)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        trained = self._data if self.trainer.state.fn == "fit" else None
        run = (self.trainer.max_steps, self.trainer.global_rank, self.trainer.world_size)
        self._resuming.read(checkpoint, self.policy, self.loss, trained, *run)
        self.policy.trained = True
        carried = checkpoint.get("loss_state", {})
        if set(carried) != set(self.state):
            raise PolicyError(
                f"the checkpoint's loss carries {sorted(carried) or 'nothing'} from step to step and "
                f"{type(self.loss).__name__} {sorted(self.state) or 'nothing'}; use the loss that it was saved with"
            )
        self.state = dict(carried)

    # Evaluating a micro-batch ---------------------------------------------------------------------------------------

    def evaluate(self, batch: MicroBatch, context: StepContext) -> Evaluated:
        """Policy, reference and loss of a micro-batch, with all metrics."""
        reference = None if self.reference is None else batch.completions(self.reference(batch))
        structure = reference or batch.completions(torch.zeros(len(batch.target), device=batch.target.device))
        weigh = self.loss.weigher(structure, batch.examples, context)
        output = self.policy(batch, weigh, self.entropy)
        policy = batch.completions(output.token_logps, output.entropy)
        values = checked_output(self.loss, self.loss(policy, reference, batch.examples, context), batch.examples)
        objective = values.value.sum() if output.objective is None else output.objective
        metrics = preference_metrics(policy, reference, batch.examples, self.loss.implicit_reward_scale)
        metrics |= values.metrics
        return Evaluated(objective, values.value.detach(), metrics, output.token_logps.detach(), output.routing)

    @property
    def reference_tolerance(self) -> float:
        """Nats a token by which equal models may differ in this run's precision."""
        exact = self.policy.exact and str(self.trainer.precision).startswith(("32", "64"))
        return 1e-4 if exact else 0.15

    def contexts(self, step: Step) -> list[StepContext]:
        """The step's context for each of its micro-batches, with the passes over the step that the loss asks for."""
        context = dataclasses.replace(
            step.context, reference_tolerance=self.reference_tolerance, state=dict(self.state)
        )
        if not self.loss.step_passes:
            return [context] * len(step.micro_batches)
        batches = {"own": step.micro_batches, "mismatched": step.mismatched}
        passes = {
            name: logps_of_step(self.policy, self.reference, batches[name], self.device)
            for name in self.loss.step_passes
        }
        statistics = self.loss.statistics({name: found.logps for name, found in passes.items()}, context)
        first, each = passes["own"].first if "own" in passes else 0, []
        for batch in step.micro_batches:
            mine = slice(first, first := first + len(batch.length))
            sliced = {name: value if value.ndim == 0 else value[mine] for name, value in statistics.items()}
            each.append(dataclasses.replace(context, statistics=sliced))
        return each

    # Training -------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        if not self.trainer.ckpt_path and not self.trainer.global_step:
            check_untrained(self.policy, own=not self._begun_trained)
        self._gradient_check = GradientCheck(self.policy.trainable())
        self._fill_cache(scored_steps(self.trainer))

    def on_train_start(self) -> None:
        """A resumed run goes on, and draws on, as if it had not been interrupted."""
        if self.device.type == "cpu":
            keep_freed_memory(True)
        loader = self.trainer.train_dataloader
        if isinstance(loader, StepLoader):  # from a checkpoint at an epoch's end Lightning restores no position
            loader.consumed = self.trainer.global_step
        self._resuming.begin(cast(Any, self.lr_schedulers()), self.device)

    def on_train_end(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory(False)

    def on_validation_start(self) -> None:
        if not self.trainer.sanity_checking and self.trainer.state.fn != "fit":
            self._fill_cache({"validation": first_steps(self.trainer.limit_val_batches)})

    def on_test_start(self) -> None:
        self._fill_cache({"test": first_steps(self.trainer.limit_test_batches)})

    def _fill_cache(self, steps: Mapping[str, int | None]) -> None:
        """Compute what the reference cache lacks for these steps of splits, while the reference is still at hand."""
        if not isinstance(self.reference, CachedReference):
            return
        live: Any = None
        if self.policy.adapters:
            live = AdapterOff(self.policy)
        elif not self.trainer.ckpt_path and untrained(self.policy, self.reference.cache):
            live = AsItIs(self.policy)
        with forward_context(self):
            self.reference.fill(live, self._data.to_score(steps) if self._data else ToScore.of([]), self.device)

    def training_step(self, step: Step, index: int) -> dict[str, Tensor]:
        if self.global_step == 0 and step.micro_batches:
            check_start(self.policy, self.reference, step.micro_batches[0], self.reference_tolerance)
        count = self.loss.value_count(step.context)
        optimizer = self.optimizers(use_pl_optimizer=True)
        evaluated: list[tuple[MicroBatch, Evaluated]] = []
        chosen = routing_of_step(self.policy, step.micro_batches) if self.router_loss and count else None
        self.means.reset()
        for i, (batch, context) in enumerate(zip(step.micro_batches, self.contexts(step))):
            result = self.evaluate(batch, context)
            if count:  # a step may hold no example that the loss learns from, such as SFT on dispreferred rows
                with self._sharing_gradients(last=i == len(step.micro_batches) - 1):
                    self.manual_backward(self.objective(result, chosen, count))
            # Free the graph before the next forward: kept alive it fragments the heap.
            result = result._replace(objective=result.objective.detach(), routing=None)
            evaluated.append((batch, result))
            self._add(result)
        self._count(count)
        if self.router_loss and count:
            self.means.add("router_loss", 0.0, 1 / self.trainer.world_size)
        self.means.add("grad_norm", self._clip(), 1)
        means = self.means.compute()  # where the device is waited for, once a step
        if not math.isfinite(means.get("loss", 0.0) + means["grad_norm"]):
            summands = [
                (batch, bool(one.value.isfinite().all() and one.objective.isfinite())) for batch, one in evaluated
            ]
            stop_not_finite(self.global_step, means.get("loss", 0.0), means["grad_norm"], summands, self._data)
        if count:
            self._gradient_check(self.policy.trainable())
            self.state = self.loss.next_state(means, dataclasses.replace(step.context, state=self.state))
        optimizer.step()  # type: ignore[union-attr]
        self.policy.trained = True
        optimizer.zero_grad()  # type: ignore[union-attr]
        schedule: Any = self.lr_schedulers()
        means["learning_rate"] = schedule.get_last_lr()[0]
        schedule.step()
        self.log_dict({f"train/{name}": value for name, value in means.items() if name != "loss"})
        self.log("train/loss", means.get("loss", 0.0), prog_bar=True)
        names = self.loss.metric_names
        found = {name: [result.metrics[name] for _, result in evaluated if name in result.metrics] for name in names}
        return {name: torch.cat(values) for name, values in found.items() if values}

    def objective(self, result: Evaluated, chosen: Routing | None, count: int) -> Tensor:
        """A micro-batch's part of what the step is trained on. chosen: see `routing_of_step`."""
        # DDP and FSDP average gradients over the ranks; the world size makes the average a sum.
        ranks = self.trainer.world_size
        objective = result.objective * (ranks / count)
        if result.routing is None or self.policy.router is None:
            return objective
        part = balancing_loss(result.routing, chosen or over_ranks(result.routing))
        self.means.add("router_loss", part.detach(), 0)
        return objective + part * (ranks * self.policy.router.weight)

    def _sharing_gradients(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """DDP shares a step's gradients once, with the last micro-batch; FSDP2 with each, as unsharded gradients of a
        whole step would take the memory that sharding has freed."""
        if isinstance(self.trainer.strategy, DDPStrategy) and not last:
            return self.trainer.strategy.block_backward_sync()
        return contextlib.nullcontext()

    def _add(self, result: Evaluated) -> None:
        """Add a micro-batch to the means; `_count` adds how many examples the loss's sum is over, once a step."""
        self.means.update(result.metrics)
        self.means.add("loss", result.value.double().sum(), 0)

    def _count(self, examples: int) -> None:
        self.means.add("loss", 0.0, examples / self.trainer.world_size)  # every rank knows the count of all

    def _clip(self) -> Tensor:
        """Clip the gradient of the whole step; returns its norm before."""
        parameters = [p for p in self.policy.trainable().values() if p.grad is not None]
        return whole(torch.nn.utils.clip_grad_norm_(parameters, self.optimization.max_grad_norm or math.inf))

    # Scoring, validation and test -------------------------------------------------------------------------------------

    def mean_logps(self, rows: Sequence[TokenizedRow], max_tokens: int) -> list[list[float]]:
        """Mean token log-prob (nats) of every completion of every row, under the policy, without dropout."""
        found: list[list[float]] = [[] for _ in rows]
        plan = StepPlan(PADDED.lengths_of(rows, (1, -1)), max(len(rows), 1), max_tokens)
        for batch in plan.micro_batches(0, 0):
            inputs = PADDED.batch([rows[i] for i in batch], (1, -1)).to(self.device)
            with evaluating(self.policy), forward_context(self):
                means = inputs.completions(self.policy(inputs).token_logps).mean().tolist()
            for i in batch:
                found[i], means = means[: len(rows[i].completions)], means[len(rows[i].completions) :]
        return found

    def validation_step(self, step: Step, index: int, dataloader_idx: int = 0) -> dict[str, Any]:
        """Returns under `scored`, for callbacks, each micro-batch with the policy's token log-probs."""
        scored = []
        for batch, context in zip(step.micro_batches, self.contexts(step)):
            self._add(result := self.evaluate(batch, context))
            scored.append((batch, result.token_logps))
        self._count(self.loss.value_count(step.context))
        return {"scored": scored}

    test_step = validation_step

    def on_validation_epoch_start(self) -> None:
        self.means.reset()

    def on_validation_epoch_end(self) -> None:
        self._log_means("val")

    on_test_epoch_start = on_validation_epoch_start

    def on_test_epoch_end(self) -> None:
        self._log_means("test")

    def _log_means(self, split: str) -> None:
        self.log_dict({f"{split}/{name}": value for name, value in self.means.compute().items()})
        self.means.reset()

    # Predicting -----------------------------------------------------------------------------------------------------

    def predict_step(self, batch: PromptBatch, index: int) -> list[dict[str, Any]]:
        """Completions of prompts that share one limit of new tokens, as records for a JSONL file."""
        limit = batch.rows[0].max_new_tokens or self.generation.max_new_tokens
        sampling = dataclasses.replace(self.generation, max_new_tokens=limit)
        prompts = [row.prompt_ids for row in batch.rows]
        drawn = generate_with_lengths(self.policy.loaded, self.policy.tokenizer, prompts, sampling)
        return [
            {
                "prompt_id": row.prompt_id or row.id,
                "prompt": row.prompt if isinstance(row.prompt, str) else list(row.prompt),
                "completion": one.text,
                "length": one.length,
                "finished": one.finished,
            }
            | ({} if row.verifier is None else {"score": verify(one.text, dict(row.verifier))})
            for row, completions in zip(batch.rows, drawn)
            for one in completions
        ]
