"""Whether a loaded model gives in a layout what it gives for each sequence alone: log-probs, gradients, no chance.

What may differ is not guessed: the same sequences are scored again while every layer's output is rounded once more, in
the type that the run gives it.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import PADDED, Layout
from lightning_bnf.datamodules.tokens.rows import RowArrays
from lightning_bnf.policies.base import Policy, evaluating
from lightning_bnf.policies.head.tiles import rounded_again
from lightning_bnf.runtime.distributed import gather_objects, local

TIMES_NOISE = 2.0
"""How many times what rounding once more does is accepted."""

LEAST_NATS = 1e-4
"""Differences that are accepted however exact a model is."""

LEAST_GRADIENT = 1e-3
"""The same of gradients, as a share of the largest."""

LEAST_NUMBERS = 64
"""By how many numbers what rounding does is judged, at least: the largest of a few is of any size by chance."""

DRAWS = 3
"""How often rounding is drawn for gradients, whose numbers all hang on the rounding of a few tokens' logits."""

FEW_TOKENS = 24
"""Tokens of a prompt, and of a completion, by which gradients are compared."""


class Probe:
    """A loaded policy whose batches are compared with single sequences; of completions with one of the labels.

    What it finds wrong is said in words that follow "this model's ...".
    """

    def __init__(self, policy: Policy, labels: Sequence[int], measured: Sequence[RowArrays]):
        """measured: the rows on which the noise of rounding is measured that is accepted of all"""
        self.policy, self.labels, self.measured = policy, labels, measured
        self.device = next(policy.causal_lm.parameters()).device
        self._scores: dict[int, tuple[RowArrays, Tensor]] = {}  # by the row's id, with the row so that it stays

    def fault(self, layout: Layout, rows: Sequence[RowArrays], gradients: bool = True) -> str | None:
        """What is wrong with these rows in one batch of the layout; None where nothing is."""

        def found() -> str | None:
            return self._logps_fault(layout, rows) or (self._gradient_fault(layout, rows) if gradients else None)

        return _failing(found)

    def fault_of_model(self, row: RowArrays) -> str | None:
        """What is wrong with the model, whatever the layout: it looks ahead, or draws random numbers in training."""
        return _failing(lambda: self._look_ahead(row) or self._chance(row))

    def _look_ahead(self, row: RowArrays) -> str | None:
        with evaluating(self.policy):
            later = [self._score([self._batch(_longer(one))])[:-1] for one in self._alone([row])]
            worst = self._beyond(torch.cat(later) - self._right([row]))
        return worst and f"log-probs of a token differ by {worst} with another token behind it: it is not causal"

    def _chance(self, row: RowArrays) -> str | None:
        """Of the base model's modules those that must be in training mode, to recompute their activations."""
        modules = [part for part in self.policy.base_modules if part.training]
        if not modules:
            return None
        with evaluating(self.policy), torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            right = self._right([row])
            for part in modules:
                part.training = True
            worst = self._beyond(self._score(map(self._batch, self._alone([row]))) - right)
        names = ", ".join(sorted({type(part).__name__ for part in modules}))
        return worst and f"log-probs differ by {worst} in training, where {names} draw random numbers"

    def _logps_fault(self, layout: Layout, rows: Sequence[RowArrays]) -> str | None:
        with evaluating(self.policy):
            worst = self._beyond(self._score([layout.batch(rows, self.labels)]) - self._right(rows))
        return worst and f"log-probs differ by {worst} from those of single rows"

    def _gradient_fault(self, layout: Layout, rows: Sequence[RowArrays]) -> str | None:
        trained = list(self.policy.trainable().values())
        if not torch.is_grad_enabled() or any(parameter.grad is not None for parameter in trained):
            return None
        few = [_few(row) for row in rows]
        if layout.common:
            layout = layout.sharing(min(layout.common, FEW_TOKENS // 2))
        alone = [self._batch(row) for row in self._alone(few)]
        try:
            with evaluating(self.policy), torch.enable_grad():
                found, right = self._gradients([layout.batch(few, self.labels)]), self._gradients(alone)
                if not _size(found).largest < math.inf:
                    return "gradients are not finite"
                scale = max(_size(right).largest, torch.finfo(right.dtype).tiny)
                share = _size(found - right).largest / scale
                if share <= LEAST_GRADIENT:
                    return None
                noise = max(self._rounded_gradients(alone, right, seed) for seed in range(DRAWS)) / scale
        finally:
            for parameter in trained:  # a backward pass that failed has left some
                parameter.grad = None
        of = f"of the largest from those of single rows (rounding: {noise:.1g})"
        return None if share <= TIMES_NOISE * noise else f"gradients differ by {share:.2g} {of}"

    def _rounded_gradients(self, alone: Sequence[MicroBatch], right: Tensor, seed: int) -> float:
        """How far the gradients move where every layer rounds once more."""
        with rounding(self.policy.causal_lm, self.device, seed):
            return _size(self._gradients(alone) - right).largest

    def _gradients(self, batches: Sequence[MicroBatch]) -> Tensor:
        """Of the sum of all log-probs: for each trainable tensor its gradient's sum, and sums with signs drawn for it,
        `LEAST_NUMBERS` together or more.

        They are summed over the batches as the gradients come, each of which goes at once: all together they would take
        as much memory as the weights.
        """
        trained = list(self.policy.trainable().values())
        count = max(2, math.ceil(LEAST_NUMBERS / max(1, len(trained))))
        sums: dict[Tensor, Tensor] = {
            one: torch.zeros(count, dtype=torch.float32, device=self.device) for one in trained
        }

        def take(parameter: Tensor) -> None:
            assert parameter.grad is not None
            gradient, parameter.grad = local(parameter.grad).float().flatten(), None
            draw = torch.Generator(self.device).manual_seed(gradient.numel())
            signed = [gradient.sum()]
            for _ in range(count - 1):
                signs = torch.randint(2, gradient.shape, generator=draw, device=self.device).float() * 2 - 1
                signed.append(gradient @ signs)
            sums[parameter] += torch.stack(signed)

        handles = [parameter.register_post_accumulate_grad_hook(take) for parameter in trained]
        try:
            for batch in batches:
                self.policy(batch.to(self.device)).token_logps.sum().backward()
        finally:
            for handle in handles:
                handle.remove()
        return torch.cat([*sums.values(), torch.zeros(1, dtype=torch.float32, device=self.device)])

    def _beyond(self, differences: Tensor) -> str | None:
        """(N,) nats: None where they are of the noise's size, by their largest and by their mean."""
        found = _size(differences)
        if found.largest <= LEAST_NATS:
            return None
        noise, by_chance = self._noise, 1 + 2 * len(differences) ** -0.5  # by which the mean of a few may be larger
        accepted = Size(TIMES_NOISE * noise.largest, TIMES_NOISE * noise.mean * by_chance)
        if noise.largest < math.inf and all(one <= max(LEAST_NATS, most) for one, most in zip(found, accepted)):
            return None
        return f"{found.largest:.2g} nats (rounding: {noise.largest:.1g})"

    @cached_property
    def _noise(self) -> "Size":
        """Nats by which log-probs differ where every layer rounds once more, drawn anew where there are few."""
        right, differences = self._right(self.measured), []
        for seed in range(math.ceil(LEAST_NUMBERS / max(1, len(right)))):
            with evaluating(self.policy), rounding(self.policy.causal_lm, self.device, seed):
                differences.append(self._score(map(self._batch, self._alone(self.measured))) - right)
        return _size(torch.cat(differences))

    def _right(self, rows: Sequence[RowArrays]) -> Tensor:
        """The log-probs of each completion alone, in the order of a batch of all."""
        for row in rows:
            if id(row) not in self._scores:
                with evaluating(self.policy):
                    self._scores[id(row)] = row, self._score(map(self._batch, self._alone([row])))
        return torch.cat([self._scores[id(row)][1] for row in rows])

    def _score(self, batches: Iterable[MicroBatch]) -> Tensor:
        return torch.cat([self.policy(batch.to(self.device)).token_logps for batch in batches])

    def _alone(self, rows: Sequence[RowArrays]) -> list[RowArrays]:
        """Each completion as a row of its own."""
        labelled = [(row, place) for row in rows for place, label in enumerate(row.label) if label in self.labels]
        return [row.only(np.arange(len(row.label)) == place) for row, place in labelled]

    def _batch(self, row: RowArrays) -> MicroBatch:
        return PADDED.batch([row], self.labels)


class Size(NamedTuple):
    """Of differences on all ranks, which so come to the same end."""

    largest: float
    mean: float


def _size(differences: Tensor) -> Size:
    """(N,), of which each rank may have its own; not finite where one of them is not."""
    sizes = differences.detach().abs()
    mine = (sizes.max().item(), sizes.mean().item()) if len(sizes) else (0.0, 0.0)
    each = [[one if math.isfinite(one) else math.inf for one in rank] for rank in gather_objects(mine)]
    return Size(*map(max, zip(*each)))


def _failing(found: Callable[[], str | None]) -> str | None:
    """What `found` says, or the error that it ends with: whatever an architecture makes of inputs it does not know."""
    try:
        return found()
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        why = (str(error).strip() or "no more is said").splitlines()[0]
        return f"forward pass fails ({type(error).__name__}: {why[:200]})"


def _longer(row: RowArrays) -> RowArrays:
    """The row of one completion with its last token once more."""
    more = np.append(row.trained, True)
    return replace(row, ids=np.append(row.ids, row.ids[-1:]), trained=more, length=row.length + 1)


def _few(row: RowArrays) -> RowArrays:
    """The row with the first and last tokens of its prompt, and the first ones of each completion."""
    starts = row.length.cumsum() - row.length
    kept = np.concatenate([np.arange(s, s + min(n, FEW_TOKENS)) for s, n in zip(starts, row.length)])
    length, prompt, half = np.minimum(row.length, FEW_TOKENS), row.prompt, FEW_TOKENS // 2
    if len(prompt) > FEW_TOKENS:
        prompt = np.concatenate([prompt[:half], prompt[-half:]])
    return replace(row, prompt=prompt, ids=row.ids[kept], trained=row.trained[kept], length=length)


@contextmanager
def rounding(model: nn.Module, device: torch.device, seed: int = 0) -> Iterator[None]:
    """Inside, each number that a layer gives is off by up to half a unit in its last place, drawn from the seed."""
    draw = torch.Generator(device).manual_seed(seed)

    def off(module: nn.Module, args: Any, output: Any) -> Any:
        if not isinstance(output, Tensor) or not output.is_floating_point():
            return output
        return rounded_again(output, draw)

    handles = [part.register_forward_hook(off) for part in model.modules() if not any(part.children())]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
