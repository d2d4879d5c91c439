"""`python -m lightning_bnf`."""

import logging

# At import it says that it lacks a kernel for 4-bit products on CPUs, to everybody.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)

from lightning_bnf.cli import main  # noqa: E402

if __name__ == "__main__":
    main()
