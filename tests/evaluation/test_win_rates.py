"""Win rates on comparisons made by hand, and on simulated ones whose true rate is known."""

import numpy as np
import pytest

from lightning_bnf.evaluation.pass_rates import Record
from lightning_bnf.evaluation.win_rates import (
    Comparisons,
    comparisons,
    controlled_win_rate,
    joined,
    outcome,
    win_rate,
    win_rates,
)

pytestmark = pytest.mark.slow


def record(prompt: str, score: float, length: int = 5, finished: bool = True, group: str = "trained") -> Record:
    return Record(prompt, (group, "sums"), "greedy", "text", score, score == 1.0, length, finished)


def sigmoid(z: np.ndarray | float) -> np.ndarray | float:
    return 1 / (1 + np.exp(-z))


def simulated(rng: np.random.Generator, n: int, quality: float, bias: float, longer: float) -> Comparisons:
    """n comparisons, each won with P = sigmoid(quality + bias * tanh(d / 40)), d ~ N(longer, 40): at equal lengths the
    policy wins with sigmoid(quality); a judge of another `bias` than 0 looks at the length too."""
    length = np.full(n, 200.0)
    difference = rng.normal(longer, 40.0, n)
    won = rng.uniform(size=n) < sigmoid(quality + bias * np.tanh(difference / 40.0))
    return Comparisons(np.arange(n), won.astype(float), length + difference, length)


def test_battles_by_hand() -> None:
    """Higher score wins, equal ones tie, and what was cut off has 0, however good it was going to be."""
    ours = [record("a", 1.0), record("b", 0.5), record("c", 1.0, finished=False), record("d", 0.2, length=9)]
    base = [record("b", 0.5, length=7), record("a", 0.0), record("d", 0.1), record("c", 0.5)]
    fought = comparisons(ours, base)
    assert fought.win.tolist() == [1.0, 0.5, 0.0, 1.0]
    assert fought.length.tolist() == [5, 5, 5, 9]
    assert fought.base_length.tolist() == [5, 7, 5, 5]
    assert win_rate(fought).value == 0.625


@pytest.mark.parametrize("base", [["a"], ["a", "b", "b"], ["a", "x"], []])
def test_other_prompts_are_refused(base: list[str]) -> None:
    ours = [record("a", 1.0), record("b", 1.0)]
    with pytest.raises(
        ValueError, match="records and base must be one or more completions of the same prompts, once each, got"
    ):
        comparisons(ours, [record(name, 0.0) for name in base])
    with pytest.raises(ValueError, match="records and base must be one or more completions"):
        comparisons([], [])


def test_the_interval_covers_the_true_rate() -> None:
    """Won with 0.5, tied with 0.2, so the true rate is 0.6: 95 % of 600 intervals hold it, give or take 0.9 % (one
    standard error) and what a percentile interval of 120 comparisons lacks."""
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(600):
        win = rng.choice([1.0, 0.5, 0.0], p=[0.5, 0.2, 0.3], size=120)
        found = win_rate(Comparisons(np.arange(120), win, np.zeros(120), np.zeros(120)), resamples=400)
        held += found.low <= 0.6 <= found.high
    assert 0.93 <= held / 600 <= 0.97


def test_the_controlled_interval_covers_the_true_rate_at_equal_lengths() -> None:
    """sigmoid(0.5) = 0.622, by a judge who likes long answers, with a policy that gives longer ones: the plain rate is
    far above (it is hardly ever in the interval), the controlled one right. One standard error of 200 is 1.5 %."""
    rng = np.random.default_rng(11)
    true, held, plain_held = sigmoid(0.5), 0, 0
    for _ in range(200):
        fought = simulated(rng, 200, quality=0.5, bias=1.5, longer=40.0)
        found, plain = controlled_win_rate(fought, resamples=250), win_rate(fought, resamples=250)
        held += found.low <= true <= found.high
        plain_held += plain.low <= true <= plain.high
    assert 0.91 <= held / 200 <= 0.985
    assert plain_held / 200 < 0.05


def test_a_length_biased_judge_is_seen_through() -> None:
    """Two policies of equal quality, one 40 tokens longer: it wins far more than half, at equal lengths half."""
    fought = simulated(np.random.default_rng(3), 4000, quality=0.0, bias=2.0, longer=40.0)
    plain, controlled = win_rate(fought, resamples=300), controlled_win_rate(fought, resamples=300)
    assert plain.low > 0.65
    assert controlled.low <= 0.5 <= controlled.high
    assert controlled.high - controlled.low < 0.1


def test_without_bias_both_rates_agree() -> None:
    fought = simulated(np.random.default_rng(4), 4000, quality=0.8, bias=0.0, longer=40.0)
    assert win_rate(fought, resamples=300).value == pytest.approx(sigmoid(0.8), abs=0.02)
    assert controlled_win_rate(fought, resamples=300).value == pytest.approx(sigmoid(0.8), abs=0.03)


