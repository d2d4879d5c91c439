"""Rendering: ids, masks and their ends for the bundled template and for hand-made ones of other families."""

import copy
from typing import Any

import pytest
from support.rows import assistant, user
from support.templates import CHATML, LOOP, MISTRAL, NO_END_TOKEN, PAIR, TWO_ENDS, shown, with_template

from lightning_bnf.datamodules.reading.errors import ALIKE, DataError, Fault, Unfit
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import END_INSIDE, MERGED, Renderer

SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
MERGES = LOOP + "{{ message.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
MERGES = MERGES.replace(
    "{{ message.content }}", "{{ ('A: ' if message.role == 'assistant' else '') + message.content }}"
)
TEXT = Rendering(strings="text")
TURNS = [user("Hi"), assistant("Hello"), user("3 + 4?"), assistant("7")]


# What is trained


def test_pairs_share_the_prompt_and_end_with_the_end_of_turn(tokenizer: Any, rows: Any) -> None:
    (row,) = rows(PAIR)
    found = Renderer(tokenizer).row(row)
    # The bundled template writes a line break behind <|im_end|>: it is no part of the completion.
    assert shown(found, tokenizer) == [
        SYSTEM + "<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n",
        "⟦7<|im_end|>⟧",
        "⟦It is 8.<|im_end|>⟧",
    ]
    assert [completion.label for completion in found.completions] == [1, -1]
    assert all(len(completion.ids) == len(completion.completion_mask) for completion in found.completions)


def test_generation_starts_from_the_training_prompt(tokenizer: Any, rows: Any) -> None:
    strings = {"prompt": "3 + 4 =", "chosen": " 7", "rejected": " 8"}
    for stored, rendering in ((PAIR, None), (strings, None), (strings, TEXT), ({"prompt": PAIR["prompt"]}, None)):
        (row,) = rows(stored)
        renderer = Renderer(tokenizer, rendering)
        assert renderer.row(row).prompt_ids == renderer.prompt_ids(row.prompt)
    messages = PAIR["prompt"]
    expected = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert renderer.prompt_ids(tuple(messages)) == expected


@pytest.mark.parametrize("template", ["bundled", CHATML, MISTRAL, TWO_ENDS, NO_END_TOKEN])
@pytest.mark.parametrize("train_on", ["last_turn", "all_turns"])
def test_prompt_and_completion_are_the_whole_render_up_to_the_end_of_turn(
    tokenizer: Any, rows: Any, template: str, train_on: Any
) -> None:
    tokenizer = tokenizer if template == "bundled" else with_template(tokenizer, template)
    tail = {"bundled": 1, CHATML: 1, TWO_ENDS: 2}.get(template, 0)  # tokens behind the end of turn
    renderer = Renderer(tokenizer, Rendering(train_on=train_on))
    for messages in (TURNS, TURNS[:2], [user("Ünïcode ☃"), assistant("lines\n\n and spaces  \n")]):
        full = tokenizer.apply_chat_template(messages, return_dict=False)
        (row,) = rows({"messages": messages})
        found = renderer.row(row)
        assert found.prompt_ids + found.completions[0].ids == full[: len(full) - tail]


def test_the_end_of_turn_is_found_where_it_is_not_the_tokenizers_eos(tokenizer: Any, rows: Any) -> None:
    """Gemma and Llama-3 end turns with a token of their own."""
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = "<|endoftext|>"
    (row,) = rows(PAIR)
    assert shown(Renderer(changed).row(row), changed)[1] == "⟦7<|im_end|>⟧"


def test_a_text_that_generation_stops_at_can_be_named(tokenizer: Any, rows: Any) -> None:
    """An end that is no special token is known from the model's generation config only."""
    changed = with_template(tokenizer, NO_END_TOKEN.replace("{{ message.content }}\n", "{{ message.content }}~\n"))
    (end,) = tokenizer("~", add_special_tokens=False)["input_ids"]
    (row,) = rows(PAIR)
    assert shown(Renderer(changed).row(row), changed)[1] == "⟦7~\n⟧"
    assert shown(Renderer(changed, end_ids=[end]).row(row), changed)[1] == "⟦7~⟧"


@pytest.mark.parametrize("pad", ["<|im_end|>", "<|endoftext|>"])
def test_the_pad_token_changes_nothing(tokenizer: Any, rows: Any, pad: str) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.pad_token = pad
    (row,) = rows(PAIR)
    assert Renderer(changed).row(row) == Renderer(tokenizer).row(row)
    assert Renderer(changed).row(row).completions[0].completion_mask[-1] is True  # the end of turn, pad or not


def test_many_rows_together_equal_each_alone(tokenizer: Any, rows: Any) -> None:
    renderer = Renderer(tokenizer)
    several = rows(*[PAIR | {"prompt": [user(f"{n} + 4?")]} for n in range(9)])
    assert renderer.rows(several) == [renderer.row(row) for row in several]


