"""How often a policy's completions pass their verifiers, greedy and sampled, and how that changed between two policies.

Both ways of decoding are reported, because training on a policy's own samples lowers its entropy: that alone makes
samples pass more often, while greedy completions stay what they were. A completion that does not end within its
prompt's `max_new_tokens` fails.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.rows import as_rows
from lightning_bnf.evaluation.statistics.intervals import paired_bootstrap, wilson
from lightning_bnf.evaluation.verify import VerifierError, check_verifier, verify
from lightning_bnf.generation.sampling import Sampling, batches, generate_with_lengths
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal


@dataclass(frozen=True)
class VerifiedPrompt:
    """A prompt (token ids) with the means to tell whether a completion passes."""

    prompt_id: str
    family: str
    prompt_ids: list[int]
    verifier: dict[str, Any]
    max_new_tokens: int
    kept_out: bool = False

    @property
    def groups(self) -> tuple[str, str]:
        return ("kept-out" if self.kept_out else "trained", self.family)


@dataclass(frozen=True)
class Record:
    """One completion of one prompt. `decoding` is greedy or sampled, `length` counts tokens with the end of turn."""

    prompt_id: str
    groups: tuple[str, str]
    decoding: str
    text: str
    score: float
    passed: bool
    length: int
    finished: bool


@dataclass(frozen=True)
class Rate:
    """A group's pass rate with its Wilson 95 % interval, and its mean length in tokens."""

    group: str
    decoding: str
    n: int
    rate: float
    low: float
    high: float
    length: float


@dataclass(frozen=True)
class Change:
    """A group's pass rate before and after on the same prompts; `low` to `high` is the change's 95 % interval."""

    group: str
    decoding: str
    n: int
    before: float
    after: float
    change: float
    low: float
    high: float


def verified_prompts(rows: Sequence[TokenizedRow], max_new_tokens: int = 128) -> list[VerifiedPrompt]:
    """The prompts of the rows that carry a verifier, once each; `max_new_tokens` is for rows that state none.

    Raises `VerifierError` for a verifier that does not exist or does not take its arguments, and where two rows of one
    prompt disagree on how it is verified or whether it is kept out.
    """
    found: dict[tuple[int, ...], VerifiedPrompt] = {}
    held = as_rows(rows)
    for row in map(held.row, np.flatnonzero(held.columns.verified).tolist()):
        assert row.verifier is not None
        try:
            check_verifier(dict(row.verifier))
        except VerifierError as error:
            raise VerifierError(f"{row.source}: {error}") from None
        prompt = VerifiedPrompt(
            row.prompt_id or "",
            row.family or "no family",
            row.prompt_ids,
            dict(row.verifier),
            row.max_new_tokens or max_new_tokens,
            row.kept_out,
        )
        first = found.setdefault(tuple(row.prompt_ids), replace(prompt, prompt_id=prompt.prompt_id or row.id))
        if first != replace(prompt, prompt_id=first.prompt_id):
            raise VerifierError(
                f"{row.source}: verifier, family, max_new_tokens and kept_out must be the same in all rows of a "
                "prompt, "
                "got others in another row"
            )
    return list(found.values())


def complete_and_verify(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[VerifiedPrompt],
    temperature: float = 0.8,
    seed: int = 0,
    batch_size: int = 128,
    progress: str | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Record]:
    """One greedy and one sampled completion of every prompt, verified; in the prompts' order, all greedy ones first.

    `temperature` is that of the sampled ones, `batch_size` counts completions. With `progress`, one bar of that name.
    `stop` is asked after every token; once it says yes there are no records.
    """
    for prompt in prompts:
        check_verifier(prompt.verifier)  # before the minutes of generation, not after them
    ways = {"greedy": 0.0, "sampled": temperature} if temperature > 0 else {"greedy": 0.0}
    found: dict[tuple[str, int], Record] = {}
    bar = Progress(len(ways) * len(prompts), progress, "completion")
    with bar:
        for decoding, heat in ways.items():
            for limit in sorted({prompt.max_new_tokens for prompt in prompts}):
                mine = [index for index, prompt in enumerate(prompts) if prompt.max_new_tokens == limit]
                sampling = Sampling(heat, limit, seed=seed, batch_size=batch_size)
                for batch in batches([prompts[index].prompt_ids for index in mine], sampling):
                    places = [mine[index] for index in batch]
                    ids = [prompts[index].prompt_ids for index in places]
                    rows = generate_with_lengths(model, tokenizer, ids, sampling, stop=stop)
                    if stop is not None and stop():
                        return []
                    for index, row in zip(places, rows, strict=True):
                        prompt, one = prompts[index], row[0]
                        score = verify(one.text, prompt.verifier)
                        passed = one.finished and score == 1.0
                        found[decoding, index] = Record(
                            prompt.prompt_id, prompt.groups, decoding, one.text, score, passed, one.length, one.finished
                        )
                    bar.update(len(batch))
    return [found[decoding, index] for decoding in ways for index in range(len(prompts))]


def pass_rates(records: Iterable[Record]) -> list[Rate]:
    """The rate of every group and decoding: trained and kept-out first, then the families in alphabetical order."""
    return [
        Rate(
            group,
            decoding,
            len(mine),
            float(np.mean([record.passed for record in mine])),
            *wilson(sum(record.passed for record in mine), len(mine)),
            length=float(np.mean([record.length for record in mine])),
        )
        for (group, decoding), mine in grouped(records).items()
    ]


def pass_rate_changes(
    before: Iterable[Record], after: Iterable[Record], seed: int = 0, resamples: int = 10_000
) -> list[Change]:
    """What changed, group by group; both sides must hold the same prompts.

    The interval is a paired bootstrap over prompts (percentiles of `resamples` draws): prompts are the same on both
    sides, so their difficulty cancels.
    """
    earlier, later = grouped(before), grouped(after)
    if list(earlier) != list(later):
        raise Refusal(
            f"the groups must be the same before and after, got {sorted(set(earlier) ^ set(later))} in one only"
        )
    changes = []
    for key, first in earlier.items():
        old, new = ({one.prompt_id: one.passed for one in records} for records in (first, later[key]))
        if old.keys() != new.keys() or len(old) != len(first) or len(new) != len(later[key]):
            raise Refusal(
                f"group {key[0]!r} ({key[1]}): prompts must be the same before and after, once each, got others"
            )
        difference = np.array([float(new[prompt]) - float(old[prompt]) for prompt in sorted(old)])
        low, high = paired_bootstrap(difference, seed, resamples)
        rates = float(np.mean(list(old.values()))), float(np.mean(list(new.values())))
        changes.append(Change(*key, len(old), *rates, float(difference.mean()), low, high))
    return changes


def grouped(records: Iterable[Record]) -> dict[tuple[str, str], list[Record]]:
    """The records of every (group, decoding): trained and kept-out first, then the families in alphabetical order."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        for group in record.groups:
            groups.setdefault((group, record.decoding), []).append(record)
    first = {"trained": 0, "kept-out": 1}
    return dict(sorted(groups.items(), key=lambda item: (first.get(item[0][0], 2), item[0])))
