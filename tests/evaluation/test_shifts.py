"""Shifts of policies from their reference: against full logits, closed forms, and numbers made by hand."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraConfig, get_peft_model
from support.models import tiny_llama_model
from support.training import Write
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2ForCausalLM, PreTrainedTokenizerBase

from lightning_bnf.datamodules.tokens.load import load_rows
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.evaluation import shifts
from lightning_bnf.evaluation.shifts import (
    TokenScores,
    TokenShifts,
    bin_edges,
    bin_shares,
    bin_table,
    gini,
    paired_summary,
    response_shifts,
    score,
    single_responses,
    summary,
    token_shifts,
)
from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.head.tiles import TILE_BYTES

pytestmark = pytest.mark.slow


def by_full_logits(model: torch.nn.Module, response: TokenizedRow) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probs and logits of one response's tokens, from the model's whole output."""
    (completion,) = response.completions
    with torch.no_grad():
        logits = model(torch.tensor([response.prompt_ids + completion.ids])).logits[0].double()
    before = logits[len(response.prompt_ids) - 1 : -1]
    at = torch.arange(len(completion.ids)), torch.tensor(completion.ids)
    return before.log_softmax(-1)[at], before[at]


def loaded(folder: Path | str) -> Policy:
    policy = exported(str(folder))
    policy.load()
    return policy


def check_against_full_logits(policy: Policy, responses: list[TokenizedRow]) -> None:
    """Micro-batches of 40 tokens, so of one or two responses each, the largest first: the order must be put back."""
    found = score(policy, responses, max_tokens=40)
    oracle = [by_full_logits(policy.loaded, one) for one in responses]
    assert found.length.tolist() == [len(one.completions[0].ids) for one in responses]
    np.testing.assert_allclose(found.logps, torch.cat([logps for logps, _ in oracle]), atol=2e-5)
    np.testing.assert_allclose(found.logits, torch.cat([logits for _, logits in oracle]), atol=2e-5)


