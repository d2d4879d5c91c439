"""The layout that is chosen, and the budget of a micro-batch for a model whose memory is made up."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from support.architectures import long_rows, policy_of, row
from support.fitted import ROWS, smallest
from torch import nn

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PACKED_SHARED, PADDED, SHARED_PROMPT
from lightning_bnf.losses import BNF
from lightning_bnf.policies import FullPolicy, base
from lightning_bnf.training.fitting import PolicyFitting, check_rows, choose_layout, extremes
from lightning_bnf.training.optimization import Optimization


@pytest.fixture
def policy() -> FullPolicy:
    return smallest()


@pytest.mark.parametrize("architecture", ["Mistral", "Gemma3Text", "Llama"])
def test_masks_hold_the_windows_of_the_layers(architecture: str) -> None:
    """Of 8 tokens, in all layers of Mistral and one of Gemma-3's two kinds; Llama does not heed the field, so that the
    mask is wrong for it, which is found."""
    policy = policy_of(architecture, sliding_window=8)
    right = PADDED if architecture == "Llama" else SHARED_PROMPT
    assert choose_layout("auto", policy, long_rows(), (1, -1)) is right
    assert choose_layout("auto", policy, long_rows(), (1,)) is PADDED, "one completion a row has nothing to share"


@pytest.mark.parametrize("layout", ["auto", "shared_prompt"])
def test_a_layout_that_changes_the_numbers_falls_back_or_is_refused(
    layout: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    policy = policy_of("Mistral", sliding_window=8)
    monkeypatch.setattr(base, "windows_of", lambda _: {})
    if layout == "auto":
        with caplog.at_level("INFO"):
            assert choose_layout(layout, policy, long_rows(), (1, -1)) is PADDED
        assert "Layout padded, not shared_prompt, with which this model's log-probs differ by" in caplog.text
    else:
        with pytest.raises(DataError, match=r"layout must be 'padded' .* got 'shared_prompt', .* log-probs differ by"):
            choose_layout(layout, policy, long_rows(), (1, -1))


@pytest.mark.parametrize("several", [True, False])
def test_a_longest_sequence_in_a_row_of_few_tokens_is_tried(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A window of 48 tokens shows in a sequence of 50 alone, not in 60 tokens of a prompt and three answers; it may
    stand in a pair, or be a single answer beside pairs."""
    policy = policy_of("Mistral", sliding_window=48)
    monkeypatch.setattr(base, "windows_of", lambda _: {})
    ids = torch.randint(3, 60, (60,), generator=torch.Generator().manual_seed(1)).tolist()
    most = row("most", ids[:21], *((ids[21 + 13 * k : 34 + 13 * k], 1) for k in range(3)))
    longest = row("long", ids[:10], (ids[10:50], 1), *([(ids[:2], -1)] if several else []))
    assert choose_layout("auto", policy, [most], (1, -1)) is PACKED_SHARED
    for rows in ([most, longest], [longest, most]):
        assert choose_layout("auto", policy, rows, (1, -1)) is PADDED


def test_the_rows_that_are_tried() -> None:
    """Tokens of prompt and completions: the longest sequence of pairs has 30 + 20, most tokens 20 + 25 + 25, and 60 of
    a prompt are more than a quarter above; of single answers the longest is 5 + 90, beside which no other is tried."""
    sizes = {
        "sequence": (30, 20, 1),
        "tokens": (20, 25, 25),
        "prompt": (45, 1, 1),
        "completion": (1, 33, 1),
        "alike": (31, 2, 18),
        "single": (5, 90),
        "single too": (4, 89),
        "shortest": (1, 1),
        "without": (400,),
    }
    rows = [
        row(name, [5] * prompt, *(([7] * n, 1) for n in completions)) for name, (prompt, *completions) in sizes.items()
    ]
    shortest, others = extremes(rows, SHARED_PROMPT, (1,))
    assert shortest is not None
    assert shortest.id == "shortest"
    assert [one.id for one in others] == ["single", "sequence", "prompt", "tokens", "completion"]
    assert extremes(rows, SHARED_PROMPT, (-1,)) == (None, [])


def test_a_model_that_is_wrong_in_a_batch_is_refused_in_every_layout() -> None:
    policy = policy_of("Llama")
    layer = policy.causal_lm.base_model.layers[0]  # type: ignore[union-attr,index]
    layer.register_forward_hook(lambda _, __, output: output * (1 + 0.1 * (output.shape[0] > 1)))  # type: ignore[operator]
    for name in ("auto", "padded", "packed", "shared_prompt"):
        with pytest.raises(
            DataError, match="source must be a model that scores a sequence in a batch as it does alone"
        ):
            choose_layout(name, policy, long_rows(), (1, -1))  # type: ignore[arg-type]


def test_layout_and_budget_are_found_inside_the_runs_precision(policy: FullPolicy) -> None:
    cast: list[bool] = []
    policy.causal_lm.base_model.register_forward_hook(lambda *_: cast.append(torch.is_autocast_enabled("cpu")))
    context = partial(torch.autocast, "cpu", torch.bfloat16)
    fits = PolicyFitting(policy, Optimization(1e-6), None, context)
    layout = fits.layout("auto", ROWS[:3], (1, -1))
    assert cast
    assert all(cast)
    cast.clear()
    fits.budget(ROWS[:3], layout, BNF(), 3)
    assert cast
    assert all(cast)


def test_ids_that_the_model_does_not_know_are_refused(policy: FullPolicy) -> None:
    """A vocabulary of 10: the tokenizer's token 10 has no embedding."""
    check_rows(policy, ROWS, (1, -1))
    last = replace(ROWS[0], source="x:9", prompt_ids=[10, 3])
    with pytest.raises(
        DataError, match=r"^x:9: token ids must be below 10, the model's vocabulary, got 10: the tokenize"
    ):
        check_rows(policy, [*ROWS, last], (1, -1))


def test_rows_beyond_the_models_positions_are_counted_or_refused(
    policy: FullPolicy, recwarn: pytest.WarningsRecorder
) -> None:
    """All 16 of 256 tokens: 256 positions are enough. Learned ones end there; computed ones go on."""
    policy.causal_lm.config.max_position_embeddings = 256
    check_rows(policy, ROWS, (1, -1))
    assert not len(recwarn)
    policy.causal_lm.config.max_position_embeddings = 255
    told = r"16 of 16 rows, such as x:0 of 256 tokens"
    with pytest.warns(UserWarning, match=f"^{told}, are longer than the 255 positions that 'tiny' was made for"):
        check_rows(policy, ROWS, (1, -1))
    policy.causal_lm.model.positions = nn.Embedding(255, 8)
    with pytest.raises(
        DataError, match=rf"max_length must be at most 255, the positions that 'tiny' has learned, got {told}"
    ):
        check_rows(policy, ROWS, (1, -1))
