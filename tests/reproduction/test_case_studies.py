"""The case studies' right answers, found another way."""

from itertools import combinations_with_replacement

import pytest

from lightning_bnf.reproduction.case_studies import (
    CASES,
    COINS,
    case_studies,
    inference_gigabytes,
    panels,
    ways_to_pay,
)


@pytest.mark.parametrize(("cents", "coins"), [(100, 19), (7, 3), (30, 6), (2, 5), (4, 1)])
def test_ways_to_pay_are_all_that_there_are(cents: int, coins: int) -> None:
    """Against every choice of so many coins."""
    found = {
        tuple(sorted(kind for kind, count in way.items() for _ in range(count))) for way in ways_to_pay(cents, coins)
    }
    assert found == {
        tuple(sorted(chosen)) for chosen in combinations_with_replacement(COINS, coins) if sum(chosen) == cents
    }


def test_panels_are_whole() -> None:
    assert panels(40, 0.3, 0.4, 4) == 8, "7.5 of them"
    assert panels(16, 0.3, 0.4, 4) == 3, "4.8 kWh by 1.6, which floats make a little more than 3"


def test_memory_is_weights_and_keys_and_values() -> None:
    """One parameter and one token: 2 bytes, and keys and values of 2 layers of 3 numbers."""
    assert inference_gigabytes(1, 1, 1, 2, 3) * 1e9 == 2 + 2 * 2 * 2 * 3
    assert inference_gigabytes(1, 500, 7e9, 32, 4096) == pytest.approx(14.26, abs=0.01)


def test_the_table_marks_what_is_right() -> None:
    table = case_studies()
    assert len(table) == len(CASES) == 3
    solar = next(line for question, line in table.iterrows() if "panels" in str(question))
    assert [str(solar[name])[0] for name in ("right", "Base", "BNF", "DPO", "SimPO")] == ["8"] * 5
    assert "\N{CHECK MARK}" in solar["BNF"]
    coins = table.loc["a dollar in 19 coins"]
    assert coins["right"].startswith(f"{len(list(ways_to_pay(100, 19)))} ways")
    assert not any("\N{CHECK MARK}" in str(value) for value in coins)