def test_rewards_and_columns_are_carried(tokenizer: Any, rows: Any) -> None:
    extra = {"verifier": {"name": "number"}, "family": "sums", "prompt_id": "p", "max_new_tokens": 9, "kept_out": True}
    (row,) = rows(PAIR | extra | {"score_chosen": 1.0, "score_rejected": 0.5})
    found = Renderer(tokenizer).row(row)
    assert [completion.numbers["reward"] for completion in found.completions] == [1.0, 0.5]
    assert {name: getattr(found, name) for name in extra} == extra
    assert (found.id, found.source, found.format, found.prompt) == (row.id, row.source, row.format, row.prompt)


# Several turns


def test_the_last_turn_is_trained(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"messages": TURNS})
    prompt, completion = shown(Renderer(tokenizer).row(row), tokenizer)
    assert prompt.endswith("Hello<|im_end|>\n<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n")
    assert completion == "⟦7<|im_end|>⟧"


@pytest.mark.parametrize("template", ["bundled", TWO_ENDS])
def test_all_turns_are_trained_on_request(tokenizer: Any, rows: Any, template: str) -> None:
    tokenizer = tokenizer if template == "bundled" else with_template(tokenizer, template)
    for stored in ({"messages": TURNS}, {"messages": TURNS, "label": False}):
        (row,) = rows(stored)
        prompt, completion = shown(Renderer(tokenizer, Rendering(train_on="all_turns")).row(row), tokenizer)
        assert prompt.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
        assert completion == (
            "⟦Hello<|im_end|>⟧\n<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n⟦7<|im_end|>⟧"
        )


@pytest.mark.parametrize(
    ("train_on", "chosen"),
    [
        ("last_turn", "Hello<|im_end|>\n<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n⟦7<|im_end|>⟧"),
        ("all_turns", "⟦Hello<|im_end|>⟧\n<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n⟦7<|im_end|>⟧"),
    ],
)
def test_pairs_that_part_before_the_last_turn(tokenizer: Any, rows: Any, train_on: Any, chosen: str) -> None:
    (row,) = rows({"chosen": TURNS, "rejected": [user("Hi"), assistant("Go away.")]})
    prompt, *completions = shown(Renderer(tokenizer, Rendering(train_on=train_on)).row(row), tokenizer)
    assert prompt.endswith("user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert completions == [chosen, "⟦Go away.<|im_end|>⟧"]


def test_turns_that_pairs_share_are_not_trained(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"chosen": TURNS, "rejected": [*TURNS[:-1], assistant("8")]})
    found = Renderer(tokenizer, Rendering(train_on="all_turns")).row(row)
    assert shown(found, tokenizer)[1:] == ["⟦7<|im_end|>⟧", "⟦8<|im_end|>⟧"]


# Plain strings


def test_strings_are_joined_and_ended(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"prompt": "3 + 4 =", "chosen": " 7", "rejected": " 8"})
    assert shown(Renderer(tokenizer, TEXT).row(row), tokenizer) == ["3 + 4 =", "⟦ 7<|im_end|>⟧", "⟦ 8<|im_end|>⟧"]


def test_strings_that_would_merge_stay_apart(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"prompt": "The answer is unbel", "completion": "ievable", "label": True})
    found = Renderer(tokenizer, TEXT).row(row)
    joint = tokenizer("The answer is unbelievable", add_special_tokens=False)["input_ids"]
    assert joint[: len(found.prompt_ids)] != found.prompt_ids  # the example is what it is meant to be
    assert shown(found, tokenizer) == ["The answer is unbel", "⟦ievable<|im_end|>⟧"]


def test_strings_that_end_already_get_no_second_end(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"prompt": "Q", "completion": "A<|im_end|>", "label": True})
    assert shown(Renderer(tokenizer, TEXT).row(row), tokenizer)[1] == "⟦A<|im_end|>⟧"


@pytest.mark.parametrize("rendering", [Rendering(), Rendering(strings="chat")], ids=["auto", "chat"])
def test_strings_as_a_chat(tokenizer: Any, rows: Any, rendering: Rendering) -> None:
    """As one user and one assistant message: the spaces around them are no content, nor is an end of turn."""
    (row,) = rows({"prompt": [user("3 + 4?")], "chosen": [assistant("7")], "rejected": [assistant("8")]})
    expected = Renderer(tokenizer, rendering).row(row)
    for prompt, chosen in (("3 + 4?", "7"), (" 3 + 4?\n", " 7"), ("3 + 4?", "\n7 <|im_end|>\n")):
        (strings,) = rows({"prompt": prompt, "chosen": chosen, "rejected": "8"})
        found = Renderer(tokenizer, rendering).row(strings)
        assert (found.prompt_ids, found.completions) == (expected.prompt_ids, expected.completions)


def test_strings_without_a_template_are_text(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"prompt": "3 + 4 =", "chosen": " 7", "rejected": " 8"})
    base = with_template(tokenizer, None)
    assert Renderer(base).strings == "text"
    assert Renderer(base).row(row) == Renderer(tokenizer, TEXT).row(row)


