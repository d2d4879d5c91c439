"""The verb `analyze`: shifts of policies from their reference, as a JSON file and the paper's Figures 3 and 4."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.evaluation.shift_report import Shifts, write_shifts
from lightning_bnf.evaluation.shifts import (
    TokenScores,
    bin_table,
    response_shifts,
    score,
    single_responses,
    token_shifts,
)
from lightning_bnf.generation.sampling import Sampling, generate_ids
from lightning_bnf.policies.base import Dtype, Policy
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import BUNDLED
from lightning_bnf.runtime.fingerprints import tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.runtime.ownership import check_claim, claim
from lightning_bnf.runtime.refusal import Refusal


def analyze(
    policies: dict[str, str],
    output: Path,
    responses: str | dict[str, str] | None = None,
    prompts: str | None = None,
    reference: str = BUNDLED,
    bins_of: str | None = None,
    labels: list[int] | None = None,
    limit: int | None = None,
    max_new_tokens: int = 512,
    max_tokens: int = 2048,
    dtype: Dtype = "float32",
    options: DataOptions | None = None,
) -> None:
    """Measure how far policies have moved from a reference: log-likelihood and logit shifts (Section 5.3 of the paper).

    Args:
        policies: name -> exported policy: a peft folder, a saved model's folder, a hub id.
        output: folder for shifts.json, shifts.png (Figure 3) and shift_bins.png (Figure 4): new, empty, or of this
            command, which replaces its own.
        responses: file of responses in any training format, or one for each policy (name -> file).
        prompts: file of prompts instead: every policy is measured on its own greedy responses, as in the paper.
        reference: model that the shifts are from: folder, hub id, or the bundled model.
        bins_of: policy whose token shifts define the ten percentile bins (the paper: DPO); null takes the first.
        labels: responses taken of labelled data, such as [1]; null takes all.
        limit: number of rows taken of each file, from its start; null takes all.
        max_new_tokens: tokens after which a greedy response is cut off.
        max_tokens: token budget of a micro-batch.
        dtype: type of all models' weights.
        options: how the files are read.
    """
    _check(policies, responses, prompts, bins_of, labels)
    check_claim("output", Path(output), "analyze")
    options = options or DataOptions()
    loaded = {name: exported(source, dtype) for name, source in policies.items()}
    base = exported(reference, dtype)
    _check_tokenizers(loaded, base)
    asked = _Asked(tuple(labels or (1, -1)), limit, max_new_tokens, max_tokens)
    given = responses if isinstance(responses, dict) else dict.fromkeys(policies, responses or prompts or "")
    data = {path: _rows(path, base, options, asked) for path in dict.fromkeys(given.values())}
    measured = _measure(loaded, {name: data[path] for name, path in given.items()}, asked, generate=prompts is not None)
    base = _ready(base)
    shifts = _shifts(base, measured, bins_of or next(iter(policies)), asked)
    result = {
        "reference": {"source": reference, **_identity(base)},
        "policies": {
            name: {"source": policies[name], "responses": given[name], **of_policy.identity}
            for name, of_policy in measured.items()
        },
        "settings": {
            "responses": "each policy's own, greedy" if prompts else "as given",
            **asked._asdict(),
            "dtype": dtype,
        },
        "versions": {name: version(name) for name in ("lightning_bnf", "torch", "transformers")},
    }
    claim("output", Path(output), "analyze")
    write_shifts(output, shifts, result)
    print(shifts.table.T.to_string())
    print(f"Shifts and figures are in {output}")


class _Asked(NamedTuple):
    labels: tuple[int, ...]
    limit: int | None
    max_new_tokens: int
    max_tokens: int


class _Measured(NamedTuple):
    responses: list[TokenizedRow]
    scores: TokenScores
    identity: dict[str, str]


def _measure(
    policies: dict[str, Policy], rows: Mapping[str, list[TokenizedRow]], asked: _Asked, generate: bool
) -> dict[str, _Measured]:
    """Each policy on its responses, one model in memory at a time: `policies` is emptied."""
    measured: dict[str, _Measured] = {}
    while policies:
        name = next(iter(policies))
        policy = _ready(policies.pop(name))
        if generate:
            responses = _own_responses(name, policy, rows[name], asked)
        else:
            responses = single_responses(rows[name], asked.labels)
        scores = score(policy, responses, asked.max_tokens, f"{name}: log-probs")
        measured[name] = _Measured(responses, scores, _identity(policy))
        del policy
    return measured


def _shifts(reference: Policy, measured: Mapping[str, _Measured], bins_of: str, asked: _Asked) -> Shifts:
    """What each policy's scores differ by from the reference's, by response and in bins of `bins_of`'s tokens."""
    by_token = {
        name: token_shifts(
            of_policy.scores,
            score(reference, of_policy.responses, asked.max_tokens, f"reference on {name}'s responses"),
        )
        for name, of_policy in measured.items()
    }
    tables = [_labelled(name, measured[name], response_shifts(shifts)) for name, shifts in by_token.items()]
    return Shifts(pd.concat(tables).reset_index(drop=True), bin_table(by_token, bins_of), bins_of)


