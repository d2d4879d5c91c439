"""The task families of data/quickstart: what a 135-million-parameter model answers well sometimes, but not always.

Each was measured before it was taken (data/quickstart/README.md holds the pass rates): where a model always or never
passes, no pair can be made of its own samples. Left out for passing less than one time in ten: counting, repeating,
a given first word, an exact number of words, a number and nothing else. Some of their verifiers pass answers that need
no skill (`largest` is a guess among three places, `highlight` passes a copy of its example): experiments that compare
methods take those of `controlled_tasks.py`.
"""

from collections.abc import Callable
from random import Random

from lightning_bnf.preparation.controlled_tasks import CONTROLLED
from lightning_bnf.preparation.families import Family, Question
from lightning_bnf.preparation.words import CAPITALS, NOUNS, TOPICS

_SHORT = (" Answer in one short sentence.", " Answer with one short sentence.", " Reply in one short sentence.")


def _addition(rng: Random) -> Question:
    a, b = rng.randint(1, 9), rng.randint(1, 20)
    ask = rng.choice(("What is {a} + {b}?", "What is {a} plus {b}?", "How much is {a} + {b}?"))
    key = f"{min(a, b)} {max(a, b)}"
    return Question(key, ask.format(a=a, b=b) + rng.choice(_SHORT), {"name": "number", "answer": a + b})


def _subtraction(rng: Random) -> Question:
    b, rest = rng.randint(1, 9), rng.randint(1, 9)
    ask = rng.choice(("What is {a} - {b}?", "What is {a} minus {b}?", "How much is {a} - {b}?"))
    text = ask.format(a=b + rest, b=b) + rng.choice(_SHORT)
    return Question(f"{b + rest} {b}", text, {"name": "number", "answer": rest})


def _largest(rng: Random) -> Question:
    return _extreme(rng, "largest", max)


def _smallest(rng: Random) -> Question:
    return _extreme(rng, "smallest", min)


def _extreme(rng: Random, word: str, pick: Callable[[list[int]], int]) -> Question:
    numbers = rng.sample(range(1, 100), 3)
    ask = rng.choice(("Which number is the {w}: {a}, {b} or {c}?", "Which of {a}, {b} and {c} is the {w} number?"))
    text = ask.format(w=word, a=numbers[0], b=numbers[1], c=numbers[2]) + rng.choice(_SHORT)
    return Question(" ".join(map(str, sorted(numbers))), text, {"name": "only_number", "answer": pick(numbers)})


def _first_letter(rng: Random) -> Question:
    noun = rng.choice([noun for noun in NOUNS if noun[0] not in "ai"])  # "a" and "I" are words
    ask = rng.choice(('What is the first letter of the word "{w}"?', 'Which letter does the word "{w}" start with?'))
    return Question(noun, ask.format(w=noun) + rng.choice(_SHORT), {"name": "mentions", "answers": [noun[0]]})


def _plural(rng: Random) -> Question:
    noun = rng.choice(NOUNS)
    ask = rng.choice(('What is the plural of "{w}"?', 'What is the plural form of the word "{w}"?'))
    return Question(noun, ask.format(w=noun) + rng.choice(_SHORT), {"name": "mentions", "answers": [noun + "s"]})


def _capital(rng: Random) -> Question:
    country = rng.choice(list(CAPITALS))
    ask = rng.choice(("What is the capital of {c}?", "Which city is the capital of {c}?"))
    return Question(
        country, ask.format(c=country) + rng.choice(_SHORT), {"name": "mentions", "answers": [CAPITALS[country]]}
    )


def _keywords(rng: Random) -> Question:
    words = rng.sample(NOUNS, rng.choice((2, 3)))
    ask = rng.choice(
        ("Write one short sentence with the words {w}.", "Write one sentence that contains the words {w}.")
    )
    quoted = ", ".join(words[:-1]) + " and " + words[-1]
    return Question(" ".join(sorted(words)), ask.format(w=quoted), {"name": "keywords", "words": words})


def _fewer_words(rng: Random) -> Question:
    topic, limit = rng.choice(TOPICS), rng.choice((8, 10, 12, 15))
    ask = rng.choice(
        ("Describe {t} in fewer than {n} words.", "What do you think of {t}? Answer in fewer than {n} words.")
    )
    return Question(topic, ask.format(t=topic, n=limit), {"name": "fewer_words", "limit": limit})


def _no_commas(rng: Random) -> Question:
    topic = rng.choice(TOPICS)
    ask = rng.choice(
        (
            "Write one sentence about {t} without using any commas.",
            "Tell me something about {t}. Do not use any commas.",
        )
    )
    return Question(topic, ask.format(t=topic), {"name": "no_commas"})


def _highlight(rng: Random) -> Question:
    topic = rng.choice(TOPICS)
    ask = rng.choice(
        (
            "Write one sentence about {t} and highlight one word with asterisks, like *this*.",
            "Write one short sentence about {t}. Highlight the most important word in it with asterisks, like *word*.",
        )
    )
    return Question(topic, ask.format(t=topic), {"name": "highlighted", "count": 1})


def _end_question(rng: Random) -> Question:
    topic = rng.choice(TOPICS)
    ask = rng.choice(
        (
            "Write two short sentences about {t}. End with a question.",
            "Say something short about {t}, then ask a question.",
        )
    )
    return Question(topic, ask.format(t=topic), {"name": "ends_with_question"})


def _list_items(rng: Random) -> Question:
    topic, count = rng.choice(TOPICS), rng.choice((2, 3))
    ask = rng.choice(("List {n} short facts about {t}, one per line.", "List {n} good things about {t}, one per line."))
    return Question(topic, ask.format(n=count, t=topic), {"name": "list_items", "count": count})


def _one_question(rng: Random) -> Question:
    topic = rng.choice(TOPICS)
    ask = rng.choice(
        ("Ask me one short question about {t}. Write only the question.", "Write one short question about {t}.")
    )
    return Question(topic, ask.format(t=topic), {"name": "question"})


def _one_sentence(rng: Random) -> Question:
    topic = rng.choice(TOPICS)
    ask = rng.choice(("Tell me about {t} in exactly one sentence.", "Describe {t} in one sentence."))
    return Question(topic, ask.format(t=topic), {"name": "sentences", "count": 1})


QUICKSTART: dict[str, Family] = {
    family.name: family
    for family in (
        Family("addition", _addition, 32),
        Family("subtraction", _subtraction, 32),
        Family("largest", _largest, 32),
        Family("smallest", _smallest, 32),
        Family("first_letter", _first_letter, 32),
        Family("plural", _plural, 32),
        Family("capital", _capital, 32),
        Family("keywords", _keywords, 48),
        Family("fewer_words", _fewer_words, 48),
        Family("no_commas", _no_commas, 48),
        Family("highlight", _highlight, 48),
        Family("end_question", _end_question, 48),
        Family("list_items", _list_items, 80),
        Family("one_question", _one_question, 32),
        Family("one_sentence", _one_sentence, 48),
    )
}
FAMILIES = QUICKSTART | CONTROLLED
"""All that `prepare` draws from, by name."""
