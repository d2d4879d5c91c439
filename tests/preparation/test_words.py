"""The words that questions are made of."""

import re

from lightning_bnf.preparation.words import NOUNS, TOPICS


def test_words_are_distinct_and_plain():
    for words in (NOUNS, TOPICS):
        assert len(set(words)) == len(words)
        assert all(re.fullmatch(r"[a-z]+( [a-z]+)*", word) for word in words)
