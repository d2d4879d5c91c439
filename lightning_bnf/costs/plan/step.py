"""What one optimizer step takes of memory and of computation, by running it on fake tensors.

Everything is the run's own code: the policy's forward and backward passes through transformers, peft and the tiled
head, the reference's pass, autocast. So nothing is known here of architectures, and what autograd saves is not guessed.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from inspect import unwrap
from typing import Any, NamedTuple

import torch
from lightning.pytorch.plugins.precision import DoublePrecision, HalfPrecision, MixedPrecision, Precision
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import addmm_flop, sdpa_backward_flop, sdpa_flop

from lightning_bnf.batch import MicroBatch
from lightning_bnf.costs.plan.depth import Depths, Moment, depths_of
from lightning_bnf.costs.plan.live import LiveBytes
from lightning_bnf.costs.plan.model_state import ModelState, model_state, stepping_bytes
from lightning_bnf.costs.plan.roofline import CountOperations, StepFlops, StepWork, Work
from lightning_bnf.costs.plan.skeleton import as_fake, shape_of, skeleton
from lightning_bnf.losses.base import Weigher
from lightning_bnf.policies.base import CHECKED_TOKENS, Policy, PolicyError
from lightning_bnf.policies.head import softmax
from lightning_bnf.policies.layers import decoder_layers_of
from lightning_bnf.policies.reference.build import build_reference
from lightning_bnf.policies.reference.providers import AsItIs, Reference
from lightning_bnf.policies.sequence_attention import scores, varlen_attn
from lightning_bnf.training.fake_step import FakeOptimizer
from lightning_bnf.training.optimization import Optimization, OptimizerFactory

FEW_BLOCKS_ROWS = 4096
PASSES = ("reference's pass", "forward pass", "backward pass")
_ATEN = torch.ops.aten


def _added_product(total: Any, a: Any, b: Any, *_: Any, **__: Any) -> int:
    """torch's own counts no sums that are wider than their factors, whose type is one argument more."""
    return int(unwrap(addmm_flop)(total, a, b))


FORMULAS = {  # what torch's counter does not know by itself
    _ATEN.addmm: _added_product,
    _ATEN.addmm_: _added_product,
    _ATEN._scaled_dot_product_flash_attention_for_cpu: unwrap(sdpa_flop),
    _ATEN._scaled_dot_product_flash_attention_for_cpu_backward: unwrap(sdpa_backward_flop),
}


@dataclass(frozen=True)
class Setting:
    """What a step's memory depends on.

    policy: not loaded; reference: as `check_reference` resolved it; batch: the largest micro-batch; token_loss: whether
    the head makes the gradient in its forward pass; accumulating: whether a device has several micro-batches a step;
    precision: the Trainer's; device: cpu or cuda, whose kernels are taken where torch has them, else those of the CPU;
    sharded: under FSDP2
    """

    policy: Policy
    reference: str
    batch: MicroBatch
    token_loss: bool
    accumulating: bool
    precision: str = "32-true"
    device: str = "cpu"
    sharded: bool = False
    optimization: Optimization = field(default_factory=lambda: Optimization(learning_rate=1e-6))  # of any rate
    optimizer: OptimizerFactory | None = None

    @property
    def traced(self) -> str:
        """The device whose kernels the step is run with."""
        return self.device if torch.cuda.is_available() else "cpu"


@dataclass(frozen=True)
class Phase:
    """The moment of a phase of the step at which most is taken, in bytes: gradients and optimizer state that are there
    then, and what is beside them and the weights (activations, the head's tile, temporaries)."""

    name: str
    gradients: int
    state: int
    beside: int


@dataclass(frozen=True)
class StepCost:
    """phases: of one device that holds everything; saved: bytes that the forward pass leaves for the backward pass."""

    model_state: ModelState
    phases: tuple[Phase, ...]
    saved: int


class _Outline(NamedTuple):
    """Policy and reference on fake tensors, what the precision does to them, and what they hold."""

    policy: Policy
    reference: Reference | None
    context: Precision
    model_state: ModelState
    optimizer: FakeOptimizer
    batch: MicroBatch


