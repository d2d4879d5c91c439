"""What is done with arrays of all rows, row by row in plain Python: what it has to be equal to, bit by bit."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm
from typing import Any

from lightning_bnf.datamodules.steps.holdout import wanted
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.losses.base import StepContext

Rows = Sequence[TokenizedRow]
KINDS = ("paired", "grouped", "unpaired", "demonstration", "prompt")


def some_rows(count: int, seed: int = 1, kinds: Sequence[str] = KINDS) -> list[TokenizedRow]:
    """Rows of all kinds: repeated prompts, also in other spaces and as messages, tokens that are not trained, numbers
    of some, families, verifiers."""
    draw = random.Random(seed)

    def completion(label: int) -> TokenizedCompletion:
        ids = [draw.randrange(5000) for _ in range(draw.randint(1, 9))]
        mask = [draw.random() < 0.7 for _ in ids]
        mask[draw.randrange(len(ids))] = True
        return TokenizedCompletion(ids, mask, label, {"reward": draw.random()} if draw.random() < 0.5 else {})

    def row(number: int) -> TokenizedRow:
        kind = draw.choice(kinds)
        good = (1,) * draw.randint(1, 3)
        labels = {"paired": (1, -1), "grouped": (*good, -1), "unpaired": (draw.choice((1, -1)),), "prompt": ()}
        said = draw.randrange(max(count // 2, 1))
        text = draw.choice((f"What is {said}?", f" What  is\n{said}?"))
        return TokenizedRow(
            id=f"{draw.randrange(2**64):016x}",
            source=f"rows.jsonl:{number + 1}",
            format=kind,
            prompt_ids=[said, *(draw.randrange(5000) for _ in range(said % 4))],
            completions=tuple(completion(label) for label in labels.get(kind, (1,))),
            verifier=draw.choice((None, {"name": "number", "answer": said})),
            family=draw.choice((None, "sums", "words", "ä")),
            prompt_id=draw.choice((None, f"p{said}")),
            max_new_tokens=draw.choice((None, 7)),
            kept_out=draw.random() < 0.1,
            prompt=draw.choice((text, ({"role": "user", "content": text},))),  # type: ignore[arg-type]
        )

    return [row(number) for number in range(count)]


def place(row: TokenizedRow, seed: int) -> bytes:
    given: Any = row.prompt
    turns = [("user", given)] if isinstance(given, str) else [(turn["role"], turn["content"]) for turn in given]
    spaced = [[role, " ".join(text.split())] for role, text in turns]
    return hashlib.sha256(json.dumps([seed, spaced]).encode()).digest()


def held_out(rows: Rows, seed: int) -> list[int]:
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(rows):
        groups.setdefault(place(row, seed), []).append(i)
    held: list[int] = []
    room = wanted(len(rows))
    for _, group in sorted(groups.items()):
        if len(group) <= room:
            held += group
            room -= len(group)
    return sorted(held)


def fingerprint(rows: Rows) -> str:
    hashed = hashlib.sha256()
    for row in rows:
        ids = [token for one in row.completions for token in one.ids]
        mask = [bit for one in row.completions for bit in one.completion_mask]
        for values, size in ((row.prompt_ids, 4), (ids, 4), (mask, 1)):
            hashed.update(len(values).to_bytes(8) + b"".join(int(value).to_bytes(size, "little") for value in values))
        for values in ([len(one.ids) for one in row.completions], [one.label for one in row.completions]):
            content = b"".join(value.to_bytes(8, "little", signed=True) for value in values)
            hashed.update(len(values).to_bytes(8) + content)
        if any(one.numbers for one in row.completions):
            hashed.update(repr([sorted(one.numbers.items()) for one in row.completions]).encode())
    return hashed.hexdigest()[:16]


def padded_lengths(row: TokenizedRow, labels: Sequence[int]) -> tuple[int, ...]:
    return tuple(len(row.prompt_ids) + len(one.ids) for one in row.completions if one.label in labels)


def shared_lengths(row: TokenizedRow, labels: Sequence[int]) -> tuple[int, ...]:
    lengths = padded_lengths(row, labels)
    return (sum(lengths) - (len(lengths) - 1) * len(row.prompt_ids),) if lengths else ()


def context(rows: Rows, labels: Sequence[int]) -> StepContext:
    kept = [[one for one in row.completions if one.label in labels] for row in rows]
    trained = {
        label: [sum(one.completion_mask) for some in kept for one in some if one.label == label] for label in (1, -1)
    }
    return StepContext(
        groups=sum(bool(some) for some in kept),
        pairs=sum(row.pairs for row in rows) if set(labels) == {1, -1} else 0,
        preferred=len(trained[1]),
        dispreferred=len(trained[-1]),
        preferred_tokens=sum(trained[1]),
        smallest_length=min(trained[1] + trained[-1], default=1),
    )


def ordered(row: TokenizedRow) -> bool:
    rewards = {
        label: [one.numbers["reward"] for one in row.completions if one.label == label and "reward" in one.numbers]
        for label in (1, -1)
    }
    return not (rewards[1] and rewards[-1]) or min(rewards[1]) > max(rewards[-1])


def order(rows: int, seed: int, epoch: int, strata: Sequence[str] | None = None) -> list[int]:
    found = list(range(rows))
    generator = random.Random(f"{seed}/{epoch}")
    generator.shuffle(found)
    if strata is None:
        return found
    mine: dict[str, list[int]] = {}
    for row in found:
        mine.setdefault(strata[row], []).append(row)
    places: dict[int, float] = {}
    for name in sorted(mine):
        start = generator.random()
        places |= {row: (j + start) / len(mine[name]) for j, row in enumerate(mine[name])}
    return sorted(found, key=places.__getitem__)


def mixed_sets(sizes: Sequence[int], weights: Sequence[float], leading: int) -> list[int]:
    given = [Fraction(str(weight)) for weight in weights]
    shares = [weight / sum(given) for weight in given]
    whole = lcm(*(share.denominator for share in shares))
    parts = [int(share * whole) for share in shares]
    drawn, found = [0] * len(parts), list[int]()
    while drawn[leading] < sizes[leading]:
        free = (k for k, part in enumerate(parts) if drawn[k] * whole // part <= len(found))
        chosen = min(free, key=lambda k: (-(-(drawn[k] + 1) * whole // parts[k]), k))
        drawn[chosen] += 1
        found.append(chosen)
    return found


def mixed_order(sets: Sequence[int], rows: Sequence[Sequence[int]], seed: int, epoch: int) -> list[int]:
    places = [epoch * list(sets).count(k) for k in range(len(rows))]
    found = []
    for k in sets:
        turn, at = divmod(places[k], len(rows[k]))
        shuffled = list(rows[k])
        random.Random(f"{seed}/{k}/{turn}").shuffle(shuffled)
        found.append(shuffled[at])
        places[k] += 1
    return found


def mismatched(rows: Rows, max_length: int) -> list[TokenizedRow]:
    by_hash = sorted(range(len(rows)), key=lambda i: hashlib.sha256(rows[i].id.encode()).digest())
    found: dict[int, TokenizedRow] = {}
    for at, i in enumerate(by_hash):
        others = (k for k in by_hash[at + 1 :] + by_hash[:at] if rows[k].prompt_ids != rows[i].prompt_ids)
        partner = next(others, None)
        room = max_length - len(rows[i].prompt_ids)
        given = () if partner is None else rows[partner].completions
        cut = (replace(one, ids=one.ids[:room], completion_mask=one.completion_mask[:room]) for one in given)
        kept = tuple(one for one in cut if any(one.completion_mask))
        found[i] = replace(rows[i], id=f"{rows[i].id} (mismatched)", format="unpaired", completions=kept)
    return [found[i] for i in range(len(rows))]
