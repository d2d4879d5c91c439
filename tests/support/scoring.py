"""Two groups of completions to score."""

from lightning_bnf.preparation import Candidates

GROUPS = [
    Candidates(({"role": "user", "content": "What is 3 + 4?"},), ("7", "The sum of the two is 7, of course.", "8")),
    Candidates(({"role": "user", "content": "Say hello to Ann, Bob and all the others."},), ("Hello!", "No")),
]
