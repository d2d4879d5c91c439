"""A policy of a config alone, with no contents."""

from typing import Any

import pytest
from support.planned_steps import PARAMETERS, setting
from transformers import MixtralConfig

from lightning_bnf.costs.plan.step import step_cost
from lightning_bnf.policies import FullPolicy, PolicyError

pytestmark = pytest.mark.slow


def test_nothing_but_the_config_is_read(tiny_folder: str, tmp_path: Any) -> None:
    from shutil import copy

    copy(f"{tiny_folder}/config.json", tmp_path)
    policy = FullPolicy(str(tmp_path))
    assert step_cost(setting(policy)).model_state.parameters == PARAMETERS
    assert policy.model is None, "the policy itself stays as it was"


def test_mixtures_of_experts_are_planned_in_bfloat16_and_refused_otherwise(tmp_path: Any) -> None:
    """Each of 2 experts has 3 matrices of 32 x 32."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2}
    MixtralConfig(vocab_size=64, num_hidden_layers=1, num_local_experts=2, **sizes).save_pretrained(tmp_path)
    found = step_cost(setting(FullPolicy(str(tmp_path), dtype="bfloat16"))).model_state
    others = 2 * 64 * 32 + 2 * 32 * 32 + 2 * 32 * 16 + 2 * 32 + 3 * 32  # embeddings, head; attention; router; norms
    assert found.parameters == 2 * 3 * 32 * 32 + others
    with pytest.raises(PolicyError, match=r"mixture of experts in bfloat16 .* in torch.float32"):
        step_cost(setting(FullPolicy(str(tmp_path))))


def test_flex_attention_is_planned_as_what_transformers_chooses(tiny_folder: str) -> None:
    """Blocks of its masks depend on their contents, which a plan does not have."""
    found = [step_cost(setting(FullPolicy(tiny_folder, attention=name))) for name in (None, "flex_attention")]
    assert found[0] == found[1]
