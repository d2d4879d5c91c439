"""Replies of servers that nobody wrote: whatever their bytes are, they give an answer that a file can hold, or a
refusal in a sentence, within bounds.

FUZZ_EXAMPLES=20000 tries so many, others at every run; by default it is the same few.
"""

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.endpoint import Endpoint
from support.generated import generated

from lightning_bnf.generation import server as module
from lightning_bnf.generation.server import Server, ServerError, ask
from lightning_bnf.runtime.limits import limited

pytestmark = pytest.mark.slow

SECONDS = 60.0  # of a reply of a few hundred bytes: far above what it takes on a busy machine
LARGEST = 20_000
HI = [{"role": "user", "content": "Hi"}]

NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -1, 2**63, True]))
TEXTS = st.one_of(st.text(st.characters(), max_size=12), st.sampled_from(["\ud83d", "\0", "\u2028", "a" * 2 * LARGEST]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda held: st.one_of(st.lists(held, max_size=3), st.dictionaries(TEXTS, held, max_size=3)),
    max_leaves=4,
)


def mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(right, right, right, VALUES)


MESSAGES = st.fixed_dictionaries({"content": mostly(TEXTS)}, optional={"role": VALUES, "tool_calls": VALUES})
CHOICES = st.fixed_dictionaries(
    {"message": mostly(MESSAGES), "finish_reason": mostly(st.sampled_from(["stop", "length", "tool_calls"]))}
)
USAGES = st.dictionaries(st.sampled_from(["completion_tokens", "prompt_tokens", "x"]), mostly(NUMBERS), max_size=3)
BODIES = mostly(
    st.fixed_dictionaries({"choices": mostly(st.lists(CHOICES, max_size=2))}, optional={"usage": mostly(USAGES)})
)


@st.composite
def replies(draw: Any) -> tuple[int, bytes]:
    """A status and a body: JSON of about the right form, in some encoding, or with a part cut out, doubled or flipped,
    or bytes."""
    status = draw(st.sampled_from([200] * 8 + [201, 204, 302, 400, 401, 408, 429, 500, 503, 599]))
    if draw(st.integers(0, 9)) == 0:
        return status, draw(st.binary(max_size=60))
    text = json.dumps(draw(BODIES), ensure_ascii=draw(st.booleans()))
    encoding = draw(st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, "surrogatepass" if encoding.startswith("utf") else "replace")
    if draw(st.booleans()):
        return status, content
    begin = draw(st.integers(0, len(content)))
    part = content[begin : begin + 20]
    changed = draw(st.sampled_from([b"", part * 2, bytes(byte ^ 1 for byte in part), b"[" * 5000]))
    return status, content[:begin] + changed + content[begin + 20 :]


@generated(100)
@given(
    reply=replies(), length=st.sampled_from(["right", "right", "right", "too long", "none", "-1", "x"]), again=replies()
)
def test_any_reply_is_an_answer_or_a_refusal(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch, reply: tuple[int, bytes], length: str, again: tuple[int, bytes]
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between tries
    monkeypatch.setattr(module, "LARGEST_REPLY", LARGEST)
    lengths = {"right": lambda data: str(len(data)), "too long": lambda data: str(len(data) + 9), "none": None}
    endpoint.length_of, endpoint.replies = lengths.get(length, lambda data: length), [reply, again]
    refused = None
    with limited(SECONDS):
        try:
            found = ask(Server(endpoint.url, "big", tries=2), HI, 0.0, 5, 0)
        except ServerError as error:
            refused = str(error)
    if refused is not None:
        assert refused.startswith(f"{endpoint.url} must answer with ")
        assert len(refused.encode()) < 2000
        return
    found.text.encode()
    assert len(found.text) <= LARGEST
    assert all(count is None or 0 <= count < 2**31 for count in (found.tokens, found.prompt_tokens))
