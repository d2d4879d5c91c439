"""AlpacaEval's rates by hand and against alpaca_eval's own functions."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from lightning_bnf.evaluation.judged.alpaca_eval import Gamed, length_controlled, win_rate

N = 80


def test_the_win_rate_by_hand() -> None:
    """1 + (0, 1/2, 1): mean 50; deviation 50, of three: 50 / sqrt(3)."""
    found = win_rate(np.array([1, 1.5, 2, np.nan]))
    assert (found.n, found.missing, found.rate.value) == (3, 1, 50)
    assert found.error == pytest.approx(50 / 3**0.5)


def test_others_are_refused() -> None:
    with pytest.raises(ValueError, match="preference must be numbers from 1 to 2, two at least"):
        win_rate(np.array([1.0, 3.0]))
    gamed = Gamed(np.array([0]), np.array([1.0]), np.array([0.0]), np.array([0.5]))
    with pytest.raises(ValueError, match="index must be an instruction of the file of difficulties, got 1"):
        length_controlled(np.full(10, 1.5), np.arange(10), np.arange(10), np.arange(10), gamed)


@pytest.fixture(scope="module")
def theirs() -> Any:
    """alpaca_eval's module, which wants a package that newer setuptools have no more."""
    with pytest.MonkeyPatch.context() as patch:
        if "pkg_resources" not in sys.modules:
            patch.setitem(sys.modules, "pkg_resources", types.ModuleType("pkg_resources"))
        from alpaca_eval.metrics import glm_winrate

        yield glm_winrate
    import sklearn

    sklearn.set_config(enable_metadata_routing=False)  # which it turns on for all


def annotations(seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    preference = np.round(1 + 1 / (1 + np.exp(-rng.normal(0.3, 2, N))), 6)
    texts = [["x" * int(n) for n in rng.integers(20, 900, N)] for _ in range(2)]
    return pd.DataFrame(
        {
            "preference": np.where(np.arange(N) % 20 == 3, np.nan, preference) if seed else preference,
            "output_1": texts[0],
            "output_2": texts[1],
            "index": np.arange(N),
            "generator_1": "base",
            "generator_2": "mine",
        }
    )


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of scikit-learn, at theirs
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_alpaca_evals_own(theirs: Any, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file of difficulties that it would fetch, made up; missing preferences with seed 1."""
    rng = np.random.default_rng(9)
    gamed = pd.DataFrame(
        {
            "index": np.tile(np.arange(N), 2),
            "model": np.repeat(["short", "long"], N),
            "instruction_difficulty": np.tile(rng.normal(size=N), 2),
            "std_delta_len": rng.normal(size=2 * N),
            "preference": rng.random(2 * N),
            "not_gamed_baseline": False,
        }
    )
    gamed.to_csv(tmp_path / "df_gamed.csv", index=False)
    monkeypatch.setattr(theirs, "hf_hub_download", lambda **_: str(tmp_path / "df_gamed.csv"))
    table = annotations(seed)
    if seed:
        monkeypatch.setattr(
            theirs, "get_winrate", lambda given: {"win_rate": 50.0}
        )  # whose check breaks on missing ones
    published = theirs.get_length_controlled_winrate(table, save_weights_dir=None)
    preference = table["preference"].to_numpy(float)
    length, base = (table[name].str.len().to_numpy() for name in ("output_2", "output_1"))
    held = Gamed(
        *(gamed[name].to_numpy() for name in ("index", "instruction_difficulty", "std_delta_len", "preference"))
    )
    found = length_controlled(preference, length, base, np.arange(N), held, resamples=3)
    assert found.rate.value == pytest.approx(published["length_controlled_winrate"], abs=0.01)
    assert found.error == pytest.approx(published["lc_standard_error"], abs=0.01)
    if not seed:
        plain = win_rate(preference)
        assert plain.rate.value == pytest.approx(published["win_rate"], abs=1e-9)
        assert plain.error == pytest.approx(published["standard_error"], abs=1e-9)


def test_a_length_bias_is_taken_out_and_an_advantage_stays() -> None:
    """Preferences that grow with length alone are 50 at equal lengths; those of a better model stay above."""
    rng = np.random.default_rng(0)
    base = rng.integers(200, 800, 300)
    length = base + rng.integers(-100, 500, 300)
    x = np.tanh((length - base) / (length - base).std(ddof=1))
    for advantage, low, high in ((0.0, 46, 54), (1.0, 68, 78)):
        preference = 1 + 1 / (1 + np.exp(-(advantage + 1.5 * x + rng.normal(0, 0.3, 300))))
        assert win_rate(preference).rate.value > high
        found = length_controlled(preference, length, base, resamples=50)
        assert low < found.rate.value < high
        assert found.rate.low < found.rate.value < found.rate.high
