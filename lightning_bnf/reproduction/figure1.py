"""The feedback between a token's likelihood and a loss's gradient: the curves of the BNF paper's Figure 1."""

from collections.abc import Mapping

import pandas as pd
import torch

from lightning_bnf.losses.base import Examples, Loss, StepContext
from lightning_bnf.losses.completions import Completions
from lightning_bnf.runtime.arguments import OpenUnitInterval, checked
from lightning_bnf.runtime.refusal import Refusal

_ONE = StepContext(pairs=0, preferred=1, dispreferred=1, preferred_tokens=1, smallest_length=1)


@checked
def feedback_curves(losses: Mapping[str, Loss], reference: OpenUnitInterval = 0.4, points: int = 199) -> pd.DataFrame:
    """|dL/dz_y| against pi(y) for a completion of one token y, for each loss and label.

    Computed from the losses themselves by automatic differentiation through a softmax over {y, not y}. `reference` is
    ref(y), a probability. Columns: loss, label (+1/-1), likelihood, gradient. Raises `Refusal` for a reference that is
    not strictly between 0 and 1.
    """
    likelihood = torch.linspace(0, 1, points + 2, dtype=torch.float64)[1:-1]
    row, length = torch.arange(points), torch.ones(points, dtype=torch.long)
    tables = []
    for name, loss in losses.items():
        for label in (1, -1):
            z = torch.stack([likelihood.logit(), torch.zeros(points, dtype=torch.float64)], dim=-1).requires_grad_()
            policy = Completions(z.log_softmax(-1)[:, 0], row, length)
            at_reference = policy.replaced(torch.full((points,), reference, dtype=torch.float64).log())
            examples = Examples(torch.full((points,), label))
            (grad,) = torch.autograd.grad(loss(policy, at_reference, examples, _ONE).value.sum(), z)
            columns = {"loss": name, "label": label, "likelihood": likelihood, "gradient": grad[:, 0].abs()}
            tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def equation_9(likelihood: torch.Tensor, reference: float) -> torch.Tensor:
    """|dL_BNF/dz_y| as the paper's Eq. 9 has it, for a completion of one token: probabilities in, same shape out."""
    below = likelihood * (1 - reference) / reference
    return torch.where(likelihood < reference, below, 1 - likelihood)


def largest_difference(curves: pd.DataFrame, loss: str, reference: float) -> float:
    """Between a loss's curves (`feedback_curves`) and Eq. 9. Raises `Refusal` for a loss that is not in `curves`."""
    own = curves[curves["loss"] == loss]
    if own.empty:
        raise Refusal(f"loss must be one of {', '.join(curves['loss'].unique())}, got {loss!r}")
    right = equation_9(torch.tensor(own["likelihood"].to_numpy()), reference)
    return float((torch.tensor(own["gradient"].to_numpy()) - right).abs().max())