def step_cost(setting: Setting, contents: bool = False) -> StepCost:
    """Run a step of `setting` on fake tensors and see what it takes; with them, the policy is loaded and the step is a
    real one, to compare with. Where layers repeat, two shallow models are run for the deep one: see `depth`.

    Masks, where attention needs any, are made as for a micro-batch that has padding. Raises `PolicyError` for what
    cannot be run so, such as an architecture that asks for values to know what to compute.
    """
    with _outlined(setting, contents) as outline:
        depths = None if contents else _depths(outline.policy)
        passes = None if depths else [_Passes(setting, outline).traced()]
        others, state = _other_phases(outline), outline.model_state
    if passes is None and depths is not None:
        passes = [_traced(setting, layers) for layers in (depths.less, depths.more)]
    assert passes is not None
    phases, saved = [], passes[0].saved
    for name, *moments in zip(PASSES, *(each.moments for each in passes)):
        most = max(moments[0]) if depths is None else depths.peak(*moments)
        phases.append(Phase(name, most.gradients, state.state, most.bytes - most.gradients))
    if depths is not None:
        saved = depths.line(*(each.saved for each in passes))
    return StepCost(state, (*_merged(phases), *others), saved)


def step_work(setting: Setting) -> StepWork:
    """The operations of a step of `setting`, as they are made on its device."""
    depths = _depths(skeleton(setting.policy))
    counted = [_counted(setting, layers) for layers in ((depths.less, depths.more) if depths else (None,))]
    both, forward = zip(*counted)
    return StepWork(both, forward, depths)


def step_flops(setting: Setting) -> StepFlops:
    """Count the operations of a step of `setting`, as torch does: of matrix products and attention alone."""
    return step_work(setting).flops


def _counted(setting: Setting, layers: int | None) -> tuple[Counter[Work], Counter[Work]]:
    """Of forward and backward pass, and of a forward pass alone."""
    counter = CountOperations(_formulas(setting.batch))  # apart from `step_cost`: it holds tensors
    kernel = counter.softmax_is_a_kernel() if setting.device == "cuda" else nullcontext()
    with _outlined(setting, layers=layers) as outline, outline.context.train_step_context(), kernel, counter:
        AsItIs(outline.policy)(outline.batch)
        forward, counter.done = counter.done, Counter()
        _objective(outline, setting.token_loss).backward()
    return counter.done, forward


def _formulas(batch: MicroBatch) -> dict[Any, Any]:
    """With attention within sequences, whose lengths torch would read off tensors that here have no contents."""
    if batch.sequences is None or varlen_attn() is None:
        return FORMULAS
    pairs = scores(batch.sequences.documents, causal=False)

    def forward(query: Any, *_: Any, **__: Any) -> int:
        return 4 * pairs * int(query[1]) * int(query[2])

    def backward(gradient: Any, *_: Any, **__: Any) -> int:
        return forward(gradient) * 5 // 2

    operations = torch.ops.torch_attn
    return FORMULAS | {operations._varlen_attn: forward, operations._varlen_attn_backward: backward}


def _depths(policy: Policy) -> Depths | None:
    model = policy.causal_lm
    return depths_of(decoder_layers_of(model), model.config.get_text_config())


def _traced(setting: Setting, layers: int) -> "_Traced":
    with _outlined(setting, layers=layers) as outline:
        return _Passes(setting, outline).traced()


def _merged(phases: Sequence[Phase]) -> Iterator[Phase]:
    """The reference's pass is part of the forward pass: the higher of the two."""
    reference, forward, *rest = phases
    most = max(forward, reference, key=lambda phase: phase.beside + phase.gradients)
    yield replace(most, name=forward.name)
    yield from rest


@contextmanager
def _outlined(setting: Setting, contents: bool = False, layers: int | None = None) -> Iterator[_Outline]:
    """Inside, tensors have no contents, unless they are asked for; with `layers`, the model has no more of them."""
    if contents:
        setting.policy.load()
    policy = setting.policy if contents else skeleton(setting.policy, layers)
    if not contents:
        policy.planned_for = setting.device
    reference = None if setting.reference == "cache" else build_reference(setting.reference, policy)
    context = _context(setting.precision, setting.traced)
    for model in (policy, reference):
        if model is not None:
            context.convert_module(model)
    mixed = isinstance(context, MixedPrecision)
    optimizer = FakeOptimizer(policy, setting.optimization, setting.optimizer)
    kept = model_state(policy, reference, optimizer, setting.sharded, mixed)
    if setting.sharded and mixed:  # what is gathered is in 16 bits already, so that autocast copies nothing
        policy.to(torch.bfloat16)
    if contents:
        with _few_blocks():
            yield _Outline(policy, reference, context, kept, optimizer, setting.batch)
        return
    try:
        with FakeTensorMode(), _few_blocks():
            as_fake(policy, setting.traced)
            if reference is not None:
                as_fake(reference, setting.traced)
            yield _Outline(policy, reference, context, kept, optimizer, shape_of(setting.batch, setting.traced))
    except RuntimeError as error:  # torch's own for operations that ask for values, or lack a rule for shapes
        reason = str(error).strip().split("\n")[0]
        raise PolicyError(
            "source must be a dense model, or a mixture of experts in bfloat16 where transformers multiplies them in "
            f"groups, got {setting.policy.source!r} in {setting.policy.dtype}, of which no step can be run on fake "
            "tensors "
            f"({reason}), so it cannot be planned"
        ) from error


