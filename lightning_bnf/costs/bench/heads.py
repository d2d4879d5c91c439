"""The head against the matrix products that it is made of, and against the paper's listing."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_bnf.costs.bench.workers import Turns, Variant, repeat
from lightning_bnf.losses.bnf import clipped_odds_ratio
from lightning_bnf.policies.head import choose as softmax_choice
from lightning_bnf.policies.head.softmax import Logits, softmax_in_blocks
from lightning_bnf.policies.head.tiles import TILE_BYTES, Head, token_logps, weighted_token_logps


class Problem:
    """Random hidden states, weight and targets of a head, with reference log-probs and labels."""

    def __init__(self, tokens: int, hidden: int, vocabulary: int, train_head: bool, device: str, dtype: torch.dtype):
        torch.manual_seed(0)
        self.hidden = torch.randn(tokens, hidden, device=device).to(dtype).requires_grad_()
        self.weight = (0.05 * torch.randn(vocabulary, hidden, device=device)).to(dtype).requires_grad_(train_head)
        self.target = torch.randint(vocabulary, (tokens,), device=device)
        with torch.no_grad():
            self.logps = token_logps(self.hidden, self.target, Head(self.weight)).logps
        self.reference = self.logps + 0.3 * torch.randn(tokens, device=device)
        self.label = torch.where(torch.arange(tokens, device=device) % 2 == 0, 1.0, -1.0)

    def clear(self) -> None:
        """Drop the gradients."""
        self.hidden.grad = self.weight.grad = None

    def weigh(self, logps: Tensor, where: slice) -> Tensor:
        """BNF's weights."""
        return self.label[where] * clipped_odds_ratio(logps, self.reference[where]) / len(self.target)


def products(problem: Problem, rows: int) -> Callable[[], None]:
    """The bare products: logits, gradient of the hidden states, and of the weight if it is trained."""
    hidden, weight = problem.hidden.detach(), problem.weight.detach()
    tile = hidden.new_empty(rows, len(weight))
    problem.hidden.grad = grad_hidden = torch.empty_like(hidden)
    if problem.weight.requires_grad:
        problem.weight.grad = torch.zeros_like(weight)

    def run() -> None:
        for start in range(0, len(hidden), rows):
            some = hidden[start : start + rows]
            logits = torch.mm(some, weight.T, out=tile[: len(some)])
            torch.mm(logits, weight, out=grad_hidden[start : start + rows])
            if problem.weight.grad is not None:
                problem.weight.grad.addmm_(logits.T, some)

    return run


def ours(problem: Problem, tile_bytes: int | None = None) -> Callable[[], None]:
    """BNF through the fused head."""

    def run() -> None:
        problem.clear()
        head, weigh = Head(problem.weight), problem.weigh
        weighted_token_logps(problem.hidden, problem.target, head, weigh, tile_bytes=tile_bytes).objective.backward()

    return run


def recomputed(problem: Problem, tile_bytes: int | None = None) -> Callable[[], None]:
    """What sequence losses take: log-probs, and each tile again in the backward pass."""

    def run() -> None:
        problem.clear()
        token_logps(problem.hidden, problem.target, Head(problem.weight), tile_bytes=tile_bytes).logps.sum().backward()

    return run


def listing(problem: Problem, tile_bytes: int | None = None) -> Callable[[], None]:
    """The loss as the paper's Appendix B lists it, on full logits (with Eq. 4's sign), its reference given."""

    def run() -> None:
        problem.clear()
        logps = (problem.hidden.float() @ problem.weight.float().T).log_softmax(-1)
        response = logps.gather(-1, problem.target[:, None]).squeeze(-1)
        probability = response.exp().detach()
        others = (logps.exp().detach() * logps).sum(-1) - probability * response
        target = torch.clamp(response.exp() / problem.reference.exp(), max=1).detach()
        others_target = (1 - target) / (1 - probability)
        (-(target * response + others_target * others) * problem.label / len(problem.target)).sum().backward()

    return run


