"""Measures by hand: log-probs chosen so that means and ratios are whole numbers."""

from dataclasses import replace

import numpy as np

from lightning_bnf.datamodules.tokens.renderer import TokenizedCompletion, TokenizedRow
from lightning_bnf.evaluation.likelihood.choices import Question
from lightning_bnf.evaluation.likelihood.material import Material
from lightning_bnf.evaluation.likelihood.measures import Sums, lines, row_fingerprints, table, values
from lightning_bnf.evaluation.pass_rates import VerifiedPrompt


def row(name: str, *lengths: int, kept_out: bool = False) -> TokenizedRow:
    answers = tuple(TokenizedCompletion([7] * n, [True] * n, 1) for n in lengths)
    return TokenizedRow(name, f"x:{name}", "paired", [5], answers, kept_out=kept_out)


OF = Material(
    questions=[Question(row("q1", 1, 1), "A", {}, 0, (1.0, 1.0)), Question(row("q2", 1, 1), "B", {}, 1, (1.0, 1.0))],
    pairs=[row("p1", 2, 4), row("p2", 1, 1, kept_out=True)],
    prose=[row("t", 4)],
    prompts=[row("s")],
    verified=[VerifiedPrompt(name, "f", [1], {}, 4, kept_out=name == "k") for name in "akb"],
)
POLICY = Sums(
    questions=[np.log([0.5, 0.25]), np.log([0.5, 0.25])],
    pairs=[np.array([-4.0, -12.0]), np.array([-2.0, -2.0])],
    prose=[np.array([-8.0])],
    base_samples=[np.array([-6.0])],
    own_samples=[np.array([-3.0])],
    passes=[True, True, False],
)
BASE = replace(
    POLICY,
    pairs=[np.array([-4.0, -8.0]), np.array([-1.0, -2.0])],
    prose=[np.array([-4.0])],
    base_samples=[np.array([-5.0])],
    own_samples=[np.array([-5.0])],
)


def test_each_measure_by_hand():
    """The pair: -4 over 2 tokens is -2, -12 over 4 is -3, a margin of 1; from the base the rejected one fell by 4. Of
    the kept-out pair both answers are as likely, and the chosen one fell. Prose: -8 over 4 tokens. The base's sample
    lost 1 nat, the policy's own gained 2."""
    found = {name: some.tolist() for name, some in values(OF, POLICY, BASE).items()}
    assert found == {
        "A": [1.0],
        "B": [0.0],
        "choices": [1.0, 0.0],
        "choices_ranked": [1.0, 0.0],
        "pairs_ranked": [1.0],
        "pairs_margin": [1.0],
        "pairs_won": [1.0],
        "pairs_ranked_kept_out": [0.5],
        "pairs_margin_kept_out": [0.0],
        "pairs_won_kept_out": [0.0],
        "prose": [-2.0],
        "kl_base": [1.0],
        "kl_own": [2.0],
        "passes": [1.0, 0.0],
        "passes_kept_out": [1.0],
    }


def test_without_a_base_there_are_no_distances():
    assert set(values(OF, POLICY)) == set(values(OF, POLICY, BASE)) - {
        "pairs_won",
        "pairs_won_kept_out",
        "kl_base",
        "kl_own",
    }


def test_passes_are_of_those_that_were_answered():
    assert {"passes", "passes_kept_out"}.isdisjoint(values(OF, replace(POLICY, passes=())))


def test_lines_compare_row_by_row():
    """Both fell by 1 on every row, so the interval of the difference is that number alone, wide as the values are."""
    base = np.array([0.0, 10.0])
    (prose, distance) = lines({"prose": base - 1, "kl_own": base}, {"prose": base})
    assert (prose.n, prose.value, prose.base, prose.difference) == (2, 4.0, 5.0, -1.0)
    assert (prose.difference_low, prose.difference_high) == (-1.0, -1.0)
    assert (prose.low, prose.high) == (-1.0, 9.0)
    assert distance.base is None
    text = table([prose, distance])
    assert "| prose   | 2 | 4.000 [-1.000, 9.000] | 5.000 | -1.000 [-1.000, -1.000] |" in text
    assert "| kl_own  | 2 | 5.000 [0.000, 10.000] | -     | -                       |" in text


def test_fingerprints_tell_other_rows_apart():
    first, other = row_fingerprints(OF), row_fingerprints(replace(OF, prose=[row("t", 5)]))
    assert {name for name in first if first[name] != other[name]} == {"prose"}
    asked = row_fingerprints(replace(OF, verified=OF.verified[:1]))
    assert {name for name in first if first[name] != asked[name]} == {"verified"}
    assert "verified" not in row_fingerprints(replace(OF, verified=()))
