"""The verb `near_duplicates`: pairs of worked sums that differ in a single digit, as mathematical data are full of.

The BNF paper's Section 2.3 says that such pairs are where DPO's contrast has little to hold on to.
"""

import random
from collections.abc import Callable
from pathlib import Path

from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.jsonl import write_jsonl
from lightning_bnf.runtime.ownership import claim

Draw = Callable[[random.Random], tuple[str, str]]


@checked
def near_duplicates(output: Path, train: PositiveInt = 240, validation: PositiveInt = 24, seed: int = 1) -> None:
    """Write pairs of worked sums that differ in one digit, as train.jsonl and validation.jsonl.

    Args:
        output: folder for the files: new, empty, or of this command, which replaces its own.
        train: training pairs.
        validation: validation pairs, with other questions.
        seed: chooses numbers, names and which digit is wrong.
    """
    rows = pairs(train + validation, seed)
    claim("output", output, "near_duplicates")
    write_jsonl(output / "train.jsonl", rows[:train])
    write_jsonl(output / "validation.jsonl", rows[train:])


def pairs(count: int, seed: int) -> list[dict[str, str]]:
    """`count` rows (prompt, chosen, rejected) with different prompts; rejected is chosen with one digit changed."""
    generator = random.Random(seed)
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        prompt, chosen = generator.choice(_KINDS)(generator)
        found[prompt] = {"prompt": prompt, "chosen": chosen, "rejected": with_a_wrong_digit(chosen, generator)}
    return list(found.values())


def with_a_wrong_digit(text: str, generator: random.Random) -> str:
    """The text with one of its digits replaced by another; a number's first digit never becomes 0."""
    place = generator.choice([i for i, character in enumerate(text) if character.isdigit()])
    first = not text[place - 1 : place].isdigit()
    others = [digit for digit in "0123456789" if digit != text[place] and not (first and digit == "0")]
    return text[:place] + generator.choice(others) + text[place + 1 :]


def _shopping(generator: random.Random) -> tuple[str, str]:
    name, thing = generator.choice(_NAMES), generator.choice(_THINGS)
    has, buys, gives = generator.randint(11, 49), generator.randint(11, 49), generator.randint(2, 9)
    question = (
        f"Question: {name} has {has} {thing}, buys {buys} more and gives {gives} away. How many are left?\nAnswer:"
    )
    total = has + buys
    return (
        question,
        f" {has} + {buys} = {total}. Then {total} - {gives} = {total - gives}. So {total - gives} are left.",
    )


def _rows(generator: random.Random) -> tuple[str, str]:
    rows, seats, taken = generator.randint(3, 9), generator.randint(3, 9), generator.randint(2, 8)
    question = (
        f"Question: A room has {rows} rows of {seats} seats. {taken} seats are taken. How many are free?\nAnswer:"
    )
    total = rows * seats
    return (
        question,
        f" {rows} * {seats} = {total}. Then {total} - {taken} = {total - taken}. So {total - taken} are free.",
    )


def _walk(generator: random.Random) -> tuple[str, str]:
    name = generator.choice(_NAMES)
    first, second, third = (generator.randint(12, 59) for _ in range(3))
    question = f"Question: {name} walks {first}, {second} and {third} minutes. How long is that in all?\nAnswer:"
    total = first + second
    return (
        question,
        f" {first} + {second} = {total}. Then {total} + {third} = {total + third}. So {total + third} minutes.",
    )


_KINDS: tuple[Draw, ...] = (_shopping, _rows, _walk)
_NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gus", "Hana", "Ivo", "Jun")
_THINGS = ("apples", "stamps", "marbles", "books", "shells", "cards", "pens", "coins")
