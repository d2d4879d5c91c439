"""Conversations with tools under the chat templates of widely used models: what is trained of them."""

# ruff: noqa: RUF001 - DeepSeek's special tokens are written with wide bars
import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
from support.rows import assistant, user
from support.templates import CHATML, shown, with_template
from tokenizers import Regex, pre_tokenizers

from lightning_bnf.datamodules.reading.errors import Fault
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer

CALL = {"name": "add", "arguments": {"a": 3, "b": "four"}}
CALLS = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": CALL}]}
RESULT = {"role": "tool", "content": "result: 7"}
ADD = {"type": "object", "properties": {"a": {"type": "number", "description": "One."}}, "required": ["a"]}
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": ADD}}]
MESSAGES = [user("Use it: 3 + 4?"), CALLS, RESULT, assistant("It is seven.")]
JSON = '{"name": "add", "arguments": {"a": 3, "b": "four"}}'
HERMES = f"<tool_call>\n{JSON}\n</tool_call><|im_end|>"
GLM_CALL = (
    "<tool_call>add\n<arg_key>a</arg_key>\n<arg_value>3</arg_value>\n<arg_key>b</arg_key>\n<arg_value>four</arg_value>\n"
    "</tool_call>"
)
DEEPSEEK = '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>add\n```json\n{"a": 3, "b": "four"}\n```'

TRAINED = {
    "llama3_1": [JSON.replace("arguments", "parameters") + "<|eot_id|>", "It is seven.<|eot_id|>"],
    "qwen2_5": [HERMES, "It is seven.<|im_end|>"],
    "qwen2_5_training": [HERMES, "It is seven.<|im_end|>"],
    "qwen3": [HERMES, "<think>\n\n</think>\n\nIt is seven.<|im_end|>"],
    "qwen3_training": ["<think>\n\n</think>\n\n" + HERMES, "<think>\n\n</think>\n\nIt is seven.<|im_end|>"],
    "glm4moe": ["\n<think></think>\n" + GLM_CALL, "\n<think></think>\nIt is seven."],
    "glm4moe_training": [
        "\n<think></think>\n" + GLM_CALL + "<|observation|>",
        "\n<think></think>\nIt is seven.<|user|>",
    ],
    "gptoss": [
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 3, "b": "four"}<|call|>',
        "<|channel|>final<|message|>It is seven.<|return|>",
    ],
    "gptoss_training": [
        ' to=functions.add<|channel|>commentary json<|message|>{"a": 3, "b": "four"}<|call|>',
        "<|channel|>final<|message|>It is seven.<|return|>",
    ],
}
"""Template -> the trained texts, in their order: what the model writes of its turn with a call, and the end of it."""
ENDS = {"llama3": "<|eot_id|>", "qwen": "<|im_end|>", "cohere2": "<|END_OF_TURN_TOKEN|>", "gptoss": "<|return|>"}
SPECIAL = re.compile(
    r"<\|[\w ]+\|>|<｜[^｜]+｜>|\[gMASK\]|<sop>|</?(?:think|tool_call|tool_response|arg_key|arg_value)>"
)


def template_of(name: str) -> str:
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tokenizer_of(tokenizer: Any, name: str) -> Any:
    """The bundled tokenizer with a family's template, its special tokens and its end of a turn."""
    template = template_of(name)
    changed = with_template(tokenizer, template)
    changed.add_special_tokens({"additional_special_tokens": sorted(set(SPECIAL.findall(template)))})
    lines = pre_tokenizers.Split(Regex("\n+"), "isolated")  # as in these families: a line break merges with no text
    changed.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([lines, changed.backend_tokenizer.pre_tokenizer])
    family = next((family for family in ENDS if name.startswith(family)), "")
    changed.eos_token = ENDS.get(family, "<｜end▁of▁sentence｜>" if "deepseek" in name else "<|endoftext|>")
    return changed


def spans(row: Any, tokenizer: Any) -> list[str]:
    return re.findall("⟦(.*?)⟧", shown(row, tokenizer)[1], re.DOTALL)


