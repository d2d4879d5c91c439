"""What the loader takes to make an optimizer step: 128 pairs of about 1,000 tokens, from a file of tokenized rows."""

import random
import tempfile
import time
from itertools import count
from pathlib import Path

import torch

from lightning_bnf.costs.bench.workers import Turns, Variant
from lightning_bnf.datamodules.reading.formats import Paired
from lightning_bnf.datamodules.steps.layout import LAYOUTS, LayoutName
from lightning_bnf.datamodules.steps.loader import StepLoader
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.datamodules.tokens.stored import write_rows

ROWS, PAIRS, MAX_TOKENS = 1024, 128, 8192
LABELS = (1, -1)


def rows(seed: int = 1) -> list[TokenizedRow]:
    """Pairs with prompts of 200 to 600 tokens and completions of 400 to 800, so that each sequence has about 1,000."""
    draw = random.Random(seed)

    def ids(low: int, high: int) -> list[int]:
        return [draw.randrange(100_000) for _ in range(draw.randint(low, high))]

    def pair(number: int) -> TokenizedRow:
        answers = [(ids(400, 800), label) for label in LABELS]
        completions = tuple(TokenizedCompletion(answer, [True] * len(answer), label) for answer, label in answers)
        return TokenizedRow(f"{number:016x}", f"rows:{number}", Paired.name, ids(200, 600), completions)

    return [pair(number) for number in range(ROWS)]


def make_steps(turns: Turns, layout: LayoutName) -> None:
    """A step a turn, on one thread; `cpu_seconds` is what it took of the processor, whoever else was at work."""
    torch.set_num_threads(1)
    chosen = LAYOUTS[layout]
    with tempfile.TemporaryDirectory() as folder:
        stored = write_rows(Path(folder) / "rows.arrow", rows())
        lengths = chosen.lengths_of(stored, LABELS)
        plan = StepPlan(lengths, PAIRS, MAX_TOKENS, seed=1, packed=chosen.packed)
        loader = StepLoader(stored, plan, chosen, LABELS)
        for number in count():
            turns.wait()
            began = time.process_time()
            loader.step(*divmod(number, len(plan)))
            turns.done(cpu_seconds=time.process_time() - began)


def variants() -> list[list[Variant]]:
    """Padded beside shared prompts."""
    names: tuple[LayoutName, ...] = ("padded", "shared_prompt")
    case = f"{PAIRS} pairs of about 1,000 tokens a sequence, from a stored file, one thread"
    return [[Variant("loader", case, name, make_steps, {"layout": name}) for name in names]]
