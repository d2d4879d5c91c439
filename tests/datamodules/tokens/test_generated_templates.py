"""Chat templates that nobody wrote: a row is tokenized as the template renders it, or refused in a sentence, within
bounds of time and memory.

FUZZ_EXAMPLES=20000 tries so many, others at every run; by default it is the same few.
"""

from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.generated import generated
from support.rows import assistant, user
from support.templates import CHATML, GENERATION, LOOP, MISTRAL, NO_END_TOKEN, TWO_ENDS, with_template

from lightning_bnf.datamodules.reading.answers import Completion
from lightning_bnf.datamodules.reading.records import Row
from lightning_bnf.datamodules.tokens import template_code
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.runtime.limits import limited
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

SECONDS, BYTES = 0.5, 2**28  # of a template, so that those without end are soon over
SYSTEM = {"role": "system", "content": "Be kind."}

# The bundled tokenizer has no tokens for the bytes of planes beyond, which come back as U+FFFD, and none for control
# characters, which it leaves out.
TEXTS = st.one_of(
    st.sampled_from(["<|im_start|>", "<|im_end|>", "\n", "[INST]", "<|im_end|>\n", " ", "\u2028", "{#x#}", "é"]),
    st.text(
        st.characters(exclude_characters="{}%#", exclude_categories=["Cs", "Cc"], max_codepoint=0x1FFFF), max_size=5
    ),
)
SAID = ["message.content", "message.role", "message['content']", "messages[0].content", "messages[-1]['role']"]
WRONG = [
    "nothing",
    "nothing.at.all",
    "message.tool_calls.x",
    "messages[99].content",
    "1 // 0",
    "'a' + 1",
    "range(10**9)",
]
WRONG += [
    "'a' * 10**9",
    "raise_exception('no')",
    "message.__class__.__mro__",
    "''.join(messages)",
    "loop.index0",
    "1e999",
]
WRONG += [
    "strftime_now('%d %B %Y')",
    "strftime_now(3)",
    "'\\ud800'",
    "raise_exception(messages | string * 10**5)",
    "namespace(x=1).x",
    "dict(a=1)",
    "messages | tojson",
    "bos_token",
]
FILTERS = ["", "", "", " | trim", " | upper", " | length", " | tojson", " | int", " | nothing", " | list | join"]
CONDITIONS = [
    "message.role == 'user'",
    "message['role'] == 'assistant'",
    "loop.first",
    "loop.last",
    "nothing is defined",
]
CONDITIONS += [
    "add_generation_prompt",
    "not add_generation_prompt",
    "message.content | length > 3",
    "nothing > 3",
    "true",
]
RANGES = ["messages", "messages[1:]", "range(3)", "range(10**6)", "range(10**12)", "nothing", "3", "message.content"]
BROKEN = [
    "{% if %}",
    "{% endfor %}",
    "{{",
    "{% for",
    "{% generation %}",
    "{% include 'x' %}",
    "{% macro m() %}{{ m() }}",
]


def blocks(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Pieces around pieces."""
    return st.one_of(
        st.builds("".join, st.lists(inner, max_size=3)),
        st.builds("{{% if {} %}}{}{{% else %}}{}{{% endif %}}".format, st.sampled_from(CONDITIONS), inner, inner),
        st.builds("{{% for message in {} %}}{}{{% endfor %}}".format, st.sampled_from(RANGES), inner),
        st.builds("{{% for i in {} %}}{}{{% endfor %}}".format, st.sampled_from(RANGES), inner),
        st.builds("{{% set message = {} %}}{}".format, st.sampled_from(SAID + WRONG), inner),
        st.builds("{{% macro m(x) %}}{}{{{{ m(x) }}}}{{% endmacro %}}{{{{ m(1) }}}}".format, inner),
        st.builds("{{% generation %}}{}{{% endgeneration %}}".format, inner),
    )


SPOKEN = st.builds("{{{{ {}{} }}}}".format, st.sampled_from(SAID * 4 + WRONG), st.sampled_from(FILTERS))
PIECES = st.recursive(st.one_of(TEXTS, SPOKEN, SPOKEN, st.sampled_from(BROKEN)), blocks, max_leaves=6)


@st.composite
def templates(draw: Any) -> str:
    """A real one with a piece put in somewhere, a loop over the messages around pieces, or pieces alone."""
    piece = draw(PIECES)
    kind = draw(st.integers(0, 5))
    if kind == 0:
        return piece
    if kind < 3:
        known = draw(st.sampled_from([CHATML, MISTRAL, TWO_ENDS, NO_END_TOKEN]))
        place = draw(st.integers(0, len(known)))
        return known[:place] + piece + known[place:]
    end = draw(st.sampled_from(["<|im_end|>\n", "<|im_end|>", "\n", ""]))
    return (
        LOOP
        + "<|im_start|>{{ message.role }}\n"
        + piece
        + end
        + "{% endfor %}"
        + draw(st.sampled_from([GENERATION, GENERATION, "", piece]))
    )


@pytest.fixture(scope="module")
def own(tokenizer: Any) -> Any:
    return with_template(tokenizer, None)


@generated(150)
@given(template=templates(), system=st.booleans())
def test_any_template_gives_its_own_text_or_a_refusal(
    own: Any, monkeypatch: pytest.MonkeyPatch, template: str, system: bool
) -> None:
    """What prompt and answer are as tokens is what the template renders, and generation starts from the same ids."""
    monkeypatch.setattr(template_code, "limited", partial(limited, SECONDS, BYTES))
    own.chat_template = template
    prompt = (*([SYSTEM] if system else []), user("3 + 4?"))
    answer = assistant("7 of them")
    renderer, refused = Renderer(own), None
    try:
        found = renderer.row(Row("a", "a", "demonstration", prompt, (Completion(None, (answer,), 1),)))
        assert renderer.prompt_ids(prompt) == found.prompt_ids
    except Refusal as refusal:
        refused = str(refusal)
    if refused is not None:
        assert 0 < len(refused.encode()) < 4000
        return
    (completion,) = found.completions
    whole = renderer.chat.render((*prompt, answer))
    assert own.decode(found.prompt_ids) == renderer.chat.render(prompt, generation=True)
    text = own.decode([*found.prompt_ids, *completion.ids])
    assert whole.startswith(text)
    assert any(completion.completion_mask)
