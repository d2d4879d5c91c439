"""Table 2 of the BNF paper: four pairwise losses and the constraint C that their gradients hold (Eq. 3), checked.

    grad L = E[ C (-grad log pi(y_w) + grad log pi(y_l)) ]

C is the brake: a small C leaves the rejected completion alone. The formulas below are the paper's; what they are
checked against is the gradient of this package's losses, by automatic differentiation. For SimPO the paper's C lacks
the factor beta / |y| that its Eq. 3 would need, of the length of each side: it is beside the formula, as `scale`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lightning_bnf.losses import DPO, IPO, SimPO, SLiC
from lightning_bnf.losses.base import Examples, Loss, StepContext
from lightning_bnf.losses.completions import Completions
from lightning_bnf.losses.pairs import Pairs, Side, as_pairs


@dataclass(frozen=True)
class PrintedLoss:
    """A line of Table 2.

    objective, constraint: as printed, in LaTeX; loss: this package's, with the arguments that make it the same
    formula: the printed constraint as a function, pairs -> (P,)
    scale: what the printed constraint has to be multiplied with on each side, (P,), to be Eq. 3's
    """

    method: str
    objective: str
    constraint: str
    loss: Loss
    formula: Callable[[Pairs], Tensor]
    scale: Callable[[Side], Tensor]


def table2(
    delta: float = 1.0, beta: float = 0.1, tau: float = 0.1, simpo_beta: float = 2.0, gamma: float = 0.5
) -> list[PrintedLoss]:
    """The lines of Table 2 with these arguments: SLiC-HF's, DPO's, IPO's, and SimPO's own beta and target margin."""
    ratio = r"\log\frac{\pi_\theta(y_%s|x)}{\pi_{ref}(y_%s|x)}"
    w, l = (ratio % (side, side) for side in "wl")  # noqa: E741 - the paper's letters
    return [
        PrintedLoss(
            "SLiC-HF",
            r"$\max(0,\ \delta-\log\pi_\theta(y_w|x)+\log\pi_\theta(y_l|x))$",
            r"$1$ where $\log\pi_\theta(y_w|x)-\log\pi_\theta(y_l|x)\lt\delta$, else $0$",
            SLiC(delta=delta, regularization=0.0),  # the table prints the hinge alone
            lambda pairs: (pairs.chosen.logps - pairs.rejected.logps < delta).double(),
            _one,
        ),
        PrintedLoss(
            "DPO",
            rf"$-\log\sigma\left(\beta{w}-\beta{l}\right)$",
            rf"$\beta\,\sigma\left(\beta{l}-\beta{w}\right)$",
            DPO(beta=beta),
            lambda pairs: beta * torch.sigmoid(beta * (pairs.rejected.logratios - pairs.chosen.logratios)),
            _one,
        ),
        PrintedLoss(
            "IPO",
            rf"$\left({w}-{l}-\frac{{1}}{{2\tau}}\right)^2$",
            rf"$2\left(\frac{{1}}{{2\tau}}+{l}-{w}\right)$",
            IPO(tau=tau, length_normalize=False),  # the table prints sums
            lambda pairs: 2 * (1 / (2 * tau) + pairs.rejected.logratios - pairs.chosen.logratios),
            _one,
        ),
        PrintedLoss(
            "SimPO",
            r"$-\log\sigma\left(\frac{\beta}{|y_w|}\log\pi_\theta(y_w|x)-\frac{\beta}{|y_l|}\log\pi_\theta(y_l|x)"
            r"-\gamma\right)$",
            r"$\sigma\left(\gamma+\frac{\beta}{|y_l|}\log\pi_\theta(y_l|x)-\frac{\beta}{|y_w|}\log\pi_\theta(y_w|x)"
            r"\right)$",
            SimPO(beta=simpo_beta, gamma_beta_ratio=gamma / simpo_beta),
            lambda pairs: torch.sigmoid(gamma + simpo_beta * (pairs.rejected.mean_logps - pairs.chosen.mean_logps)),
            lambda side: simpo_beta / side.length.to(side.logps.dtype),
        ),
    ]


def _one(side: Side) -> Tensor:
    return torch.ones_like(side.logps)


def check(lines: list[PrintedLoss], pairs: int = 200, seed: int = 0) -> pd.DataFrame:
    """Printed constraints against the losses' gradients on random pairs of completions of 1 to 8 tokens, in float64.

    Of every token of a chosen completion the gradient should be -C scale, of a rejected one +C scale. Columns: method,
    objective, constraint, scale, tokens, and the largest difference of gradient and formula.
    """
    rows = []
    for line in lines:
        policy, reference, examples = _random_pairs(pairs, seed)
        token = policy.token_logps.requires_grad_()
        value = line.loss(policy, reference, examples, _facts(pairs)).value
        (gradient,) = torch.autograd.grad(value.sum(), token)
        sides = as_pairs(policy.detached(), reference, examples)
        printed = line.formula(sides)
        right = torch.stack([-printed * line.scale(sides.chosen), printed * line.scale(sides.rejected)], 1).flatten()
        worst = (gradient - policy.per_token(right)).abs().max().item()
        scale = "1" if line.scale is _one else r"$\beta/|y|$"
        rows.append([line.method, line.objective, line.constraint, scale, len(token), worst])
    return pd.DataFrame(
        rows, columns=["method", "objective", "constraint", "scale", "tokens", "largest difference"]
    ).set_index("method")


def constraint_curves(lines: list[PrintedLoss], gaps: Tensor) -> pd.DataFrame:
    """C against the gap log pi(y_w) - log pi(y_l) (nats), with completions of one token and a reference that likes both
    alike: columns method, gap, gradient (what the loss's own gradient gives) and printed (the paper's formula)."""
    n, tables = len(gaps), []
    token = torch.stack([gaps.double() / 2 - 20, -gaps.double() / 2 - 20], 1).flatten()  # chosen, rejected, chosen, ...
    policy = _completions(token, torch.ones(2 * n, dtype=torch.long))
    reference = policy.replaced(torch.full_like(token, -20.0))
    for line in lines:
        own = policy.replaced(token.clone().requires_grad_())
        value = line.loss(own, reference, _examples(n), _facts(n)).value
        (gradient,) = torch.autograd.grad(value.sum(), own.token_logps)
        sides = as_pairs(policy, reference, _examples(n))
        printed = line.formula(sides) * line.scale(sides.rejected)
        tables.append(
            pd.DataFrame({"method": line.method, "gap": gaps, "gradient": gradient[1::2], "printed": printed})
        )
    return pd.concat(tables, ignore_index=True)


def _random_pairs(pairs: int, seed: int) -> tuple[Completions, Completions, Examples]:
    random = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (2 * pairs,), generator=random)
    draw = torch.randn(2, int(length.sum()), generator=random, dtype=torch.float64)
    policy = _completions(-draw[0].exp(), length)
    return policy, policy.replaced(-draw[1].exp()), _examples(pairs)


def _completions(token: Tensor, length: Tensor) -> Completions:
    return Completions(token, torch.arange(len(length)).repeat_interleave(length), length)


def _examples(pairs: int) -> Examples:
    return Examples(torch.tensor([1, -1]).repeat(pairs), torch.arange(2 * pairs).reshape(pairs, 2))


def _facts(pairs: int) -> StepContext:
    return StepContext(pairs=pairs, preferred=pairs, dispreferred=pairs, preferred_tokens=pairs, smallest_length=1)
