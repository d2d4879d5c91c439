"""The layout that is chosen, and the budget of a micro-batch for a model whose memory is made up."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.architectures import long_rows, policy_of
from transformers import LlamaConfig, LlamaForCausalLM

from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.steps.layout import PADDED, SHARED_PROMPT, padded, shared_prompt
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.policies import FullPolicy
from lightning_bnf.training import fitting
from lightning_bnf.training.fitting import choose_layout

ROWS = [
    TokenizedRow(str(i), f"x:{i}", "unpaired", [5] * 200, (TokenizedCompletion([7] * 55 + [2], [True] * 56, 1),))
    for i in range(16)
]  # 256 tokens each, 4,096 in all


@pytest.fixture
def policy() -> FullPolicy:
    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    made = FullPolicy("tiny")
    made.model = LlamaForCausalLM(LlamaConfig(vocab_size=10, **small))
    return made


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch, policy: FullPolicy) -> Callable[..., tuple[int, list[int]]]:
    """(free bytes beside the optimizer's, bytes that n tokens take) -> the budget and the sizes that were tried."""

    def choose(
        free: float, bytes_of: Callable[[int], float], most: int = 10**6, step_rows: int = 16
    ) -> tuple[int, list[int]]:
        tried: list[int] = []
        state = 5_000

        def peak(run: Callable[[], None], device: torch.device) -> float:
            run()
            return bytes_of(tried[-1])

        monkeypatch.setattr(policy, "dry_step", lambda batch, _: tried.append(batch.inputs["input_ids"].numel()))
        monkeypatch.setattr(fitting, "taken_bytes", lambda _: 0)
        monkeypatch.setattr(fitting, "available_bytes", lambda _: (free + state) / fitting.SHARE_OF_FREE)
        monkeypatch.setattr(fitting, "peak_bytes", peak)
        monkeypatch.setattr(fitting, "MOST_TOKENS", {"cpu": most})
        return fitting.choose_budget(policy, ROWS, PADDED, (1, -1), True, step_rows, state), tried

    return choose


def test_the_budget_is_what_an_affine_peak_leaves(budget: Any) -> None:
    """1000 + 10 a token: 256 tokens take 3,560 and 512 take 6,120. 14,000 are free: 1,300 tokens, in 64s 1,280."""
    assert budget(14_000, lambda tokens: 1000 + 10 * tokens) == (1280, [256, 512, 1280])


def test_a_peak_that_bends_is_met_by_smaller_budgets(budget: Any) -> None:
    """n^2 / 100: 655 and 2,621, so the line promises 256 + (8,000 - 655) / 7.68 = 1,212, in 64s 1,152; its batch of
    four rows takes 10,486, more than the 8,000 that are free. Three quarters, 864, hold three rows: 5,898."""
    assert budget(8_000, lambda tokens: tokens**2 / 100) == (864, [256, 512, 1024, 768])


def test_no_more_than_the_data_hold_or_the_device_makes_use_of(budget: Any) -> None:
    assert budget(1e12, lambda tokens: 10 * tokens)[0] == 4096
    assert budget(1e12, lambda tokens: 10 * tokens, most=2048)[0] == 2048


def test_no_more_than_a_step_asks_for(budget: Any) -> None:
    """Three rows of 256 tokens: dry steps on more would take memory that the run itself never takes."""
    assert budget(1e12, lambda tokens: 10 * tokens, step_rows=3) == (768, [256, 512, 768])


def test_a_longest_row_that_does_not_fit_is_refused(budget: Any) -> None:
    with pytest.raises(DataError, match=r"the 1\.0 GB that are free .* got 256 tokens that take 2\.6 GB"):
        budget(1e9, lambda tokens: 1e7 * tokens)


def test_a_dry_step_changes_nothing(policy: FullPolicy) -> None:
    before = {name: value.clone() for name, value in policy.trainable().items()}
    for token_loss in (True, False):
        policy.dry_step(PADDED.batch(ROWS[:2], (1, -1)), token_loss)
        for name, parameter in policy.trainable().items():
            assert parameter.grad is None
            torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)


def test_a_window_shorter_than_a_row_is_found_out() -> None:
    """A mask of who sees whom replaces the model's own sliding window: wrong in silence, were it not measured."""
    policy = policy_of("Mistral", sliding_window=8)
    assert policy.distance(padded(long_rows()), shared_prompt(long_rows())) > 10 * policy.tolerance


@pytest.mark.parametrize("layout", ["auto", "shared_prompt"])
def test_a_layout_that_changes_the_numbers_falls_back_or_is_refused(layout: Any) -> None:
    policy = policy_of("Mistral", sliding_window=8)
    if layout == "auto":
        assert choose_layout(layout, policy, long_rows(), (1, -1)) is PADDED
    else:
        with pytest.raises(
            DataError,
            match=r"layout must be 'padded' .* got 'shared_prompt': .* log-probs differ by",
        ):
            choose_layout(layout, policy, long_rows(), (1, -1))
    policy.model = policy_of("Llama").model
    assert choose_layout(layout, policy, long_rows(), (1, -1)) is SHARED_PROMPT
    assert choose_layout(layout, policy, long_rows(), (1,)) is PADDED, "one completion a row has nothing to share"
