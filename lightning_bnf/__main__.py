"""`python -m lightning_bnf`."""

from lightning_bnf.cli.main import main

if __name__ == "__main__":
    main()
