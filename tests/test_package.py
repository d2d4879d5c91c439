"""What importing the package does."""

import subprocess
import sys


def test_no_library_talks_about_itself() -> None:
    """bitsandbytes says at import that it lacks a kernel, which nobody can use here: once in each process."""
    code = "import lightning_bnf.policies, bitsandbytes; print(bitsandbytes.__name__)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "bitsandbytes\n"
    assert "gemm_4bit_forward" not in found.stderr
