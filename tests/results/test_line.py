"""The line through times against tokens."""

import pytest

from lightning_bnf.results.line import Line


def test_the_line_of_scaling() -> None:
    """2 s and 3 ms a token; a fourth time that is a third too long pulls the line, and is missed by most."""
    line = Line.through([1000, 2000, 8000], [5.0, 8.0, 26.0])
    assert (line.fixed, line.per_token) == (pytest.approx(2), pytest.approx(0.003))
    assert line.misses == pytest.approx(0, abs=1e-9)
    assert str(line) == "2.00 s + 3.00 ms a token (misses by 0.0 % at most)"
    tokens, seconds = [1000.0, 2000.0, 4000.0, 8000.0], [5.0, 8.0, 14 * 4 / 3, 26.0]
    found = Line.through(tokens, seconds)

    def errors(fixed: float, per_token: float) -> list[float]:
        return [(fixed + per_token * x) / y - 1 for x, y in zip(tokens, seconds)]

    best = sum(error**2 for error in errors(found.fixed, found.per_token))
    for fixed, slope in ((0.01, 0.0), (-0.01, 0.0), (0.0, 1e-5), (0.0, -1e-5)):
        assert sum(error**2 for error in errors(found.fixed + fixed, found.per_token + slope)) > best
    assert found.misses == pytest.approx(max(map(abs, errors(found.fixed, found.per_token))))
    with pytest.raises(ValueError, match=r"accepted are three points or more"):
        Line.through([1.0, 2.0], [1.0, 2.0])
