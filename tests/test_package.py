"""What importing the package does."""

import subprocess
import sys

import pytest

import lightning_bnf
from lightning_bnf import losses


@pytest.mark.slow
def test_no_library_talks_about_itself() -> None:
    """bitsandbytes says at import that it lacks a kernel, which nobody can use here: once in each process."""
    code = "import lightning_bnf.policies, bitsandbytes; print(bitsandbytes.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "bitsandbytes\n"
    assert "gemm_4bit_forward" not in found.stderr


def test_importing_the_package_imports_neither_torch_nor_what_builds_on_it() -> None:
    code = "import sys, lightning_bnf; dir(lightning_bnf); print({'torch', 'transformers'} & {*sys.modules})"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "set()\n"


def test_every_name_of_the_package_is_there() -> None:
    for name in lightning_bnf.__all__:
        assert getattr(lightning_bnf, name).__name__ == name
    assert set(lightning_bnf.__all__) <= set(dir(lightning_bnf))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lightning_bnf.nothing  # noqa: B018


def test_every_loss_is_a_name_of_the_package() -> None:
    kinds = {name for name, kind in vars(losses).items() if isinstance(kind, type) and issubclass(kind, losses.Loss)}
    assert kinds <= set(lightning_bnf.__all__)
