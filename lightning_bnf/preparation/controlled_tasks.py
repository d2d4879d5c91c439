"""Task families whose verifiers cannot be gamed: for experiments that compare methods.

No control of `evaluation/controls.py` passes any of their questions (`draw_questions` refuses a family of which one
does), and no constant or positional answer passes more than 0.15 of them: right answers vary, none lists what to choose
from, and what an answer is about has to stand in it beside its form. Each was tried before it was taken: choices among
eight, titles in brackets, counting down, -ing forms and statements before a question passed hardly ever.
"""

from collections.abc import Sequence
from random import Random
from typing import Any

from lightning_bnf.preparation.families import Family, Question
from lightning_bnf.preparation.words import CAPITALS, MORE_NOUNS, NOUNS, OPPOSITES, TOPICS, VERBS

_SHORT = (" Answer in one short sentence.", " Answer with one short sentence.", " Reply in one short sentence.")
_WORDS = [*NOUNS, *MORE_NOUNS]


def _number(key: str, text: str, answer: int) -> Question:
    return Question(key, text, {"name": "number", "answer": answer}, answer=str(answer))


def _sum(rng: Random) -> Question:
    a, b = rng.randint(2, 20), rng.randint(2, 30)
    ask = rng.choice(("What is {a} + {b}?", "What is {a} plus {b}?", "How much is {a} + {b}?"))
    return _number(f"{min(a, b)} {max(a, b)}", ask.format(a=a, b=b) + rng.choice(_SHORT), a + b)


def _difference(rng: Random) -> Question:
    b, rest = rng.randint(2, 12), rng.randint(4, 20)
    rest += rest == b  # else the last number of the question is the answer
    ask = rng.choice(("What is {a} - {b}?", "What is {a} minus {b}?", "How much is {a} - {b}?"))
    return _number(f"{b + rest} {b}", ask.format(a=b + rest, b=b) + rng.choice(_SHORT), rest)


def _count_up(rng: Random) -> Question:
    start = rng.randint(10, 400)
    ask = rng.choice(("Which number comes next: {l}?", "What is the next number: {l}?"))
    listed = ", ".join(str(start + i) for i in range(3))
    return _number(str(start), ask.format(l=listed) + rng.choice(_SHORT), start + 3)


def _first_letter_of(rng: Random) -> Question:
    noun = rng.choice([noun for noun in _WORDS if noun[0] not in "ai"])  # "a" and "I" are words
    ask = rng.choice(('What is the first letter of the word "{w}"?', 'Which letter does the word "{w}" start with?'))
    verifier = {"name": "only_letter", "answer": noun[0]}
    return Question(noun, ask.format(w=noun) + rng.choice(_SHORT), verifier, answer=noun[0].upper())


def _plural_of(rng: Random) -> Question:
    noun = rng.choice(_WORDS)
    ask = rng.choice(('What is the plural of "{w}"?', 'What is the plural form of the word "{w}"?'))
    return _mention(noun, ask.format(w=noun) + rng.choice(_SHORT), noun + "s")


def _past_tense(rng: Random) -> Question:
    verb = rng.choice(VERBS)
    ask = rng.choice(('What is the past tense of "{w}"?', 'What is the past tense of the verb "{w}"?'))
    return _mention(verb, ask.format(w=verb) + rng.choice(_SHORT), verb + ("d" if verb.endswith("e") else "ed"))


def _opposite(rng: Random) -> Question:
    word, answers = rng.choice(list(OPPOSITES.items()))
    ask = rng.choice(('What is the opposite of "{w}"?', 'Which word means the opposite of "{w}"?'))
    verifier = {"name": "mentions", "answers": list(answers)}
    text = ask.format(w=word) + rng.choice((" Answer in one sentence.", " Reply in one sentence."))
    return Question(word, text, verifier, answer=answers[0])


def _capital_of(rng: Random) -> Question:
    country = rng.choice(list(CAPITALS))
    ask = rng.choice(("What is the capital of {c}?", "Which city is the capital of {c}?"))
    return _mention(country, ask.format(c=country) + rng.choice(_SHORT), CAPITALS[country])


def _mention(key: str, text: str, answer: str) -> Question:
    return Question(key, text, {"name": "mentions", "answers": [answer]}, answer=answer)


def _listed(parts: Sequence[Any], last: str) -> str:
    return f"{', '.join(map(str, parts[:-1]))} {last} {parts[-1]}"


_PLURALS = [noun + "s" for noun in _WORDS]
_ABOUT = list(dict.fromkeys([*TOPICS, *_PLURALS]))


def _about(topic: str) -> dict[str, Any]:
    """The topic stands in the text, or one of it: "cats" or "cat", "the moon" or "moon"."""
    bare = topic.removeprefix("the ")
    return {"name": "mentions", "answers": list(dict.fromkeys([topic, bare, bare.removesuffix("s")]))}


