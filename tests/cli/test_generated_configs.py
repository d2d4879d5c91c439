"""Settings that nobody wrote: every field of our classes, from the signatures, at its borders and beyond. What is typed
is accepted or refused in a sentence; nothing ends in a traceback.

FUZZ_EXAMPLES=20000 tries so many, others at every run; by default it is the same few.
"""

import contextlib
import inspect
import io
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.generated import generated

from lightning_bnf import callbacks, losses
from lightning_bnf.callbacks import RunReport
from lightning_bnf.cli.parser import Parser, restricted_class_paths
from lightning_bnf.costs.plan.question import Question
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.export.command import ExportOptions
from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.generation.server import Server
from lightning_bnf.policies import POLICIES
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.optimization import Optimization

LOSSES = [kind for kind in vars(losses).values() if inspect.isclass(kind) and issubclass(kind, losses.Loss)]
CALLBACKS = [kind for name in callbacks.__all__ if inspect.isclass(kind := getattr(callbacks, name))]
CLASSES = [kind for kind in (*LOSSES, *CALLBACKS, *POLICIES) if not inspect.isabstract(kind)]
CLASSES += [Optimization, DataOptions, PreferenceData, Sampling, Server, ExportOptions, Question, RunReport]
NEEDED = {"source": "none", "train": "none.jsonl", "folder": "f", "base_url": "http://h/v1", "model": "m", "root": "r"}
"""What has no default, where a string does."""

FIELDS = [
    (kind, name)
    for kind in CLASSES
    for name, parameter in inspect.signature(kind).parameters.items()
    if parameter.kind is parameter.POSITIONAL_OR_KEYWORD or parameter.kind is parameter.KEYWORD_ONLY
]
BORDERS = [-1, 0, 1, 2, -0.0, 1e-320, 1e308, 2**31, 2**64, 10**400, 0.5, 1.0, 1.5, True, False, None, "", "auto", "x"]
BORDERS += [
    float("nan"),
    float("inf"),
    -float("inf"),
    "nan",
    "null",
    "1e999",
    "0x10",
    "\0",
    "\ud800",
    "../..",
    "~",
    "a" * 300,
]
BORDERS += [[], {}, [None], [[]], [1, 2], ["a", "a"], {"": 1}, {"class_path": "os.system"}, {"class_path": 3}]
BORDERS += [{"class_path": "lightning_bnf.losses.DPO", "init_args": []}, {"init_args": {}}, [{"class_path": "BNF"}]]
VALUES = st.one_of(st.sampled_from(BORDERS), st.integers(), st.floats(), st.text(max_size=8))


@pytest.mark.slow
@generated(700)
@given(field=st.sampled_from(FIELDS), value=VALUES, typed=st.booleans())
def test_a_setting_is_accepted_or_refused_in_a_sentence(field: tuple[type, str], value: Any, typed: bool) -> None:
    is_accepted_or_refused(field, value, typed)


@pytest.mark.slow
@pytest.mark.parametrize("value", [None, "\ud800"], ids=ascii)
def test_null_and_half_a_character_are_accepted_or_refused_by_every_field(value: str | None) -> None:
    for field in FIELDS:
        is_accepted_or_refused(field, value, typed=False)


def is_accepted_or_refused(field: tuple[type, str], value: Any, typed: bool) -> None:
    kind, name = field
    parser = Parser()
    parser.add_class_arguments(kind, "it")
    parameters = inspect.signature(kind).parameters
    needed = [key for key, one in parameters.items() if one.default is one.empty and key in NEEDED and key != name]
    given = [f"--it.{key}={NEEDED[key]}" for key in needed]
    said, status = io.StringIO(), 0
    with restricted_class_paths([]), contextlib.redirect_stderr(said):
        try:
            if typed:
                config = parser.parse_args([*given, f"--it.{name}={_written(value)}"])
            else:
                config = parser.parse_object({"it": {key: NEEDED[key] for key in needed} | {name: value}})
            parser.instantiate_classes(config)
        except Refusal as refusal:
            said.write(str(refusal))
        except SystemExit as stop:
            status = stop.code
    assert "Traceback" not in said.getvalue()
    assert status == 0 or (status == 2 and said.getvalue().startswith("error: "))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else yaml.safe_dump(value, default_flow_style=True).split("\n...")[0].strip()
