"""How far a policy has moved from its reference on given responses: Section 5.3 of the BNF paper.

For a token y_t with logit z (before the softmax) and log-prob, under policy and reference:

    log-likelihood shift of a response    sum_t  log pi(y_t) - log ref(y_t)          Figure 3a; / |y|: 3d
    absolute logit shift of a response    sum_t |z_pi(y_t)   - z_ref(y_t)|           Figure 3b; / |y|: 3e
    Gini coefficient of a response        of the tokens' |z_pi(y_t) - z_ref(y_t)|    Figure 3f
    token shifts in percentile bins       shares of tokens between the deciles of one policy's shifts   Figure 4

The paper sums over a response and then divides by its length; it does not say whether the sign is taken off before or
after the sum over tokens. Here it is before, so that a token that rises does not hide one that falls.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import PADDED
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.statistics.intervals import paired_bootstrap
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.head.tiles import target_logits, token_logps
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal

MEASURES = {
    "logp_shift": "log-likelihood shift (nats)",
    "logit_shift": "absolute logit shift",
    "logp_shift_per_token": "log-likelihood shift (nats a token)",
    "logit_shift_per_token": "absolute logit shift (a token)",
    "gini_logit": "Gini coefficient of logit shifts",
    "gini_logp": "Gini coefficient of log-likelihood shifts",
}
"""Columns of a table of shifts, and what they are called in tables and figures."""
BINS = 10


@dataclass(frozen=True)
class TokenScores:
    """What a model gives the tokens of some responses, in the responses' order.

    logps, logits: (N,) float32, of the tokens that are scored; logps in nats
    length: (B,) of them in each response
    """

    logps: np.ndarray
    logits: np.ndarray
    length: np.ndarray


@dataclass(frozen=True)
class TokenShifts:
    """Policy minus reference, token by token. logp, logit: (N,); length: (B,)."""

    logp: np.ndarray
    logit: np.ndarray
    length: np.ndarray


def single_responses(rows: Sequence[TokenizedRow], labels: Sequence[int]) -> list[TokenizedRow]:
    """A row for each completion that has one of the labels: the responses."""
    return [replace(row, completions=(one,)) for row in rows for one in row.completions if one.label in labels]


def score(
    policy: Policy, responses: Sequence[TokenizedRow], max_tokens: int = 2048, progress: str | None = None
) -> TokenScores:
    """Log-probs and logits of the responses' tokens; logits are the model's final ones, scaled and capped as it does.

    `responses` as `single_responses` gives them, `max_tokens` of a micro-batch. Nothing of the size tokens x vocabulary
    is made but for the shortest response with its prompt, on which head and model are compared. Raises `PolicyError`
    where they differ, and where a value is not finite.
    """
    tokens = PADDED.lengths_of(responses, (1, -1))
    plan = StepPlan(tokens, max(len(responses), 1), max_tokens)
    device = next(policy.causal_lm.parameters()).device
    found: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    shortest = sorted(range(len(responses)), key=lambda i: tokens[i])[:1]
    _check_logits(policy, PADDED.batch([responses[i] for i in shortest], (1, -1)))
    with Progress(len(responses), progress, "response") as bar:
        for places in plan.micro_batches(0, 0):
            batch = PADDED.batch([responses[i] for i in places], (1, -1)).to(device)
            lengths = batch.length.tolist()
            logps, logits = (values.cpu().split(lengths) for values in _scores(policy, batch))
            for place, logp, logit in zip(places, logps, logits, strict=True):
                if not (logp.isfinite().all() and logit.isfinite().all()):
                    raise PolicyError(
                        f"source {policy.source!r}: log-probs and logits must be finite, got some that are "
                        f"not, of {responses[place].source}"
                    )
                found[place] = logp.float().numpy(), logit.float().numpy()
            bar.update(len(places))
    in_order = [found[i] for i in range(len(responses))]
    empty = np.zeros(0, dtype=np.float32)
    return TokenScores(
        np.concatenate([empty, *(logp for logp, _ in in_order)]),
        np.concatenate([empty, *(logit for _, logit in in_order)]),
        np.array([len(logp) for logp, _ in in_order], dtype=np.int64),
    )


def _scores(policy: Policy, batch: MicroBatch) -> tuple[Tensor, Tensor]:
    with evaluating(policy), torch.autocast(batch.target.device.type, enabled=False):
        states = policy.body(**policy.model_inputs(batch), use_cache=False).last_hidden_state
        hidden, head = states.flatten(0, 1)[batch.position], policy.head()
        return token_logps(hidden, batch.target, head).logps, target_logits(hidden, batch.target, head)


def _check_logits(policy: Policy, batch: MicroBatch) -> None:
    """The head's logits against the model's own: log-probs alone would not show a constant between them."""
    batch = batch.to(next(policy.causal_lm.parameters()).device)
    with evaluating(policy):
        own = policy.causal_lm(**policy.model_inputs(batch), use_cache=False).logits
    own = own.flatten(0, 1)[batch.position].float()
    logps, logits = _scores(policy, batch)
    worst = max(
        (own.gather(-1, batch.target[:, None]).squeeze(-1) - logits).abs().max().item(),
        (own.log_softmax(-1).gather(-1, batch.target[:, None]).squeeze(-1) - logps).abs().max().item(),
    )
    if not worst <= policy.tolerance:
        raise PolicyError(
            "source must be a model whose logits are a linear layer's, scaled or soft-capped, got "
            f"{policy.source!r}, whose own differ by {worst:.3g}"
        )


def token_shifts(policy: TokenScores, reference: TokenScores) -> TokenShifts:
    """Policy minus reference. Raises `Refusal` where they are not of the same responses."""
    if not np.array_equal(policy.length, reference.length):
        raise Refusal("policy and reference must be scores of the same responses, got different ones")
    return TokenShifts(policy.logps - reference.logps, policy.logits - reference.logits, policy.length)


def response_shifts(shifts: TokenShifts) -> pd.DataFrame:
    """One line a response, in order: `tokens`, and the columns named in `MEASURES`."""
    ends = shifts.length.cumsum()[:-1]
    rows: list[dict[str, Any]] = []
    for logp, logit in zip(np.split(shifts.logp, ends), np.split(shifts.logit, ends)):
        logp, logit = logp.astype(np.float64), np.abs(logit.astype(np.float64))
        rows.append(
            {
                "tokens": len(logp),
                "logp_shift": logp.sum(),
                "logit_shift": logit.sum(),
                "logp_shift_per_token": logp.mean(),
                "logit_shift_per_token": logit.mean(),
                "gini_logit": gini(logit),
                "gini_logp": gini(np.abs(logp)),
            }
        )
    return pd.DataFrame(rows)


def gini(values: np.ndarray) -> float:
    """The Gini coefficient (Gini 1912) of numbers >= 0: 0 where all are equal, (n - 1) / n where one has it all.

    It is half the mean absolute difference of two of them (drawn with replacement) over their mean; 0 where all are 0.
    Raises `Refusal` for negative numbers and for none.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if not len(ordered) or not ordered[0] >= 0:
        raise Refusal(f"values must be one or more numbers >= 0, got {values!r}")
    total, n = ordered.sum(), len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / (n * total)) if total > 0 else 0.0