def test_without_differences_in_length_both_rates_are_the_same() -> None:
    same = Comparisons(np.arange(4), np.array([1.0, 1.0, 0.5, 0.0]), np.full(4, 9), np.full(4, 9))
    plain, controlled = win_rate(same), controlled_win_rate(same)
    assert (controlled.value, controlled.low, controlled.high) == pytest.approx((plain.value, plain.low, plain.high))
    assert controlled.value == pytest.approx(0.625)
    won = Comparisons(np.arange(4), np.ones(4), np.full(4, 9), np.full(4, 9))
    assert controlled_win_rate(won).value == pytest.approx(1.0, abs=1e-9)


def test_the_fit_is_the_maximum_of_what_it_says_it_maximises() -> None:
    """log-likelihood - b^2 / 2 on two grids, the second 50 times finer around the best of the first."""
    fought = simulated(np.random.default_rng(5), 40, quality=0.5, bias=2.0, longer=20.0)
    difference = fought.length - fought.base_length
    x = np.tanh(difference / difference.std())

    def best(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
        p = sigmoid(a[:, None, None] + b[None, :, None] * x)
        value = (fought.win * np.log(p) + (1 - fought.win) * np.log(1 - p)).sum(-1) - b**2 / 2
        i, j = np.unravel_index(value.argmax(), value.shape)
        return a[i], b[j]

    a, b = best(np.linspace(-4, 4, 201), np.linspace(-4, 4, 201))
    a, b = best(a + np.linspace(-0.04, 0.04, 101), b + np.linspace(-0.04, 0.04, 101))
    assert controlled_win_rate(fought, resamples=20).value == pytest.approx(sigmoid(a), abs=3e-4)


def test_where_length_alone_decides_the_fit_is_finite() -> None:
    """Every longer answer wins: nothing speaks for either side at equal lengths."""
    difference = np.array([-30.0, -20.0, -10.0, 10.0, 20.0, 30.0])
    fought = Comparisons(np.arange(6), (difference > 0).astype(float), 100 + difference, np.full(6, 100.0))
    found = controlled_win_rate(fought)
    assert found.value == pytest.approx(0.5)
    assert 0 <= found.low < 0.5 < found.high <= 1


def test_battles_of_a_prompt_are_drawn_together() -> None:
    """Each comparison twice under the same prompt is no more evidence; as if of 80 the interval would shrink."""
    one = simulated(np.random.default_rng(6), 40, quality=0.5, bias=1.0, longer=0.0)
    twice = Comparisons(*(np.concatenate([part, part]) for part in (one.prompt, one.win, one.length, one.base_length)))
    for estimate in (win_rate, controlled_win_rate):
        narrow = estimate(Comparisons(np.arange(80), twice.win, twice.length, twice.base_length))
        wide = estimate(twice)
        assert (narrow.high - narrow.low) / (wide.high - wide.low) == pytest.approx(0.5**0.5, abs=0.1)
    single, double = win_rate(one), win_rate(twice)
    assert (single.low, single.high) == (double.low, double.high)


def test_groups_and_their_table() -> None:
    ours = [record("a", 1.0, length=8), record("b", 1.0), record("k", 0.0, group="kept-out")]
    base = [record("a", 0.0), record("b", 1.0), record("k", 1.0, group="kept-out")]
    found = win_rates(ours, base)
    assert [(one.group, one.n) for one in found] == [("trained", 2), ("kept-out", 1), ("sums", 3)]
    trained = found[0]
    assert (trained.wins, trained.ties, trained.losses, trained.rate.value) == (0.5, 0.5, 0.0, 0.75)
    assert (trained.length, trained.base_length) == (6.5, 5.0)
    with pytest.raises(ValueError, match="the groups must be the same on both sides, got"):
        win_rates(ours, base[:2])


def test_runs_on_the_same_prompts_are_joined() -> None:
    """Two runs against one base on two prompts: a cut-off completion scores 0, a tie is a half."""
    base = [record("p", 1.0, 3), record("q", 0.0, 4)]
    runs = [[record("p", 1.0), record("q", 1.0)], [record("p", 1.0, finished=False), record("q", 0.0, 6)]]
    assert [[outcome(*pair) for pair in zip(run, base)] for run in runs] == [[0.5, 1.0], [0.0, 0.5]]
    both = joined([comparisons(run, base) for run in runs])
    assert both.prompt.tolist() == [0, 1, 0, 1]
    assert both.win.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert both.length.tolist() == [5, 5, 5, 6]
    assert both.base_length.tolist() == [3, 4, 3, 4]