@contextmanager
def _few_blocks() -> Iterator[None]:
    """Inside, the head's softmax takes more rows at once on a CPU: a block of them holds next to nothing of its own,
    and on fake tensors every operation takes as long."""
    rows = softmax.BLOCK_ROWS
    softmax.BLOCK_ROWS = FEW_BLOCKS_ROWS
    try:
        yield
    finally:
        softmax.BLOCK_ROWS = rows


def _objective(outline: _Outline, token_loss: bool) -> Tensor:
    """Of a loss that takes nothing of its own worth counting."""
    weigh: Weigher | None = (lambda logps, _: torch.ones_like(logps)) if token_loss else None
    output = outline.policy(outline.batch, weigh)
    return -output.token_logps.sum() if output.objective is None else output.objective


class _Traced(NamedTuple):
    """moments: of the reference's, the forward and the backward pass, from layer to layer; saved: as in `StepCost`."""

    moments: tuple[list[Moment], ...]
    saved: int


class _Passes:
    """The passes of a step."""

    def __init__(self, setting: Setting, outline: _Outline):
        self.setting, self.outline = setting, outline
        self.accumulating = setting.accumulating or setting.sharded
        self.trained = list(outline.policy.trainable().values())
        self.live = LiveBytes()
        self.standing = 0
        self.moments: tuple[list[Moment], ...] = ([],)

    def traced(self) -> _Traced:
        """Run them."""
        self._hold_all()
        for parameter in self.trained:
            parameter.register_post_accumulate_grad_hook(self._count_gradient)
        for layer in decoder_layers_of(self.outline.policy.causal_lm):
            layer.register_forward_hook(self._layer_done)
        with self.outline.context.train_step_context(), self.live:
            if self.outline.reference is not None:
                self.outline.reference(self.outline.batch)
            self._next_pass()
            objective = _objective(self.outline, self.setting.token_loss)
            saved = self.live.now - self.standing - self.live.gradients
            self._next_pass()
            objective.backward()
            self._note()
        return _Traced(self.moments, saved)

    def _hold_all(self) -> None:
        """Count what is there before the step begins."""
        policy, reference, _, _, _, batch = self.outline
        self.live.hold([*policy.parameters(), *policy.buffers()])
        self.live.hold([*batch.inputs.values(), batch.position, batch.target])
        if reference is not None:
            self.live.hold([*reference.parameters(), *reference.buffers()])
        self.standing = self.live.now
        if self.accumulating:
            for parameter in self.trained:
                parameter.grad = torch.empty_like(parameter)
                self.live.hold([parameter.grad])
            self.live.gradients = self.live.now - self.standing
        self.live.restart()

    def _count_gradient(self, parameter: Tensor) -> None:
        if not self.accumulating:
            self.live.gradients += parameter.nbytes

    def _layer_done(self, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A moment ends where a layer has been computed, and where its backward pass begins."""
        self._note()
        hidden = output[0] if isinstance(output, tuple) else output
        if isinstance(hidden, Tensor) and hidden.requires_grad:
            hidden.register_hook(lambda _: self._note())

    def _note(self) -> None:
        """Keep the most that was taken since the last moment's end."""
        bytes = self.live.peak - self.standing + self.outline.policy.unpacked_bytes
        self.moments[-1].append(Moment(bytes, self.live.gradients_at_peak))
        self.live.restart()

    def _next_pass(self) -> None:
        self._note()
        self.moments = (*self.moments, [])


def _other_phases(outline: _Outline) -> tuple[Phase, Phase]:
    """The optimizer's step; and the check of the head before the first step, when there are no moments yet: it takes
    the model's own logits of some tokens."""
    state, policy = outline.model_state, outline.policy
    taken = stepping_bytes(outline.optimizer)
    tokens, vocabulary = outline.batch.inputs["input_ids"].shape[1], policy.head().weight.shape[0]
    logits = min(tokens, CHECKED_TOKENS) * vocabulary * policy.causal_lm.dtype.itemsize
    return (
        Phase("optimizer's step", state.gradients, state.state, taken),
        Phase("check before step 1", 0, 0, 2 * logits),
    )


def _context(precision: str, device: str) -> Precision:
    """Lightning's own plugin for a precision, which converts weights and casts as in a run."""
    if precision in ("bf16-mixed", "bf16"):
        return MixedPrecision("bf16-mixed", device)
    if precision == "bf16-true":
        return HalfPrecision("bf16-true")
    return DoublePrecision() if precision in ("64-true", "64") else Precision()
