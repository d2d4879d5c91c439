"""What is dropped under which rule, and what trimming leaves, on rows of counted tokens."""

import pytest

from lightning_bnf.datamodules.reading.errors import ALIKE, Unfit
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.truncation import NOTHING_LEFT, PROMPT_OVER_LIMIT, PROMPT_TOO_LONG, TOO_LONG, fit

BOS = 1


def row(prompt: int, *answers: int, untrained: int = 0) -> TokenizedRow:
    """A prompt 100, 101, ... and answers 200, 201, ... of so many tokens; the first `untrained` are not trained."""
    return TokenizedRow(
        id="0" * 16,
        source="train.jsonl:1",
        format="paired",
        prompt_ids=list(range(100, 100 + prompt)),
        completions=tuple(
            TokenizedCompletion(
                list(range(200, 200 + n)), [i >= untrained for i in range(n)], label=1, numbers={"reward": 0.5}
            )
            for n in answers
        ),
    )


@pytest.mark.parametrize(
    ("prompt", "answer", "max_prompt_length", "rule"),
    [
        (6, 4, None, None),  # 10 tokens, the limit
        (6, 5, None, TOO_LONG),
        (10, 1, None, TOO_LONG),
        (11, 1, None, PROMPT_TOO_LONG),
        (5, 5, 5, None),
        (6, 1, 5, PROMPT_OVER_LIMIT),
        (5, 6, 5, TOO_LONG),
    ],
)
def test_rows_over_a_limit_of_10_are_dropped(
    prompt: int, answer: int, max_prompt_length: int | None, rule: str | None
) -> None:
    options = DataOptions(max_length=10, max_prompt_length=max_prompt_length)
    long = row(prompt, 1, answer)  # the longest answer counts
    if rule is None:
        assert fit(long, options) is long
        return
    with pytest.raises(Unfit, match=r"must be at most (10|5) tokens, got \d+$") as caught:
        fit(long, options)
    assert caught.value.rule == rule


@pytest.mark.parametrize(
    ("prompt", "answers", "max_prompt_length", "kept", "kept_answers"),
    [
        (6, (4, 2), None, range(100, 106), (4, 2)),  # fits
        (8, (4, 2), None, range(102, 108), (4, 2)),  # the prompt loses its first two
        (20, (4, 2), None, range(114, 120), (4, 2)),
        (8, (9, 2), None, range(103, 108), (5, 2)),  # down to half of 10, then the answer loses its end
        (2, (9, 7), None, range(100, 102), (8, 7)),  # a prompt that is short already stays whole
        (8, (2, 1), 3, range(105, 108), (2, 1)),
        (8, (9, 1), 3, range(105, 108), (7, 1)),
    ],
)
def test_trim(
    prompt: int, answers: tuple[int, ...], max_prompt_length: int | None, kept: range, kept_answers: tuple[int, ...]
) -> None:
    found = fit(row(prompt, *answers), DataOptions(10, max_prompt_length, truncation="trim"))
    assert found.prompt_ids == list(kept)
    # Cut at the right, and no end of turn is forged: the ids are the first ones of the answer as it was.
    assert [completion.ids for completion in found.completions] == [list(range(200, 200 + n)) for n in kept_answers]
    assert [len(completion.completion_mask) for completion in found.completions] == list(kept_answers)
    assert [completion.numbers["reward"] for completion in found.completions] == [0.5] * len(answers)


def test_trim_keeps_a_bos_at_the_front() -> None:
    long = row(8, 6)
    long.prompt_ids[0] = BOS
    assert fit(long, DataOptions(10, truncation="trim"), bos_id=BOS).prompt_ids == [BOS, 104, 105, 106, 107]
    long.prompt_ids[4] = BOS  # here it marks turns, as in ChatML
    assert fit(long, DataOptions(10, truncation="trim"), bos_id=BOS).prompt_ids == [103, BOS, 105, 106, 107]


def test_a_trimmed_answer_has_a_trained_token_or_its_row_is_dropped() -> None:
    options = DataOptions(10, truncation="trim")
    assert fit(row(8, 9, untrained=4), options).completions[0].completion_mask == [False] * 4 + [True]
    with pytest.raises(Unfit, match="the first 5 are kept") as caught:
        fit(row(8, 9, untrained=5), options)
    assert caught.value.rule == NOTHING_LEFT


def test_answers_that_are_the_same_up_to_the_cut_are_no_pair() -> None:
    with pytest.raises(Unfit, match="must be two answers, got the same tokens for both") as caught:
        fit(row(2, 9, 8), DataOptions(10, truncation="trim"))
    assert caught.value.rule == ALIKE


def test_prompts_alone() -> None:
    assert fit(row(10), DataOptions(10)).prompt_ids == list(range(100, 110))
    assert fit(row(11), DataOptions(10, truncation="trim")).prompt_ids == list(range(101, 111))
