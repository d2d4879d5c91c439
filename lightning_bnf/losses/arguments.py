"""Checks of losses' arguments: one sentence each, with argument, value and what is accepted."""

from collections.abc import Sequence

from lightning_bnf.runtime.refusal import Refusal


def positive(**arguments: float) -> None:
    """Refuse (ValueError) arguments that are not > 0."""
    for name, value in arguments.items():
        if not value > 0:
            raise Refusal(f"{name} {value}: accepted are numbers > 0")


def not_negative(**arguments: float) -> None:
    """Refuse (ValueError) arguments that are not >= 0."""
    for name, value in arguments.items():
        if not value >= 0:
            raise Refusal(f"{name} {value}: accepted are numbers >= 0")


def label_share(**arguments: float) -> None:
    """Refuse (ValueError) assumed shares of swapped labels outside [0, 0.5)."""
    for name, value in arguments.items():
        if not 0 <= value < 0.5:
            raise Refusal(f"{name} {value}: accepted are numbers from 0 to below 0.5")


def one_of(name: str, value: str, accepted: Sequence[str]) -> None:
    """Refuse (ValueError) a word that is none of the accepted ones."""
    if value not in accepted:
        *others, last = map(repr, accepted)
        raise Refusal(f"{name} {value!r}: accepted are {', '.join(others)} and {last}")