def _open(rng: Random, ask: Sequence[str], own: int, forms: Sequence[dict[str, Any]], right: str) -> Question:
    """A question about a topic: the answer names it, has `own` words that the question has not, and these forms."""
    topic = rng.choice(_ABOUT)
    text = rng.choice(ask).format(t=topic)
    parts = [*forms, _about(topic), {"name": "own_words", "prompt": text, "count": own}]
    return Question(topic, text, {"name": "all_of", "parts": parts}, answer=right.format(t=topic))


def _briefly(rng: Random) -> Question:
    limit = rng.choice((8, 10, 12, 15))
    ask = (f"Describe {{t}} in fewer than {limit} words.", f"Write fewer than {limit} words about {{t}}.")
    return _open(rng, ask, 3, [{"name": "fewer_words", "limit": limit}], "I really like {t}.")


def _comma_free(rng: Random) -> Question:
    ask = (
        "Write one sentence about {t} without using any commas.",
        "Tell me something about {t}. Do not use any commas.",
    )
    return _open(rng, ask, 4, [{"name": "no_commas"}], "We often see {t} in our town.")


def _because(rng: Random) -> Question:
    word = rng.choice(("because", "but", "when", "often"))
    ask = (
        f'Write one sentence about {{t}} with the word "{word}".',
        f'Use the word "{word}" in one sentence about {{t}}.',
    )
    forms: list[dict[str, Any]] = [{"name": "sentences", "count": 1}, {"name": "keywords", "words": [word]}]
    return _open(rng, ask, 4, forms, f"We like {{t}}, {word} they never liked us much.")


def _two_sentences(rng: Random) -> Question:
    ask = ("Write exactly two short sentences about {t}.", "Describe {t} in two sentences.")
    return _open(rng, ask, 5, [{"name": "sentences", "count": 2}], "Many people really like {t}. They are nice.")


def _question_about(rng: Random) -> Question:
    ask = ("Ask me one short question about {t}. Write only the question.", "Write one short question about {t}.")
    return _open(rng, ask, 3, [{"name": "question"}, {"name": "sentences", "count": 1}], "Why do you like {t}?")


def _sentence_about(rng: Random) -> Question:
    ask = ("Tell me about {t} in exactly one sentence.", "Describe {t} in one sentence.")
    return _open(rng, ask, 4, [{"name": "sentences", "count": 1}], "Many people really like {t}.")


def _facts(rng: Random) -> Question:
    topic, count = rng.choice(_PLURALS), rng.choice((2, 3))
    ask = (
        'List {n} short facts about {t}, one per line. Use the word "{t}" in every line.',
        "Write a list of {n} short facts about {t}. Every fact must name {t}.",
    )
    text = rng.choice(ask).format(n=count, t=topic)
    parts = [
        {"name": "list_with", "count": count, "word": topic.removesuffix("s")},
        {"name": "own_words", "prompt": text, "count": 2 * count},
    ]
    right = "\n".join(f"{i + 1}. {word}" for i, word in enumerate(_FACTS[:count]))
    return Question(topic, text, {"name": "all_of", "parts": parts}, answer=right.format(t=topic))


_FACTS = ("Most {t} are old things.", "Some people want big {t}.", "Small {t} cost less money.")


def _in_a_sentence(rng: Random) -> Question:
    words = rng.sample(_WORDS, rng.choice((2, 3)))
    ask = ("Write one short sentence with the words {w}.", "Write one sentence that contains the words {w}.")
    text = rng.choice(ask).format(w=_listed(words, "and"))
    parts = [
        {"name": "keywords", "words": words},
        {"name": "sentences", "count": 1},
        {"name": "own_words", "prompt": text, "count": 3},
    ]
    right = f"She left a {_listed(words, 'near the')} yesterday."
    return Question(" ".join(sorted(words)), text, {"name": "all_of", "parts": parts}, answer=right)


CONTROLLED: dict[str, Family] = {
    family.name: family
    for family in (
        Family("sum", _sum, 32, controlled=True),
        Family("difference", _difference, 32, controlled=True),
        Family("count_up", _count_up, 32, controlled=True),
        Family("first_letter_of", _first_letter_of, 32, controlled=True),
        Family("plural_of", _plural_of, 32, controlled=True),
        Family("past_tense", _past_tense, 32, controlled=True),
        Family("opposite", _opposite, 32, controlled=True),
        Family("capital_of", _capital_of, 32, controlled=True),
        Family("in_a_sentence", _in_a_sentence, 48, controlled=True),
        Family("briefly", _briefly, 48, controlled=True),
        Family("comma_free", _comma_free, 48, controlled=True),
        Family("because", _because, 48, controlled=True),
        Family("two_sentences", _two_sentences, 48, controlled=True),
        Family("question_about", _question_about, 32, controlled=True),
        Family("sentence_about", _sentence_about, 48, controlled=True),
        Family("facts", _facts, 80, controlled=True),
    )
}