RUNS: dict[str, Callable[[Problem, int | None], Callable[[], None]]] = {
    "ours": ours,
    "recomputed": recomputed,
    "listing": listing,
}


def contest(
    turns: Turns,
    kind: str,
    tokens: int,
    hidden: int,
    vocabulary: int,
    train_head: bool,
    device: str,
    dtype: str,
    tile_bytes: int | None = None,
) -> None:
    """One way through the head, in tiles of a size, or the bare products in tiles of `products:ROWS`."""
    problem = Problem(tokens, hidden, vocabulary, train_head, device, getattr(torch, dtype))
    kind, _, rows = kind.partition(":")
    repeat(turns, products(problem, int(rows)) if rows else RUNS[kind](problem, tile_bytes))


def softmaxes(turns: Turns, kind: str, rows: int, vocabulary: int, device: str, dtype: str) -> None:
    """The softmax of a tile, as it is chosen for the device or by torch's operations alone; `kernel` tells whether the
    Triton kernel was it. Its logits are not made anew: a softmax of what the last turn left takes as long."""
    products = torch.randn(rows, vocabulary, device=device)
    logits = Logits(products, torch.randint(vocabulary, (rows,), device=device), None, 1.0, None)
    scores = getattr(torch, dtype)
    chosen = kind == "chosen"
    variant = softmax_choice.Variant.of(logits, True, False, scores)
    kernel = chosen and device == "cuda" and softmax_choice.kernel_is_right(products.device, variant)
    while True:
        turns.wait()
        if chosen:
            softmax_choice.tile_softmax(logits, True, None, scores)
        else:
            softmax_in_blocks(logits, True, None)
        turns.done(kernel=float(kernel))


def against_float64(turns: Turns, tokens: int, hidden: int, vocabulary: int, device: str, dtype: str) -> None:
    """The head's log-probs and gradients on a device against full logits in float64 on the CPU: `logps_error` in nats,
    the gradients' as a share of the largest. The factors are rounded to `dtype` first, so that its own rounding is not
    in it."""
    while True:
        turns.wait()
        problem = Problem(tokens, hidden, vocabulary, True, device, getattr(torch, dtype))
        exact, weight = (x.detach().cpu().double().requires_grad_() for x in (problem.hidden, problem.weight))
        right = (exact @ weight.T).log_softmax(-1).gather(-1, problem.target.cpu()[:, None]).squeeze(-1)
        recomputed(problem)()
        gradients = torch.autograd.grad(right.sum(), (exact, weight))
        told = {"logps_error": float((problem.logps.cpu().double() - right).abs().max())}
        for name, ours, wanted in zip(("hidden", "weight"), (problem.hidden, problem.weight), gradients):
            assert ours.grad is not None
            told[f"{name}_gradient_error"] = float((ours.grad.cpu().double() - wanted).abs().max() / wanted.abs().max())
        turns.done(**told)


def variants(device: str, tokens: int = 2048, hidden: int = 576, vocabulary: int = 49152) -> list[list[Variant]]:
    """The suite: groups that are compared with one another."""
    dtype = "bfloat16" if device == "cuda" else "float32"
    most = TILE_BYTES // (4 * vocabulary)
    tiles = sorted({rows for rows in (128, 256, 512, most) if rows <= tokens})
    groups = []
    for train_head in (True, False):
        case = f"{tokens} tokens, {hidden} x {vocabulary}, head {'trained' if train_head else 'frozen'}"
        kinds = {f"bare products, tiles of {rows}": f"products:{rows}" for rows in tiles}
        kinds |= {"BNF, fused": "ours", "sequence loss": "recomputed"}
        if train_head:
            kinds["paper's listing"] = "listing"
        sizes = {"tokens": tokens, "hidden": hidden, "vocabulary": vocabulary, "device": device, "dtype": dtype}
        groups.append(
            [
                Variant("head", case, name, contest, {"kind": kind, "train_head": train_head} | sizes)
                for name, kind in kinds.items()
            ]
        )
    return groups
