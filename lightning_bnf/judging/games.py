"""What a judge is asked: each pair in the orders that the protocol wants, as messages."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.judging.protocols import Protocol
from lightning_bnf.judging.sides import Pair
from lightning_bnf.judging.templates import Template
from lightning_bnf.runtime.fingerprints import content_hash

_WORDS = 1000
"""Of each text that WildBench's judge is shown."""
_EMPTY = "[This model response is empty.]"


@dataclass(frozen=True)
class Game:
    """One question to a judge. first: whether the model's answer is A. settled: the verdict that needs no judge."""

    pair: Pair
    game: int
    first: bool
    messages: Sequence[Message]
    settled: str | None = None


def orders(pair: Pair, protocol: Protocol, seed: int) -> list[bool]:
    """Whether the model's answer is A, for each game of a pair: the baseline is first in game 0 of two; else the order
    is drawn by the question, whatever else is judged."""
    if protocol.both:
        return [False, True]
    if protocol.kind == "score":
        return [True]
    return [int(content_hash([seed, pair.question]), 16) % 2 == 0]


def games_of(pairs: Sequence[Pair], protocol: Protocol, template: Template, seed: int = 0) -> list[Game]:
    """All games, question by question."""
    return [
        Game(
            pair,
            i,
            first,
            template.messages(slots(pair, first, protocol), pair.category),
            settled(pair, first, protocol),
        )
        for pair in pairs
        for i, first in enumerate(orders(pair, protocol, seed))
    ]


def settled(pair: Pair, first: bool, protocol: Protocol) -> str | None:
    """The verdict that the protocol gives without a judge: equal answers (AlpacaEval), empty ones (WildBench)."""
    own, other = pair.own.text.strip(), "" if pair.base is None else pair.base.text.strip()
    if protocol.kind == "letters":
        return "A=B" if pair.base is not None and pair.own.text == pair.base.text else None
    if protocol.kind == "score":
        return "1" if not own else None
    if protocol.kind == "choice" and not (own and other):
        a, b = (own, other) if first else (other, own)
        return "A=B" if not a and not b else "A++" if a else "B++"
    return None


def slots(pair: Pair, first: bool, protocol: Protocol) -> Mapping[str, str]:
    """The texts that fill a template."""
    own, base = pair.own.text, "" if pair.base is None else pair.base.text
    a, b = (own, base) if first else (base, own)
    *before, last = pair.messages
    history = "".join(f"{one['role'].upper()}: {one['content']}\n\n" for one in before if one["role"] != "system")
    query = last["content"]
    if protocol.kind in ("score", "choice"):
        history, query, own, a, b = (_cut(text) for text in (history, query, own, a, b))
        a, b = (text if text.strip() else _EMPTY for text in (a, b))
    return {
        "question": history + f"USER: {query}" if history else query,
        "history": history,
        "query": query,
        "answer": own,
        "answer_a": a,
        "answer_b": b,
        "checklist": "".join(f"- {item}\n" for item in pair.checklist),
    }


def _cut(text: str) -> str:
    words = text.split(" ")
    return text if len(words) <= _WORDS else " ".join(words[:_WORDS]) + "... (truncated)"


def bytes_of(messages: Sequence[Message]) -> int:
    """At least as many as there are tokens in them."""
    return len(json.dumps(list(messages), ensure_ascii=False).encode(errors="replace"))
