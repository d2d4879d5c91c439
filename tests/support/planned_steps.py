"""A step to plan: a policy on micro-batches whose tokens are counted by hand."""

from typing import Any

from lightning_bnf.batch import MicroBatch
from lightning_bnf.costs.plan.step import Setting
from lightning_bnf.datamodules.steps.layout import PADDED, SHARED_PROMPT
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import Policy

VOCABULARY, HIDDEN, INNER, LAYERS = 49152, 32, 48, 2  # of the tiny folder; 4 heads of 8, 2 of them for keys and values


LINEAR = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 48  # of a layer: q and o, k and v, gate, up and down


PARAMETERS = VOCABULARY * HIDDEN * 2 + LAYERS * (LINEAR + 2 * HIDDEN) + HIDDEN


def batch_of(lengths: tuple[tuple[int, int, int], ...] = ((9, 5, 7), (4, 6, 3)), shared: bool = False) -> MicroBatch:
    """Pairs of (prompt, chosen, rejected) tokens."""
    rows = [
        TokenizedRow(
            str(i),
            "",
            "paired",
            [3] * prompt,
            tuple(TokenizedCompletion([3] * n, [True] * n, label) for n, label in ((chosen, 1), (rejected, -1))),
        )
        for i, (prompt, chosen, rejected) in enumerate(lengths)
    ]
    return (SHARED_PROMPT if shared else PADDED).batch(rows, (1, -1))


def setting(policy: Policy, **changes: Any) -> Setting:
    values = {"reference": "cache", "batch": batch_of(), "token_loss": False, "accumulating": False} | changes
    return Setting(policy=policy, **values)