@pytest.mark.parametrize(
    "prompt", ["<|im_start|>user\n3 + 4?<|im_end|>\n<|im_start|>assistant\n", "What does <|im_end|> mean?"]
)
def test_strings_that_were_rendered_already_are_refused_with_the_choice(tokenizer: Any, rows: Any, prompt: str) -> None:
    (row,) = rows({"prompt": prompt, "chosen": "7", "rejected": "8"})
    with pytest.raises(Fault, match=r"strings must be text for .* or chat where .*, got auto with '<\|im_.*\|>' in"):
        Renderer(tokenizer).row(row)
    assert shown(Renderer(tokenizer, TEXT).row(row), tokenizer)[0] == prompt
    assert (
        "What" not in prompt or prompt in shown(Renderer(tokenizer, Rendering(strings="chat")).row(row), tokenizer)[0]
    )


def test_a_template_of_words_is_known_by_what_it_writes_between_two_turns(tokenizer: Any, rows: Any) -> None:
    words = with_template(
        tokenizer,
        "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}{% else %}"
        "{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    )
    (row,) = rows({"prompt": "[INST] Hi [/INST]", "chosen": "7", "rejected": "8"})
    with pytest.raises(Fault, match=r"got auto with '\[/INST\]' in the prompt"):
        Renderer(words).row(row)


def test_a_pair_that_differs_in_its_written_end_of_turn_alone_is_dropped(tokenizer: Any, rows: Any) -> None:
    (row,) = rows({"prompt": "Q", "chosen": "A", "rejected": "A<|im_end|>"})
    with pytest.raises(Unfit, match="must be two answers, got the same tokens for both") as caught:
        Renderer(tokenizer).row(row)
    assert caught.value.rule == ALIKE


def test_one_bos_before_strings_if_the_tokenizer_adds_one(tokenizer: Any, rows: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    adds = copy.deepcopy(tokenizer)
    adds.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", pair="<|im_start|> $A $B", special_tokens=[("<|im_start|>", 1)]
    )
    for prompt in ("Q: 3 + 4 =", "<|im_start|>Q: 3 + 4 ="):
        (row,) = rows({"prompt": prompt, "completion": " 7", "label": True})
        found = Renderer(adds, TEXT).row(row)
        assert shown(found, adds) == ["<|im_start|>Q: 3 + 4 =", "⟦ 7<|im_end|>⟧"]
    (row,) = rows(PAIR)
    assert Renderer(adds).row(row) == Renderer(tokenizer).row(row)  # a template writes its own


def test_strings_need_an_eos(tokenizer: Any, rows: Any) -> None:
    changed = copy.deepcopy(tokenizer)
    changed.eos_token = None
    (row,) = rows({"prompt": "Q", "completion": "A", "label": True})
    with pytest.raises(DataError, match=r"must be one with an end-of-sequence token \(eos_token\), .*, got .* without"):
        Renderer(changed, TEXT).row(row)


def test_an_answer_that_merges_with_the_prompts_last_token(tokenizer: Any, rows: Any) -> None:
    """ "A: " ends in a token of its own, but "A: Hello" has " Hello" in one."""
    (row,) = rows({"messages": [user("Hi"), assistant("Hello")]})
    with pytest.raises(Unfit, match=r"the prompt alone has ' ' and the conversation ' Hello") as caught:
        Renderer(with_template(tokenizer, MERGES)).row(row)
    assert caught.value.rule == MERGED


def test_an_answer_whose_leading_spaces_merge_with_the_templates_line_break(tokenizer: Any, rows: Any) -> None:
    """Generation would start behind the line break's own token, which the whole conversation does not have."""
    (row,) = rows({"messages": [user("Hi"), assistant("  Hello")]})
    with pytest.raises(Unfit, match="the prompt alone has") as caught:
        Renderer(tokenizer).row(row)
    assert caught.value.rule == MERGED


def test_an_answer_with_an_end_of_turn_in_its_text(tokenizer: Any, rows: Any) -> None:
    for stored in (
        PAIR | {"chosen": [assistant("7<|im_end|>")]},
        PAIR | {"chosen": [assistant("7<|im_end|>\n<|im_start|>user")]},
        {"prompt": "Q", "chosen": "A<|im_end|>A", "rejected": "B"},
    ):
        (row,) = rows(stored)
        with pytest.raises(Unfit, match=r"must be without end-of-turn tokens, .*, got '<\|im_end\|>'") as caught:
            Renderer(tokenizer).row(row)
        assert caught.value.rule == END_INSIDE


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strings": "chats"}, "strings must be 'auto', 'text' or 'chat', got 'chats'"),
        ({"system": "ignore"}, "system must be 'error', 'merge' or 'drop', got 'ignore'"),
        ({"train_on": "all"}, "train_on must be 'last_turn' or 'all_turns', got 'all'"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rendering(**options)
