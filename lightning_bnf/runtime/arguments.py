"""Numbers with a range, as types: --help shows the range, the command line and constructors refuse what is outside.

jsonargparse reads the annotations, Python checks none of them. `checked` makes constructors and functions hold to them
too, so that notebooks and `dataclasses.replace` are refused alike. All floats are finite.
"""

import functools
import inspect
import math
import re
import types
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jsonargparse.typing import register_type

from lightning_bnf.runtime.refusal import Refusal

Made = TypeVar("Made", bound=Callable[..., Any])


def _number(base: type, accepted: str, holds: Callable[[float], bool]) -> type:
    """A type that stands in annotations only: what is parsed by it, or goes through `checked`, is a plain `base`."""

    def read(value: Any) -> Any:
        try:
            number = None if isinstance(value, bool) else base(value)
            exact = number is not None and math.isfinite(number) and (base is float or number == float(value))
        except (TypeError, ValueError, OverflowError):  # a whole number beyond a float's range is no setting either
            number, exact = None, False
        if number is None or not exact:
            kind = "a whole number" if base is int else "a finite number"
            raise Refusal(f"must be {kind} {accepted}".rstrip() + f", got {repr(value) if number is None else value}")
        if not holds(number):
            raise Refusal(f"must be {accepted}, got {value}")
        return number

    made = type(f"{base.__name__} {accepted}".rstrip(), (base,), {"read": staticmethod(read)})
    register_type(made, serializer=base, deserializer=read, type_check=lambda value, kind: False)
    return made


if TYPE_CHECKING:
    PositiveInt = int
    AtLeastTwo = int
    NonNegativeInt = int
    Seed = int
    FiniteFloat = float
    PositiveFloat = float
    NonNegativeFloat = float
    ClosedUnitInterval = float
    OpenUnitInterval = float
    ZeroToBelowOne = float
    AboveZeroToOne = float
    ZeroToBelowHalf = float
    AboveZeroToBelowHalf = float
    AboveOne = float
    BelowOne = float
else:
    PositiveInt = _number(int, ">= 1", lambda x: x >= 1)
    AtLeastTwo = _number(int, ">= 2", lambda x: x >= 2)
    NonNegativeInt = _number(int, ">= 0", lambda x: x >= 0)
    Seed = _number(int, "in [0, 4294967295]", lambda x: 0 <= x < 2**32)
    FiniteFloat = _number(float, "", lambda x: True)
    PositiveFloat = _number(float, "> 0", lambda x: x > 0)
    NonNegativeFloat = _number(float, ">= 0", lambda x: x >= 0)
    ClosedUnitInterval = _number(float, "in [0, 1]", lambda x: 0 <= x <= 1)
    OpenUnitInterval = _number(float, "in (0, 1)", lambda x: 0 < x < 1)
    ZeroToBelowOne = _number(float, "in [0, 1)", lambda x: 0 <= x < 1)
    AboveZeroToOne = _number(float, "in (0, 1]", lambda x: 0 < x <= 1)
    ZeroToBelowHalf = _number(float, "in [0, 0.5)", lambda x: 0 <= x < 0.5)
    AboveZeroToBelowHalf = _number(float, "in (0, 0.5)", lambda x: 0 < x < 0.5)
    AboveOne = _number(float, "> 1", lambda x: x > 1)
    BelowOne = _number(float, "< 1", lambda x: x < 1)


def checked(made: Made) -> Made:
    """A class or function that holds its arguments to the number types and the Literals they are annotated with, and
    takes None only where it is among their types.

    Arguments outside raise `Refusal` before its body runs: `beta must be > 0, got -1`.
    """
    function = made.__init__ if isinstance(made, type) else made  # type: ignore[misc]
    signature = inspect.signature(function)
    hints = functools.cache(lambda: get_type_hints(function))  # when it is called: names may be defined further down

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        for name in given.arguments.keys() & hints().keys():
            given.arguments[name] = _accepted(name, given.arguments[name], hints()[name])
        return function(*given.args, **given.kwargs)

    if not isinstance(made, type):
        return call  # type: ignore[return-value]
    made.__init__ = call  # type: ignore[misc]
    return made


def _takes_none(kind: Any) -> bool:
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return any(part in (None, type(None), Any, object) or isinstance(part, TypeVar) for part in parts)


def _accepted(name: str, value: Any, kind: Any) -> Any:
    """The value as its annotation wants it, or a refusal."""
    parts = get_args(kind)
    if value is None and not _takes_none(kind) and not hasattr(kind, "read") and get_origin(kind) is not Literal:
        named = kind.__name__ if isinstance(kind, type) and not parts else re.sub(r"\b(?:\w+\.)+", "", str(kind))
        raise Refusal(f"{name} must be of type {named}, got null")
    if get_origin(kind) in (Union, types.UnionType):
        words = [word for part in parts if get_origin(part) is Literal for word in get_args(part)]
        allowed = value in words or (value is None and type(None) in parts)
        return value if allowed else _accepted(name, value, parts[0])
    if get_origin(kind) is Literal and value not in parts:
        *others, last = map(repr, parts)
        raise Refusal(f"{name} must be {' or '.join([', '.join(others), last] if others else [last])}, got {value!r}")
    if get_origin(kind) in (list, tuple, Sequence) and hasattr(parts[0], "read"):
        return type(value)(_accepted(f"{name}[{i}]", entry, parts[0]) for i, entry in enumerate(value))
    if not hasattr(kind, "read"):
        return value
    try:
        return kind.read(value)
    except Refusal as refused:
        raise Refusal(f"{name} {refused}") from None
