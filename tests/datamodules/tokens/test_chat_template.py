"""Chat templates: those of other families, and those that cannot be trained with."""

from typing import Any

import pytest
from support.rows import assistant, system, user
from support.templates import CHATML, GENERATION, LOOP, MISTRAL, NO_END_TOKEN, PAIR, TWO_ENDS, shown, with_template

from lightning_bnf.datamodules.reading.errors import DataError, Fault, Unfit
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer

GEMMA = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHATML


IGNORES_SYSTEM = CHATML.replace(LOOP, LOOP + "{% if message.role != 'system' %}").replace(
    "{% endfor %}", "{% endif %}{% endfor %}"
)


NO_GENERATION_PROMPT = CHATML.removesuffix(GENERATION)


# As thinking models': what was said before the last answer is cut when another turn follows.
FORGETS = (
    LOOP + "<|im_start|>{{ message.role }}\n"
    "{{ message.content if loop.last or message.role == 'user' else message.content.split('</think>')[-1] }}"
    "<|im_end|>\n{% endfor %}" + GENERATION
)


CHANGES_PROMPT = "{% if messages[-1].role == 'assistant' %}Answered: {% endif %}" + CHATML


@pytest.mark.parametrize(
    ("template", "prompt", "completion"),
    [
        (MISTRAL, "[INST] 3 + 4? [/INST]", "⟦ 7<|im_end|>⟧"),
        (TWO_ENDS, "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n", "⟦7<|im_end|>⟧"),
        # No token ends the turn, so all that is rendered is trained and nothing is appended.
        (NO_END_TOKEN, "### user:\n3 + 4?\n### assistant:\n", "⟦7\n⟧"),
    ],
)
def test_other_families_templates(tokenizer: Any, rows: Any, template: str, prompt: str, completion: str) -> None:
    tokenizer = with_template(tokenizer, template)
    (row,) = rows(PAIR)
    assert shown(Renderer(tokenizer).row(row), tokenizer)[:2] == [prompt, completion]


SYSTEM_ROW = {"messages": [system("Be brief."), user("Hi"), assistant("Hello")]}


def test_a_template_with_a_place_for_system_messages_gets_them(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(SYSTEM_ROW)
    for choice in ("error", "merge", "drop"):
        found = Renderer(tokenizer, Rendering(system=choice)).row(row)  # type: ignore[arg-type]
        assert shown(found, tokenizer)[0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n")


@pytest.mark.parametrize("template", [GEMMA, IGNORES_SYSTEM])
def test_system_messages_that_the_template_has_no_place_for(tokenizer: Any, rows: Any, template: str) -> None:
    tokenizer = with_template(tokenizer, template)
    (row,) = rows(SYSTEM_ROW)
    with pytest.raises(Fault, match=r"system must be merge .* or drop, .* refuses or ignores .* got error"):
        Renderer(tokenizer).row(row)
    prompts = [
        shown(Renderer(tokenizer, Rendering(system=choice)).row(row), tokenizer)[0]  # type: ignore[arg-type]
        for choice in ("merge", "drop")
    ]
    assert prompts == [
        "<|im_start|>user\nBe brief.\n\nHi<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    ]


def test_a_tokenizer_without_a_template(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(PAIR)
    with pytest.raises(DataError, match=r"must be an instruct model's, with a chat template, .* got .* without"):
        Renderer(with_template(tokenizer, None)).row(row)


def test_a_template_without_a_generation_prompt(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(PAIR)
    for template in (NO_GENERATION_PROMPT, LOOP + "{{ message.content }}{% endfor %}"):
        with pytest.raises(DataError, match=r"must be one that opens the assistant's turn.* without generation prompt"):
            Renderer(with_template(tokenizer, template)).row(row)


def test_a_template_that_changes_the_prompt_when_an_answer_follows(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(PAIR)
    with pytest.raises(Fault) as caught:
        Renderer(with_template(tokenizer, CHANGES_PROMPT)).row(row)
    message = str(caught.value)
    assert "at token 0 the prompt alone has '<|im_start|>user\\n3 +'" in message
    assert "the conversation 'Answered:" in message
    assert "must be one whose prompt is a strict prefix of the conversation, got one that" in message
    assert not isinstance(caught.value, Unfit)


def test_a_template_that_cuts_earlier_turns_cannot_train_them(tokenizer: Any, rows: Any) -> None:
    tokenizer = with_template(tokenizer, FORGETS)
    (row,) = rows({"messages": [user("Hi"), assistant("<think>Hm</think>Hello"), user("3 + 4?"), assistant("7")]})
    assert shown(Renderer(tokenizer).row(row), tokenizer)[1] == "⟦7<|im_end|>⟧"
    with pytest.raises(Fault, match="renders the prompt otherwise when an answer follows"):
        Renderer(tokenizer, Rendering(train_on="all_turns")).row(row)


def test_two_bos_tokens(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(PAIR)
    with pytest.raises(Fault, match="must be of one BOS token, got two"):
        Renderer(with_template(tokenizer, "<|im_start|>" + CHATML)).row(row)


def test_template_arguments_reach_the_template(tokenizer: Any, rows: Any) -> None:
    tokenizer = with_template(tokenizer, "{{ greeting }}" + CHATML)
    (row,) = rows(PAIR)
    found = Renderer(tokenizer, Rendering(template_arguments={"greeting": "Hey!"})).row(row)
    assert shown(found, tokenizer)[0].startswith("Hey!<|im_start|>user")
