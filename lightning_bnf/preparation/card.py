"""The data card: what was made, how, and how often the model passed, as a README.md beside the files."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import product
from statistics import mean
from typing import Any

from lightning_bnf.evaluation.controls import constant_baseline, positional_baseline
from lightning_bnf.preparation.families import Question
from lightning_bnf.preparation.pick import Scored
from lightning_bnf.results.markdown import markdown_table
from lightning_bnf.runtime.escapes import in_one_line

Pair = tuple[Scored, Scored]
_ANSWERS = 30  # of each kind that are tried as a constant


@dataclass(frozen=True)
class Outcome:
    """What became of a question; `unpaired` counts its unpaired rows."""

    family: str
    split: str
    kept_out: bool
    samples: list[Scored]
    greedy: Scored
    pair: Pair | None
    unpaired: int
    question: Question


def write_card(outcomes: Sequence[Outcome], rates: str, settings: dict[str, Any]) -> str:
    """The card as Markdown; `rates`: from `yields`."""
    trained = [outcome for outcome in outcomes if not outcome.kept_out]
    pairs = [outcome.pair for outcome in trained if outcome.split == "train" and outcome.pair]
    parts = [
        _INTRODUCTION.format(**settings),
        "## Rows\n\n" + _counts(outcomes),
        "## Families: how often the model passes, and what that yields\n\n" + _YIELD.format(**settings) + rates,
        "## Lengths\n\n" + _LENGTHS.format(longer=_share(pairs, 1), equal=_share(pairs, 0), shorter=_share(pairs, -1)),
        _lengths(outcomes),
        _SETTINGS + "".join(f"- `{name}`: {_shown(value)}\n" for name, value in settings.items()),
    ]
    return "\n".join(part.rstrip("\n") + "\n" for part in parts)


_INTRODUCTION = """# Preference data, sampled from the model and sorted by verifiers

Every prompt was answered {samples} times by `{source}` at temperature {temperature} (no top-k, no top-p);
a verifier, a pure function of the text, scored each answer. A pair is one answer that passes (`chosen`) against
the worst one that fails (`rejected`); among equals the two closest in length. Answers that were cut off at
`max_new_tokens` count as failed and are never rows; of identical answers one is kept. Lengths are tokens, the
end-of-turn token included.

The splits share no question, not even in other words (no sum, no set of numbers, no word or set of keywords, no
topic of a family is in two splits), and families that are kept out of training have no training prompts. Unpaired rows
also come from prompts whose answers all passed or all failed (one row each); a prompt with both gives its pair's two
answers. In every file the families take turns, so any first part of it is balanced.

Remake it (it goes on where it was interrupted; the raw samples stay in the folder `work`) with a config that holds the
settings below, as `configs/prepare/` has them:

    python -m lightning_bnf prepare --config CONFIG.yaml

The same seed gives the same files on the same kind of processor with the same number of threads; elsewhere rounding
differs, and with it the samples. Licence: Apache-2.0. The prompts are ours; the answers are samples of
SmolLM2-135M-Instruct (Apache-2.0), unedited, and often wrong, odd or untrue: they are training signal, not knowledge.
"""

_YIELD = """`sampled` and `greedy` are the model's pass rates before any training over all the family's prompts
({samples} samples each, and one greedy answer); `ended` is the share of samples that ended within the limit;
`pairs` the share of prompts that gave one. `constant` is the share of prompts that the best constant answer passes (of
right ones, of the model's, and of such as "Yes."), `place` that of the best place in the prompt (its third number, its
last word): what passes without the skill.

"""

_LENGTHS = """Mean tokens of chosen and rejected. Of the training pairs the chosen answer is longer in {longer}, equally
long in {equal} and shorter in {shorter} of them. Where a family's lengths differ much, part of what is learned is
length; where the task itself asks for less (fewer words, no commas), that cannot be told from the skill.
"""

_SETTINGS = """## Settings

"""


def _counts(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for split, kept_out in product(("train", "validation", "test"), (False, True)):
        mine = [outcome for outcome in outcomes if (outcome.split, outcome.kept_out) == (split, kept_out)]
        if not mine:
            continue
        pairs = sum(outcome.pair is not None for outcome in mine)
        name = f"{split}, kept-out families" if kept_out else split
        rows.append([name, len({one.family for one in mine}), len(mine), pairs, sum(one.unpaired for one in mine)])
    return markdown_table(["split", "families", "prompts", "pairs", "unpaired rows"], *rows)


def yields(outcomes: Sequence[Outcome]) -> str:
    """The families' table: pass rates, with what constant and positional answers pass beside them, and pairs."""
    rows = []
    for family, mine in _by_family(outcomes).items():
        constant, place = _baselines(mine)
        samples = [one for outcome in mine for one in outcome.samples]
        rows.append(
            [
                family + (" (kept out)" if mine[0].kept_out else ""),
                len(mine),
                f"{mean(one.passed for one in samples):.2f}",
                f"{mean(outcome.greedy.passed for outcome in mine):.2f}",
                f"{constant:.2f}",
                f"{place:.2f}",
                f"{mean(one.finished for one in samples):.2f}",
                f"{mean(outcome.pair is not None for outcome in mine):.2f}",
                sum(outcome.pair is not None for outcome in mine if outcome.split == "train"),
            ]
        )
    return markdown_table(
        ["family", "prompts", "sampled", "greedy", "constant", "place", "ended", "pairs", "training pairs"], *rows
    )


def _baselines(outcomes: Sequence[Outcome]) -> tuple[float, float]:
    """The share of the best constant answer and of the best place, over a family's prompts."""
    questions = [(outcome.question.text, outcome.question.verifier) for outcome in outcomes]
    right = [outcome.question.answer for outcome in outcomes if outcome.question.answer]
    said = [outcome.greedy.text for outcome in outcomes if outcome.greedy.passed]
    answers = [*right[:_ANSWERS], *said[:_ANSWERS]]
    return constant_baseline(questions, answers).share, positional_baseline(questions).share


def _lengths(outcomes: Sequence[Outcome]) -> str:
    rows = []
    for family, mine in _by_family(outcomes).items():
        pairs = [outcome.pair for outcome in mine if outcome.pair]
        if pairs:
            chosen, rejected = (f"{mean(pair[side].length for pair in pairs):.1f}" for side in (0, 1))
            rows.append([family, chosen, rejected, _share(pairs, 1), _share(pairs, -1)])
    return markdown_table(["family", "chosen", "rejected", "chosen longer", "chosen shorter"], *rows)


def _by_family(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    return {
        escape(family, quote=False): [outcome for outcome in outcomes if outcome.family == family]
        for family in dict.fromkeys(outcome.family for outcome in outcomes)
    }


def _share(pairs: Sequence[Pair], sign: int) -> str:
    """The share of pairs whose chosen answer is longer (1), as long (0) or shorter (-1) than the rejected one."""
    signs = [(chosen.length > rejected.length) - (chosen.length < rejected.length) for chosen, rejected in pairs]
    return f"{mean(one == sign for one in signs):.2f}" if signs else "-"


def _shown(value: Any) -> str:
    return in_one_line(", ".join(map(str, value)) if isinstance(value, list) else str(value))