def bin_edges(shifts: np.ndarray) -> np.ndarray:
    """The nine deciles (10 %, ..., 90 %) of token shifts: (9,), which bound ten bins, open at both ends."""
    return np.quantile(shifts.astype(np.float64), np.arange(1, BINS) / BINS)


def bin_shares(shifts: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The share of token shifts in each bin, an upper edge belonging to the bin below it: (10,), summing to 1."""
    counts = np.bincount(np.searchsorted(edges, shifts, side="left"), minlength=len(edges) + 1)
    return counts / max(len(shifts), 1)


def summary(responses: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Mean of every measure and policy, with a bootstrap 95 % interval over responses.

    `responses`: a table of `response_shifts` with a column `policy`. Columns: policy, measure, n, mean, low, high.
    """
    rows = []
    for policy, own in responses.groupby("policy", sort=False):
        for measure in MEASURES:
            values = own[measure].to_numpy()
            low, high = paired_bootstrap(values, seed, resamples=2000)
            rows.append([policy, measure, len(values), float(values.mean()), low, high])
    return pd.DataFrame(rows, columns=["policy", "measure", "n", "mean", "low", "high"])


def paired_summary(responses: pd.DataFrame, of: str, seed: int = 0) -> pd.DataFrame:
    """What the policy `of` has more than each other policy in every measure, paired by prompt (row and label): the mean
    with a bootstrap 95 % interval over prompts. Prompts that are hard for all then do not widen it.

    Takes what `summary` takes, and gives its columns. Raises `Refusal` where policies answered different rows.
    """
    tables = {policy: own.set_index(["id", "label"]) for policy, own in responses.groupby("policy", sort=False)}
    if of not in tables:
        raise Refusal(f"of must be one of {', '.join(tables)}, got {of!r}")
    first, rows = tables[of], []
    for policy, own in tables.items():
        if policy == of:
            continue
        if not first.index.is_unique or len(own) != len(first) or set(own.index) != set(first.index):
            raise Refusal(f"{policy}: responses must be to the rows of {of}, each once, got others")
        for measure in MEASURES:
            values = (first[measure] - own[measure].reindex(first.index)).to_numpy()
            low, high = paired_bootstrap(values, seed, resamples=2000)
            rows.append([policy, measure, len(values), float(values.mean()), low, high])
    return pd.DataFrame(rows, columns=["policy", "measure", "n", "mean", "low", "high"])


def bin_table(shifts: Mapping[str, TokenShifts], of: str) -> pd.DataFrame:
    """Shares of each policy's log-likelihood token shifts in the percentile bins of the policy `of`.

    Columns: policy, bin (1: the tokens that fell most, ..., 10), above, up_to (nats; the bin's bounds), share.
    """
    edges = bin_edges(shifts[of].logp)
    bounds = np.concatenate([[-np.inf], edges, [np.inf]])
    return pd.DataFrame(
        [
            [policy, k + 1, float(bounds[k]), float(bounds[k + 1]), float(share)]
            for policy, own in shifts.items()
            for k, share in enumerate(bin_shares(own.logp, edges))
        ],
        columns=["policy", "bin", "above", "up_to", "share"],
    )