def _check(
    policies: Mapping[str, str],
    responses: str | Mapping[str, str] | None,
    prompts: str | None,
    bins_of: str | None,
    labels: Sequence[int] | None,
) -> None:
    """What contradicts is refused before any model is loaded."""
    names = ", ".join(policies)
    if not policies:
        raise Refusal("policies must be one or more, as name: folder, got {}")
    if (responses is None) == (prompts is None):
        raise Refusal("responses and prompts must be given one without the other, got both or neither")
    if isinstance(responses, Mapping) and set(responses) != set(policies):
        raise Refusal(f"responses must be one file for all, or one each for {names}, got {', '.join(responses)}")
    if bins_of is not None and bins_of not in policies:
        raise Refusal(f"bins_of must be of {names}, got {bins_of!r}")
    if labels is not None and (not labels or not set(labels) <= {1, -1}):
        raise Refusal(f"labels must be [1], [-1], [1, -1] or null, got {labels}")


def _check_tokenizers(policies: Mapping[str, Policy], reference: Policy) -> None:
    right = tokenizer_fingerprints(reference.tokenizer)
    for name, policy in policies.items():
        own = tokenizer_fingerprints(policy.tokenizer)
        differing = [field for field in right if own[field] != right[field]]
        if differing:
            raise Refusal(
                f"policies must be trained from the reference, got {name!r}, whose {' and '.join(differing)} differs: "
                "the same response would be other tokens"
            )


def _rows(path: str, reference: Policy, options: DataOptions, asked: _Asked) -> list[TokenizedRow]:
    rows, report = load_rows(path, reference.tokenizer, options, reference.end_ids)
    print(report.head())
    return rows[: asked.limit]


def _ready(policy: Policy) -> Policy:
    policy.load()
    return policy.to("cuda" if torch.cuda.is_available() else "cpu")


def _own_responses(name: str, policy: Policy, rows: Sequence[TokenizedRow], asked: _Asked) -> list[TokenizedRow]:
    """The policy's greedy responses to the rows' prompts, once each, as the tokens that it generated."""
    once = list({tuple(row.prompt_ids): row for row in rows}.values())
    sampling = Sampling(0.0, asked.max_new_tokens, batch_size=32)
    ids = generate_ids(
        policy.loaded, policy.tokenizer, [row.prompt_ids for row in once], sampling, f"{name}: responses"
    )
    return [
        replace(row, completions=(TokenizedCompletion(own, [True] * len(own), 1),))
        for row, (own,) in zip(once, ids, strict=True)
    ]


def _identity(policy: Policy) -> dict[str, str]:
    return {"weights": weights_fingerprint(policy.loaded), **tokenizer_fingerprints(policy.tokenizer)}


def _labelled(name: str, own: _Measured, table: pd.DataFrame) -> pd.DataFrame:
    table.insert(0, "policy", name)
    table.insert(1, "id", [row.id for row in own.responses])
    table.insert(2, "label", [row.completions[0].label for row in own.responses])
    return table