def test_a_folder_and_an_adapter_against_full_logits(
    tmp_path: Path, tiny_folder: str, tokenizer: PreTrainedTokenizerBase, write_pairs: Write
) -> None:
    responses = single_responses(load_rows(write_pairs(), tokenizer)[0], (1, -1))
    assert len(responses) == 10
    check_against_full_logits(loaded(tiny_folder), responses)
    adapted = get_peft_model(
        tiny_llama_model(len(tokenizer)), LoraConfig(target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    adapted.peft_config["default"].base_model_name_or_path = tiny_folder
    adapted.save_pretrained(tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    check_against_full_logits(loaded(tmp_path / "adapter"), responses)
    other = score(loaded(tmp_path / "adapter"), responses)
    assert np.abs(token_shifts(other, score(loaded(tiny_folder), responses)).logit).max() > 0.1


def test_a_soft_capped_head_against_full_logits(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Gemma-2 caps its logits, here at 2: what counts is the capped logit."""
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        final_logit_softcapping=2.0,
        initializer_range=0.5,
    )
    Gemma2ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    responses = [response([5, 6, 7], [8, 9]), response([5], [300, 301, 302])]
    policy = loaded(tmp_path)
    check_against_full_logits(policy, responses)
    found = score(policy, responses)
    assert 1 < np.abs(found.logits).max() <= 2


def response(prompt: list[int], ids: list[int]) -> TokenizedRow:
    return TokenizedRow("", "made:1", "unpaired", prompt, (TokenizedCompletion(ids, [True] * len(ids), 1),))


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation gives."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return out


def test_no_tensor_of_tokens_by_vocabulary(tiny_folder: str) -> None:
    """1,200 tokens in one micro-batch and 49,152 words would be 59 million numbers; a tile has 33.6 million at most."""
    policy = loaded(tiny_folder)
    vocabulary = policy.causal_lm.config.vocab_size
    responses = [response([5], [6, 7]), *(response([5 + i], list(range(10, 310))) for i in range(4))]
    with LargestTensor() as largest:
        score(policy, responses, max_tokens=4000)
    assert 600 * vocabulary <= largest.elements <= TILE_BYTES // 4 < 1200 * vocabulary, "two tiles of 601 tokens"


def test_a_head_that_the_model_does_not_have_is_refused(tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A constant added to all logits leaves log-probs alone: only the logits themselves show it."""
    policy = loaded(tiny_folder)
    right = shifts.target_logits
    monkeypatch.setattr(shifts, "target_logits", lambda *given: right(*given) + 1.0)
    with pytest.raises(
        PolicyError, match=r"source must be a model whose logits are a linear layer's, .* whose own differ by 1"
    ):
        score(policy, [response([5], [6, 7])])


def test_what_is_not_finite_is_refused_with_its_row(tiny_folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = loaded(tiny_folder)
    monkeypatch.setattr(shifts, "_check_logits", lambda *_: None)
    policy.causal_lm.get_output_embeddings().weight.data[6] = float("nan")
    with pytest.raises(PolicyError, match=r"log-probs and logits must be finite, .* of made:1"):
        score(policy, [response([5], [6, 7])])


def test_only_responses_of_the_labels_are_taken() -> None:
    good, bad = TokenizedCompletion([1], [True], 1), TokenizedCompletion([2], [True], -1)
    rows = [TokenizedRow("a", "f:1", "paired", [5], (good, bad)), TokenizedRow("b", "f:2", "unpaired", [5], (bad,))]
    assert [one.completions for one in single_responses(rows, (1,))] == [(good,)]
    assert [one.completions for one in single_responses(rows, (1, -1))] == [(good,), (bad,), (bad,)]


def scores(logps: list[float], logits: list[float], length: list[int]) -> TokenScores:
    return TokenScores(np.float32(logps), np.float32(logits), np.array(length))


def test_measures_by_hand() -> None:
    """First response: shifts of log-probs +1, -2, of logits +1, -3: sums -1 and 4 (signs off), halves a token; Gini of
    (1, 3): mean absolute difference of two drawn (0, 2, 2, 0) is 1, half of it over the mean 2: 0.25; of (1, 2): 1/6.
    The second has one token."""
    policy = scores([-1, -4, -0.5], [3, 0, 7], [2, 1])
    reference = scores([-2, -2, -1], [2, 3, 5], [2, 1])
    first, second = response_shifts(token_shifts(policy, reference)).to_dict("records")
    assert first == pytest.approx(
        {
            "tokens": 2,
            "logp_shift": -1.0,
            "logit_shift": 4.0,
            "logp_shift_per_token": -0.5,
            "logit_shift_per_token": 2.0,
            "gini_logit": 0.25,
            "gini_logp": 1 / 6,
        }
    )
    assert second == pytest.approx(
        {
            "tokens": 1,
            "logp_shift": 0.5,
            "logit_shift": 2.0,
            "logp_shift_per_token": 0.5,
            "logit_shift_per_token": 2.0,
            "gini_logit": 0.0,
            "gini_logp": 0.0,
        }
    )


def test_other_responses_than_the_references_are_refused() -> None:
    with pytest.raises(ValueError, match="policy and reference must be scores of the same responses, got"):
        token_shifts(scores([-1], [1], [1]), scores([-1, -1], [1, 1], [2]))


@pytest.mark.parametrize("n", [1, 2, 10])
def test_gini_of_equals_and_of_one_holder(n: int) -> None:
    assert gini(np.full(n, 3.0)) == pytest.approx(0.0)
    assert gini(np.eye(n)[0]) == pytest.approx((n - 1) / n)
    assert gini(np.zeros(n)) == 0.0


def test_gini_of_known_distributions() -> None:
    """Uniform on [0, 1]: 1/3; exponential: 1/2; Pareto of shape 3: 1/(2*3 - 1). Of 200,000 drawn, to 0.005."""
    rng = np.random.default_rng(0)
    for sample, right in (
        (rng.uniform(size=200_000), 1 / 3),
        (rng.exponential(2.5, size=200_000), 1 / 2),
        (1 + rng.pareto(3.0, size=200_000), 1 / 5),
    ):
        assert gini(sample) == pytest.approx(right, abs=0.005)


def test_gini_is_half_the_mean_difference_over_the_mean() -> None:
    values = np.random.default_rng(1).exponential(size=50)
    slow = np.abs(values[:, None] - values[None, :]).mean() / (2 * values.mean())
    assert gini(values) == pytest.approx(slow, rel=1e-12)
    assert gini(7.0 * values[::-1]) == pytest.approx(slow, rel=1e-12), "neither unit nor order matter"


@pytest.mark.parametrize("values", [[], [1.0, -0.5], [float("nan")]])
def test_gini_of_negative_numbers_or_none_is_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="one or more numbers >= 0"):
        gini(np.array(values))


def test_the_defining_policy_has_a_tenth_in_every_bin() -> None:
    """1, 2, ..., 100: deciles at 10.9, 20.8, ...; shifts between 50.5 and 60.4 are in the sixth bin."""
    own = np.arange(1.0, 101.0)
    edges = bin_edges(own)
    assert edges[:2] == pytest.approx([10.9, 20.8])
    assert bin_shares(own, edges) == pytest.approx(np.full(10, 0.1))
    assert bin_shares(np.array([51.0, 60.0]), edges).tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert bin_shares(np.array([-1e9, 1e9]), edges).tolist() == [0.5, 0, 0, 0, 0, 0, 0, 0, 0, 0.5]
    assert bin_shares(edges, edges)[-1] == 0, "an edge belongs to the bin below it"


def test_the_table_of_bins() -> None:
    one = np.array([10])
    dpo = TokenShifts(np.arange(10.0), np.zeros(10), one)
    flat = TokenShifts(np.full(10, 4.6), np.zeros(10), one)
    table = bin_table({"flat": flat, "dpo": dpo}, "dpo")
    assert table[table["policy"] == "dpo"]["share"].tolist() == pytest.approx([0.1] * 10)
    (fullest,) = table[(table["policy"] == "flat") & (table["share"] > 0)].to_dict("records")
    assert (fullest["bin"], fullest["share"]) == (6, 1.0)
    assert (fullest["above"], fullest["up_to"]) == pytest.approx((4.5, 5.4))
    assert table["above"].iloc[0] == -np.inf
    assert table["up_to"].iloc[-1] == np.inf


def test_the_summary_has_means_and_intervals() -> None:
    table = response_shifts(TokenShifts(np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0]), np.array([1, 1, 1])))
    found = summary(table.assign(policy="a")).set_index("measure")
    assert found.loc["logp_shift", "mean"] == pytest.approx(2.0)
    assert 1.0 <= found.loc["logp_shift", "low"] < 2.0 < found.loc["logp_shift", "high"] <= 3.0
    assert (found.loc["logit_shift", ["n", "low", "high"]] == [3, 1.0, 1.0]).all()


def test_policies_are_paired_by_prompt() -> None:
    """b lies 1 above a on every row, in another order: paired, that is certain, however far apart the rows are."""
    table = response_shifts(TokenShifts(np.array([1.0, 5.0, 9.0]), np.array([1.0, 1.0, 1.0]), np.array([1, 1, 1])))
    first = table.assign(policy="a", id=["x", "y", "z"], label=1)
    second = table.assign(policy="b", id=["x", "y", "z"], label=1, logp_shift=table["logp_shift"] + 1)[::-1]
    found = paired_summary(pd.concat([first, second]), of="a").set_index(["policy", "measure"])
    assert set(found.index.get_level_values("policy")) == {"b"}
    assert found.loc[("b", "logp_shift"), ["n", "mean", "low", "high"]].tolist() == [3, -1.0, -1.0, -1.0]
    with pytest.raises(ValueError, match="b: responses must be to the rows of a, each once, got others"):
        paired_summary(pd.concat([first, second[:2]]), of="a")
    with pytest.raises(ValueError, match="of must be one of a, b, got 'c'"):
        paired_summary(pd.concat([first, second]), of="c")
