"""`python -m lightning_bnf`."""

from lightning_bnf.cli import main

if __name__ == "__main__":
    main()