@pytest.mark.parametrize("name", TRAINED)
def test_calls_and_answers_are_trained_and_results_are_not(tokenizer: Any, rows: Any, name: str) -> None:
    changed = tokenizer_of(tokenizer, name)
    (row,) = rows({"messages": MESSAGES, "tools": TOOLS})
    found = Renderer(changed).row(row)
    assert spans(found, changed) == TRAINED[name]
    assert "Adds." in shown(found, changed)[0], "the tools are part of the prompt"
    assert "result: 7" in shown(found, changed)[1]


@pytest.mark.parametrize("name", [name for name in TRAINED if name.endswith("_training")])
def test_the_mask_is_the_templates_own_where_it_marks_what_is_generated(tokenizer: Any, rows: Any, name: str) -> None:
    """Ours leaves out what generation is given of a turn, its header, and what is written behind its end."""
    changed = tokenizer_of(tokenizer, name)
    (row,) = rows({"messages": MESSAGES, "tools": TOOLS})
    renderer = Renderer(changed)
    found = renderer.row(row)
    with renderer.chat.clock.pinned():
        theirs = changed.apply_chat_template(
            MESSAGES, tools=TOOLS, return_dict=True, return_assistant_tokens_mask=True, tokenize=True
        )
    (completion,) = found.completions
    ids = found.prompt_ids + completion.ids
    ours = [False] * len(found.prompt_ids) + completion.completion_mask
    assert theirs["input_ids"][: len(ids)] == ids
    more = [token for token, mine, mask in zip(ids, ours, theirs["assistant_masks"]) if mask and not mine]
    assert not any(mine and not mask for mine, mask in zip(ours, theirs["assistant_masks"]))
    assert set(changed.decode(more).replace("<|start|>assistant", "").split()) == set()


def test_deepseeks_answer_behind_a_result_is_trained(tokenizer: Any, rows: Any) -> None:
    """Its calls take arguments as a string. It lets the model think first where a question was asked, which is no
    prefix of a conversation without thoughts, so its calls are refused as completions."""
    changed = tokenizer_of(tokenizer, "deepseekv3")
    (row,) = rows({"prompt": MESSAGES[:3], "completion": MESSAGES[3:]})
    found = Renderer(changed).row(row)
    assert DEEPSEEK in shown(found, changed)[0]
    assert shown(found, changed)[1] == "⟦It is seven.<｜end▁of▁sentence｜>⟧"
    (row,) = rows({"messages": MESSAGES})
    with pytest.raises(Fault, match="strict prefix"):
        Renderer(changed).row(row)


@pytest.mark.parametrize(
    ("name", "row", "lost"),
    [
        ("cohere2", {"messages": MESSAGES}, "calls and results"),
        ("cohere2", {"messages": [MESSAGES[0], MESSAGES[3]], "tools": TOOLS}, "tools; without them"),
        ("deepseekv3", {"prompt": MESSAGES[:3], "completion": MESSAGES[3:], "tools": TOOLS}, "tools; without them"),
    ],
)
def test_a_template_without_tools_is_refused(tokenizer: Any, rows: Any, name: str, row: Any, lost: str) -> None:
    (read,) = rows(row)
    with pytest.raises(Fault, match=lost):
        Renderer(tokenizer_of(tokenizer, name)).row(read)


def test_cohere2_ends_turns_with_two_tokens(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"messages": [MESSAGES[0], MESSAGES[3]]})
    changed = tokenizer_of(tokenizer, "cohere2")
    assert spans(Renderer(changed).row(row), changed) == ["It is seven.<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"]


def test_all_turns_trains_earlier_calls_too(tokenizer: Any, rows: Any) -> None:
    changed = tokenizer_of(tokenizer, "qwen2_5")
    (row,) = rows({"messages": [*MESSAGES, user("And 1 + 1?"), assistant("2")], "tools": TOOLS})
    assert spans(Renderer(changed, Rendering(train_on="all_turns")).row(row), changed) == [
        *TRAINED["qwen2_5"],
        "2<|im_end|>",
    ]
    assert spans(Renderer(changed).row(row), changed) == ["2<|im_end|>"]


def test_a_template_that_does_not_know_tools_is_refused_by_the_bundled_names(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"messages": MESSAGES})
    with pytest.raises(Fault, match="calls"):
        Renderer(with_template(tokenizer, CHATML)).row(row)
