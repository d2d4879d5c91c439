"""Every loss as its YAML file builds it, and one step of pairs that has all that any of them asks for."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from torch import Tensor
from torch.overrides import TorchFunctionMode

from lightning_bnf.losses import Examples, Loss, StepContext, StepLogps
from lightning_bnf.losses.completions import Completions

FILES = {path.stem: path for path in sorted((Path(__file__).parents[2] / "configs/loss").glob("*.yaml"))}


def build(name: str) -> Loss:
    """The loss of `configs/loss/<name>.yaml`, with its defaults."""
    parser = jsonargparse.ArgumentParser()
    parser.add_argument("--loss", type=Loss)
    return parser.instantiate_classes(parser.parse_object({"loss": yaml.safe_load(FILES[name].read_text())})).loss


# Three pairs: chosen of 2, 3 and 1 tokens, rejected of 1, 2 and 4.
LENGTH = torch.tensor([2, 1, 3, 2, 1, 4])
ROW = torch.repeat_interleave(torch.arange(6), LENGTH)
EXAMPLES = Examples(
    label=torch.tensor([1, -1, 1, -1, 1, -1]),
    pair=torch.tensor([[0, 1], [2, 3], [4, 5]]),
    group=torch.tensor([0, 0, 1, 1, 2, 2]),
    columns={
        "reward": torch.tensor([2.0, 1.0, 0.5, -0.5, 7.0, -1.0], dtype=torch.float64),
        "win_probability": torch.tensor([0.9, 0.2, 0.6, 0.5, 1.0, 0.0], dtype=torch.float64),
        "baseline_mean_logps": torch.tensor([-1.0, -2.0, -0.5, -1.0, -3.0, -1.0], dtype=torch.float64),
    },
)
CONTEXT = StepContext(pairs=3, groups=3, preferred=3, dispreferred=3, preferred_tokens=6, smallest_length=1)


def completions(token: Tensor) -> Completions:
    return Completions(token, ROW, LENGTH)


def tokens(seed: int, scale: float = 1.0) -> Tensor:
    """Random log-probs for the step's 13 tokens."""
    g = torch.Generator().manual_seed(seed)
    return -scale * torch.rand(int(LENGTH.sum()), generator=g, dtype=torch.float64) - 0.05


def context(loss: Loss, policy: Tensor, reference: Tensor, examples: Examples = EXAMPLES) -> StepContext:
    """The step's context with what the loss carries, and with its statistics of these log-probs.

    As mismatched completions serve the step's own with other log-probs.
    """
    own, ref = completions(policy.detach()), completions(reference)
    passes = {
        "own": StepLogps(own.sum(), ref.sum(), examples),
        "mismatched": StepLogps(2 + own.sum(), ref.sum(), examples),
    }
    given = replace(CONTEXT, state=dict.fromkeys(loss.state, 0.6))
    asked = {name: passes[name] for name in loss.step_passes}
    return replace(given, statistics=loss.statistics(asked, given))


def value(loss: Loss, policy: Tensor, reference: Tensor, step: StepContext | None = None) -> Tensor:
    """What the step's examples are worth."""
    ref = completions(reference) if loss.needs_reference else None
    return loss(completions(policy), ref, EXAMPLES, step or context(loss, policy, reference)).value


def gradient(loss: Loss, policy: Tensor, reference: Tensor) -> Tensor:
    """Of the step's summed value with respect to every token's log-prob."""
    policy = policy.detach().requires_grad_()
    (grad,) = torch.autograd.grad(value(loss, policy, reference).sum(), policy)
    return grad


class FrozenDetaches(TorchFunctionMode):
    """A function of token log-probs whose stop-gradient factors are inputs: every `detach` in it gives what it gave at
    the first call. So finite differences see the gradient that is taken, not that of the factors too."""

    def __init__(self, function: Callable[[Tensor], Tensor], at: Tensor):
        super().__init__()
        self.function = function
        self.factors: list[Tensor] = []
        self.given: Iterator[Tensor] | None = None
        self(at)
        self.given = iter(self.factors)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.detach:
            return func(*args, **(kwargs or {}))
        if self.given is not None:
            return next(self.given)
        self.factors.append(func(*args).clone())
        return self.factors[-1]

    def __call__(self, token: Tensor) -> Tensor:
        if self.given is not None:
            self.given = iter(self.factors)
        with self:
            return self.function(token)
