"""Numbers with a range: on the command line, in constructors and in functions."""

import math
import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from jsonargparse import ArgumentParser

from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, ZeroToBelowHalf, checked
from lightning_bnf.runtime.refusal import Refusal


@checked
@dataclass(frozen=True)
class Settings:
    scale: PositiveFloat = 1.0
    count: PositiveInt | None = None
    share: ZeroToBelowHalf = 0.0
    betas: tuple[PositiveFloat, PositiveFloat] = (0.9, 0.999)
    mode: Literal["mean", "sum"] = "mean"
    note: str = ""


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"scale": -1}, "scale must be > 0, got -1"),
    ({"scale": math.inf}, "scale must be a finite number > 0, got inf"),
    ({"scale": math.nan}, "scale must be a finite number > 0, got nan"),
    ({"scale": "wide"}, "scale must be a finite number > 0, got 'wide'"),
    ({"scale": True}, "scale must be a finite number > 0, got True"),
    ({"scale": None}, "scale must be a finite number > 0, got None"),
    ({"count": 0}, "count must be >= 1, got 0"),
    ({"count": 1.5}, "count must be a whole number >= 1, got 1.5"),
    ({"scale": 10**400}, f"scale must be a finite number > 0, got 1{'0' * 400}"),
    ({"count": 10**400}, f"count must be a whole number >= 1, got 1{'0' * 400}"),
    ({"share": 0.5}, "share must be in [0, 0.5), got 0.5"),
    ({"betas": (0.9, 0.0)}, "betas[1] must be > 0, got 0.0"),
    ({"note": None}, "note must be of type str, got null"),
    ({"betas": None}, "betas must be of type tuple[float > 0, float > 0], got null"),
    ({"mode": "max"}, "mode must be 'mean' or 'sum', got 'max'"),
]


@pytest.mark.parametrize(("arguments", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_a_constructor_refuses_what_is_outside_its_annotations(arguments: dict[str, Any], message: str) -> None:
    for make in (lambda: Settings(**arguments), lambda: replace(Settings(), **arguments)):
        with pytest.raises(Refusal, match=f"^{re.escape(message)}$"):
            make()


def test_what_is_inside_comes_through_as_plain_numbers() -> None:
    settings = Settings(2, 3.0, betas=[1, 2], note="any")  # type: ignore[arg-type]
    assert settings == Settings(scale=2.0, count=3, betas=[1.0, 2.0], note="any")  # type: ignore[arg-type]
    assert (type(settings.scale), type(settings.count)) == (float, int)
    assert Settings(count=None).count is None


def test_a_function_is_held_to_its_annotations_too() -> None:
    @checked
    def halved(count: PositiveInt) -> float:
        """Half of it."""
        return count / 2

    assert (halved(3), halved.__doc__) == (1.5, "Half of it.")
    with pytest.raises(Refusal, match="count must be >= 1, got 0"):
        halved(count=0)


def test_help_shows_the_ranges(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--settings", type=Settings)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for shown in ("float > 0, default: 1.0", "int >= 1 | null", "float in [0, 0.5)", "tuple[float > 0, float > 0]"):
        assert f"(type: {shown}" in text


def test_a_parser_reads_plain_numbers_and_refuses_at_parse_time(capsys: pytest.CaptureFixture[str]) -> None:
    parser = ArgumentParser()
    parser.add_argument("--settings", type=Settings)
    parsed = parser.parse_args(["--settings.scale", "2", "--settings.count", "3"])
    assert (type(parsed.settings.scale), type(parsed.settings.count)) == (float, int)
    assert "scale: 2.0\n" in parser.dump(parsed)
    with pytest.raises(SystemExit):
        parser.parse_args(["--settings.scale", "inf"])
    assert "must be a finite number > 0, got inf" in capsys.readouterr().err
