"""Lightning's own refusals of the Trainer's settings, as ours."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lightning_bnf.runtime.files import FULL, writing
from lightning_bnf.runtime.refusal import Refusal

WHILE_BUILT = (MisconfigurationException, ValueError, TypeError, ImportError, ArithmeticError)
"""What a Trainer raises for its arguments; ImportError for a package that a device, precision or strategy lacks."""


@contextmanager
def trainer_refusals(
    settings: Mapping[str, Any], prefix: str = "trainer.", built: bool = True, folder: Path | None = None
) -> Iterator[None]:
    """Turns what Lightning refuses in the block into a `Refusal` that names the setting and its value.

    settings: the Trainer's, by name. built: whether the block only builds the Trainer, so that every error there is
    one of its settings'; while it runs, an error is that if it is a MisconfigurationException, or if it begins with a
    setting of the Trainer's. folder: the run's, which is named where its disk is full and a library does not say
    which file it wrote.
    """
    try:
        with nullcontext() if folder is None else writing(folder, FULL):
            yield
    except Refusal:
        raise
    except WHILE_BUILT as error:
        named = _named(str(error), settings)
        first = re.match(r"\W*(\w+)", str(error))
        if not built and not isinstance(error, MisconfigurationException) and (not first or first[1] != named):
            raise
        sentence = " ".join(str(error).split())
        if "can not run on your system" in sentence:
            here = sentence.rpartition("['")[2].rpartition("']")[0].replace("'", "")
            accepted = f"auto or one that this machine has ({here})"
            raise Refusal(f"{prefix}accelerator must be {accepted}, got {settings['accelerator']}") from error
        name, value = (
            (prefix + named, repr(settings[named])) if named else (prefix[:-1] or "settings", "something else")
        )
        raise Refusal(f"{name} must be what Lightning accepts, got {value}: {sentence}") from error


def _named(message: str, settings: Mapping[str, Any]) -> str | None:
    """The first setting that a message names, else the one whose value it does: `deepspeed`."""
    words = re.findall(r"\w+", message)
    by_name = next((word for word in words if word in settings), None)
    values = {name: value.lower().replace("-", "_") for name, value in settings.items() if isinstance(value, str)}
    by_value = (name for name, value in values.items() if len(value) > 2 and value in message.lower())
    return by_name or next(by_value, None)
