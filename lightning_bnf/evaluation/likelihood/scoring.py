"""Summed log-probs of rows' completions, and samples of the base that are drawn once and kept."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import Layout, layout_for
from lightning_bnf.datamodules.steps.plan import StepPlan, call_tokens_on
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, Material, sampled
from lightning_bnf.evaluation.likelihood.measures import Sums
from lightning_bnf.evaluation.pass_rates import VerifiedPrompt, complete_and_verify
from lightning_bnf.generation.sampling import Sampling, generate_ids
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.fitting import check_rows, choose_layout

LABELS = (1, -1)
Give = Callable[[MicroBatch], Tensor]
Context = Callable[[], AbstractContextManager[None]]


class Way(NamedTuple):
    """How rows become micro-batches: the layout of those whose prompts a chat template wrote, that of plain text, and
    tokens of a micro-batch at most."""

    templated: Layout
    plain: Layout
    max_tokens: int


def way_of(policy: Policy, rows: Sequence[TokenizedRow], max_tokens: int, context: Context = nullcontext) -> Way:
    """The layouts in which the loaded model scores these rows as it scores them alone: prompts once where it can, and
    so what all templated prompts begin with.

    Raises `DataError` for rows that it cannot take.
    """
    check_rows(policy, rows, LABELS)
    templated, plain = ([rows[i] for i in kind] for kind in _kinds(rows))
    with torch.no_grad(), context():
        first = choose_layout("auto", policy, templated, LABELS)
        return Way(first, choose_layout("auto", policy, plain, LABELS, known=bool(templated)), max_tokens)


def _kinds(rows: Sequence[TokenizedRow]) -> tuple[list[int], list[int]]:
    """The places of rows whose prompts a chat template wrote, and of plain text, before which there is BOS at most."""
    templated = [len(row.prompt_ids) > 1 for row in rows]
    return [i for i, one in enumerate(templated) if one], [i for i, one in enumerate(templated) if not one]


def cut(rows: Sequence[TokenizedRow], way: Way, device: torch.device) -> list[tuple[Layout, list[int]]]:
    """The places of the rows, in micro-batches, each with its layout."""
    found: list[tuple[Layout, list[int]]] = []
    calls = call_tokens_on(device.type)
    for kind, known in zip(_kinds(rows), (way.templated, way.plain)):
        some = [rows[i] for i in kind]
        layout = layout_for(known.name, some)
        lengths, count = layout.lengths_of(some, LABELS), max(len(some), 1)
        plan = StepPlan(lengths, count, way.max_tokens, packed=layout.packed, call_tokens=calls, common=layout.common)
        found += [(layout, [kind[i] for i in places]) for places in plan.micro_batches(0, 0)]
    return found


def summed_logps(
    give: Give, rows: Sequence[TokenizedRow], way: Way, device: torch.device, progress: str | None = None
) -> list[np.ndarray]:
    """For each row its completions' log-probs: (completions,) float64, in nats. `give`: a micro-batch -> the log-probs
    of its tokens (N,), on `device`.

    Raises `PolicyError` where one is not finite.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    with Progress(len(rows), progress, "row") as bar:
        for layout, places in cut(rows, way, device):
            batch = layout.batch([rows[i] for i in places], LABELS).to(device)
            sums = batch.completions(give(batch).double()).sum().cpu().numpy()
            if not np.isfinite(sums).all():
                raise PolicyError(
                    f"source must be a model of finite log-probs, got others of {rows[places[0]].source} and its like"
                )
            for i in places:
                count = len(rows[i].completions)
                found[i], sums = sums[:count], sums[count:]
            bar.update(len(places))
    return found


def giving(policy: Policy, context: Context = nullcontext) -> Give:
    """The policy's own log-probs, without gradients and dropout."""

    def give(batch: MicroBatch) -> Tensor:
        with evaluating(policy), context():
            return policy(batch).token_logps

    return give


def draw(
    policy: Policy, prompts: Sequence[TokenizedRow], asked: LikelihoodRows, progress: str | None = None
) -> list[list[int]]:
    """A sample of each prompt at temperature 1, from the whole distribution: what the distance is an average over."""
    sampling = Sampling(1.0, asked.max_new_tokens, seed=asked.seed)
    drawn = generate_ids(policy.loaded, policy.tokenizer, [row.prompt_ids for row in prompts], sampling, progress)
    return [ids for (ids,) in drawn]


def passed(policy: Policy, prompts: Sequence[VerifiedPrompt], progress: str | None = None) -> list[bool]:
    """Whether the policy's greedy answers pass the prompts' verifiers."""
    records = complete_and_verify(policy.loaded, policy.tokenizer, prompts, temperature=0.0, progress=progress)
    return [record.passed for record in records]


def kept_samples(
    asked: LikelihoodRows, prompts: Sequence[TokenizedRow], base: str, make: Callable[[], list[list[int]]]
) -> list[TokenizedRow]:
    """The samples that the file `asked.samples` holds, or those that `make` gives, which are then kept there.

    base: fingerprint of its weights. Raises `Refusal` where the file's samples were drawn from another base, of other
    prompts or otherwise.
    """
    if not prompts:
        return []
    path = None if asked.samples is None else Path(asked.samples)
    settings = {"max_new_tokens": asked.max_new_tokens, "seed": asked.seed}
    wanted = {"base": base, "prompts": content_hash([row.prompt_ids for row in prompts]), **settings}
    if path is not None and path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name, value in wanted.items() if held["drawn"].get(name) != value]
        if differing:
            raise Refusal(
                f"rows.samples must be a new file, or samples of this base and these prompts, got {path}, of another "
                f"{', '.join(differing)}"
            )
        ids = [[int(token) for token in one] for one in held["ids"]]
    else:
        ids = make()
        if path is not None:
            listed = ",\n".join(json.dumps(one) for one in ids)
            write_text(path, f'{{"drawn": {json.dumps(wanted)},\n"ids": [\n{listed}\n]}}\n', keep=True)
    return [sampled(row, one) for row, one in zip(prompts, ids, strict=True)]


def all_rows(of: Material, samples: Sequence[TokenizedRow] = ()) -> list[TokenizedRow]:
    """All rows with completions, in one list: they share micro-batches."""
    return [*(one.row for one in of.questions), *of.pairs, *of.prose, *samples]


def scored(
    give: Give,
    of: Material,
    samples: Sequence[TokenizedRow],
    way: Way,
    device: torch.device,
    progress: str | None = None,
) -> Sums:
    """What `give` has of the material and of the base's samples."""
    sums = summed_logps(give, all_rows(of, samples), way, device, progress)
    ends = np.cumsum([len(of.questions), len(of.pairs), len(of.prose)]).tolist()
    questions, pairs, prose, drawn = (sums[start:end] for start, end in zip([0, *ends], [*ends, len(sums)]))
    return Sums(questions, pairs, prose, drawn)


def rounded(found: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """For JSON: a ten thousandth of a nat is below what rounding does to sums of log-probs."""
    return {name: [round(float(one), 4) for one in some] for name, some in found.items()}
