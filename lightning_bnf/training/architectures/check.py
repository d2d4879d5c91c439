"""What becomes of an architecture: a tiny model of it through the package's own way, against its own plain logits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_bnf.datamodules.steps.layout import LAYOUTS, PADDED, LayoutName
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies.full import FullPolicy
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.architectures.table import NOT_BUILT, Architecture
from lightning_bnf.training.architectures.tiny import VOCABULARY, WINDOW, tiny_model
from lightning_bnf.training.fitting import choose_layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

EXACT = 1e-4
"""Nats of a completion's summed log-probs, and share of the largest gradient."""

LABELS = (1, -1)
FASTEST_FIRST: tuple[LayoutName, ...] = ("shared_prompt", "packed", "padded")


class WrongError(AssertionError):
    """A layout was accepted in which the numbers are not the model's own: a fault of this package."""


def rows() -> list[TokenizedRow]:
    """Pairs and a single answer, longer and shorter than a tiny model's windows."""
    lengths = {"long": (2 * WINDOW, 10, WINDOW), "short": (4, 2, 9), "middle": (WINDOW - 2, 6, 3), "single": (9, 30)}
    draw = torch.Generator().manual_seed(1)
    made = []
    for name, (prompt, *completions) in lengths.items():
        ids = torch.randint(3, VOCABULARY, (prompt + sum(completions),), generator=draw).tolist()
        ends = [prompt + sum(completions[: i + 1]) for i in range(len(completions))]
        done = tuple(
            TokenizedCompletion(ids[end - n : end], [True] * n, label)
            for end, n, label in zip(ends, completions, LABELS)
        )
        kind = "paired" if len(done) > 1 else "unpaired"
        made.append(TokenizedRow(name, f"row {name}", kind, ids[:prompt], done))
    return made


def check(model_type: str) -> Architecture:
    """Which layouts are accepted, and why others are not. Raises `WrongError` where one is that gives other numbers."""
    try:
        plain = tiny_model(model_type)
    except Exception as error:
        return Architecture(model_type, (), f"{NOT_BUILT}{type(error).__name__}: {_first_line(error)}")
    policy = FullPolicy(model_type)
    policy.adopt(tiny_model(model_type))
    try:
        policy.check_head(PADDED.batch(rows()[:1], LABELS))
    except Refusal as refusal:
        return Architecture(model_type, (), str(refusal))
    accepted, said = [], ""
    for name in FASTEST_FIRST:
        try:
            choose_layout(name, policy, rows(), LABELS)
        except Refusal as refusal:
            said = said or str(refusal)
            continue
        _compare(plain, policy, name)
        accepted.append(name)
    return Architecture(model_type, tuple(accepted), said)


def _compare(plain: "PreTrainedModel", policy: FullPolicy, layout: LayoutName) -> None:
    """Summed log-probs and gradients of every completion's sum, against one plain forward pass for each."""
    plain.requires_grad_(True).zero_grad()
    right = torch.stack([_plain_logps(plain, row.prompt_ids, done.ids) for row in rows() for done in row.completions])
    right.sum().backward()
    batch = LAYOUTS[layout].batch(rows(), LABELS)
    policy.train()
    policy.zero_grad()
    found = batch.completions(policy(batch).token_logps).sum()
    found.sum().backward()
    worst = float((found - right).detach().abs().max())
    if not worst <= EXACT:
        raise WrongError(f"{policy.source}, {layout}: log-probs differ by {worst:.2g} nats")
    scale = max(float(p.grad.abs().max()) for p in plain.parameters() if p.grad is not None)
    ours = dict(policy.causal_lm.named_parameters())
    for name, parameter in plain.named_parameters():
        wanted, got = (torch.zeros(1) if p.grad is None else p.grad for p in (parameter, ours[name]))
        off = float((wanted - got).abs().max()) / scale
        if not off <= EXACT:
            raise WrongError(f"{policy.source}, {layout}: gradients of {name} differ by {off:.2g} of the largest")


def _plain_logps(model: "PreTrainedModel", prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """The summed log-prob of a completion by the model's own logits, as anybody would write it."""
    logits = model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits[0]
    logps = logits.float().log_softmax(-1)[len(prompt) - 1 : -1]
    return logps[torch.arange(len(completion)), torch.tensor(completion)].sum()


def _first_line(error: Exception) -> str:
    return (str(error).strip() or "no more is said").splitlines()[0][:200]
