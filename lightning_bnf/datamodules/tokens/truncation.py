"""Rows within the length limits: what is dropped, under which rule, and what `truncation: trim` cuts."""

from dataclasses import replace

from lightning_bnf.datamodules.reading.errors import Unfit
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow, refuse_alike

PROMPT_OVER_LIMIT = "prompt longer than max_prompt_length"
PROMPT_TOO_LONG = "prompt longer than max_length"
TOO_LONG = "longer than max_length"
NOTHING_LEFT = "no trained token left after trimming"
OF_LENGTH = frozenset({PROMPT_OVER_LIMIT, PROMPT_TOO_LONG, TOO_LONG, NOTHING_LEFT})


def fit(row: TokenizedRow, options: DataOptions, bos_id: int | None = None) -> TokenizedRow:
    """The row itself, or with `truncation: trim` what is left of it. Raises `Unfit` for a row to be dropped."""
    prompt = len(row.prompt_ids)
    answer = max((len(completion.ids) for completion in row.completions), default=0)
    limit = options.max_length if options.max_prompt_length is None else options.max_prompt_length
    if options.truncation == "drop":
        if prompt > limit:
            rule = PROMPT_TOO_LONG if options.max_prompt_length is None else PROMPT_OVER_LIMIT
            raise Unfit(rule, f"the prompt must be at most {limit} tokens, got {prompt}")
        if prompt + answer > options.max_length:
            raise Unfit(
                TOO_LONG, f"prompt and completion must be at most {options.max_length} tokens, got {prompt + answer}"
            )
        return row
    prompt = min(prompt, limit)
    if prompt + answer > options.max_length:
        prompt = max(min(prompt, options.max_length // 2), options.max_length - answer)
    room = options.max_length - prompt
    if prompt == len(row.prompt_ids) and answer <= room:
        return row
    # Cut from the right and nothing appended: a trimmed answer must not teach the policy to stop there.
    completions = tuple(
        replace(completion, ids=completion.ids[:room], completion_mask=completion.completion_mask[:room])
        for completion in row.completions
    )
    if not all(any(completion.completion_mask) for completion in completions):
        raise Unfit(NOTHING_LEFT, f"of {answer} completion tokens the first {room} are kept, and none is trained")
    refuse_alike(row.format, completions)  # answers that differ behind the cut only
    return replace(row, prompt_ids=_last(row.prompt_ids, prompt, bos_id), completions=completions)


def _last(ids: list[int], count: int, bos_id: int | None) -> list[int]:
    """The last `count` ids; a BOS at the front stays, for many models know no text without it."""
    kept = ids[len(ids) - count :]
    return [ids[0], *kept[1:]] if ids[0] == bos_id and ids.count(ids[0]) == 1 and count > 1 else kept
