"""Verifiers: pure functions from a completion's text to a score in [0, 1]; 1.0 passes, anything below fails.

A verifier is written in data files as `{"name": "bullets", "count": 3}`: the function's name and its arguments. Where a
near miss can be told from a far one the score says so (two of three keywords: 0.67), which is what picks the worst of
several failed completions. What is asked is checked and no more: "What is 3 + 4?" wants a text whose last number is 7,
in whatever words. White space around a completion never counts.

One of your own is named by its path, `my_verifiers.ends_with_full_stop`, and let in by `--allow my_verifiers`; in
Python it goes into `VERIFIERS` under that name.

Some verifiers look at the form alone (`FORMS`): a refusal has fewer than ten words, too. In data they belong beside one
that asks for content, in `all_of`; `controls.py` says which answers no prompt's verifier may pass.
"""

import difflib
import inspect
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from lightning_bnf.runtime.class_paths import own_function
from lightning_bnf.runtime.refusal import Refusal


class VerifierError(Refusal):
    """A verifier that does not exist, or arguments that it does not take."""


def verify(text: str, verifier: dict[str, Any]) -> float:
    """Score `text` by `verifier`, a name and arguments. Raises `VerifierError` for an unknown name or argument."""
    function = _function(check_verifier(verifier))
    assert function is not None
    return float(function(text.strip(), **{key: value for key, value in verifier.items() if key != "name"}))


def check_verifier(verifier: dict[str, Any]) -> str:
    """The verifier's name, once it is certain that it exists and takes exactly these arguments."""
    name = verifier.get("name")
    if not isinstance(name, str):
        raise VerifierError(f"verifier {verifier!r} has no name")
    function = _function(name)
    if function is None and "." in name:
        module = name.rpartition(".")[0]
        raise VerifierError(
            f"verifier {name!r} is none of this package's: if you know and trust that code, allow it by adding: "
            f"--allow {module}, a module that defines it; in Python, add it to "
            "lightning_bnf.evaluation.verify.VERIFIERS"
        )
    if function is None:
        raise VerifierError(f"verifier {name!r} does not exist{_nearest(name, list(VERIFIERS))}")
    kinds, needed = _arguments(function)
    taken = list(kinds)
    given = [key for key in verifier if key != "name"]
    for key in given:
        if key not in taken:
            raise VerifierError(f"verifier {name!r} takes no argument {key!r}{_nearest(key, taken)}")
    for key in taken:
        if kinds[key] not in _ACCEPTED:
            raise VerifierError(
                f"verifier {name!r}: {key} must be annotated as int, str or list[str], which rows can hold, got "
                f"{kinds[key]}"
            )
        if key not in given and key in needed:
            raise VerifierError(f"verifier {name!r} needs the argument {key!r}")
        accepted, holds = _ACCEPTED[kinds[key]]
        if key not in given:
            continue
        if not holds(verifier[key]):
            raise VerifierError(f"verifier {name!r}: {key} must be {accepted}, got {verifier[key]!r}")
    for part in verifier["parts"] if name == all_of.__name__ else ():
        check_verifier(part)
    return name


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(isinstance(text, str) and text for text in value)


def _is_parts(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1 and all(isinstance(part, dict) for part in value)


_ACCEPTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", _is_number),
    "count": ("a whole number from 1", lambda value: _is_number(value) and value >= 1),
    "str": ("a text", lambda value: isinstance(value, str) and len(value) > 0),
    "list": ("a list of one text or more", _is_texts),
    "parts": ("a list of two verifiers or more", _is_parts),
}


def _function(name: str) -> Callable[..., float] | None:
    """By its name here, or by its path where the user let its module in. Raises `VerifierError` for a module that
    cannot be imported."""
    if name in VERIFIERS or "." not in name:
        return VERIFIERS.get(name)
    try:
        return cast("Callable[..., float] | None", own_function(name))
    except ImportError as error:
        raise VerifierError(f"verifier {name!r} must be of a module that can be imported: {error}") from error


@cache
def _arguments(function: Callable[..., float]) -> tuple[dict[str, str], frozenset[str]]:
    """What each argument has to be, by its annotation, and those that have no default; numbers but an `answer` of our
    own count something."""
    found, ours = {}, function.__module__ == __name__
    parameters = list(inspect.signature(function).parameters.items())[1:]
    for name, parameter in parameters:
        kind = getattr(parameter.annotation, "__name__", str(parameter.annotation)).partition("[")[0]
        counts = ours and kind == "int" and name != "answer"
        found[name] = "count" if counts else "parts" if ours and name == "parts" else kind
    return found, frozenset(name for name, parameter in parameters if parameter.default is parameter.empty)


def _nearest(word: str, known: list[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(known) or 'none'}"


def _partial(score: float) -> float:
    """A failed completion's score, kept below 1."""
    return max(0.0, min(0.99, score))


_DIGITS = 300


def _part(ends: str) -> str:
    """A pattern of a line's part without `ends` and with a word in it; it never goes back, however long the part."""
    return rf"(?:[^\w{ends}\n])*\w[^{ends}\n]*"


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['\u2019-][^\W_]+)*", text)


def _numbers(text: str) -> list[int]:
    """The whole numbers in the text; 14.5 and 1,000 are none, and what has hundreds of digits is no answer."""
    found = re.findall(r"(?<![\d.,])-?\d+(?!\d|[.,]\d)", text)
    return [int(digits) for digits in found if len(digits) <= _DIGITS]


def number(text: str, answer: int) -> float:
    """The last number in the text is `answer`, so "3 + 4 = 7." passes; 0.5 when it is there but not last."""
    found = _numbers(text)
    if found and found[-1] == answer:
        return 1.0
    return 0.5 if answer in found else 0.0


def only_number(text: str, answer: int) -> float:
    """`answer` is the one number in the text, for choices such as "the largest of 3, 9 and 5"; 0.5 beside others."""
    found = _numbers(text)
    if found and set(found) == {answer}:
        return 1.0
    return 0.5 if answer in found else 0.0


def mentions(text: str, answers: list[str]) -> float:
    """At least one of `answers` as a whole word, in any case; the s of "it's" is not a word."""
    whole = [rf"(?<!\w)(?<!\w['\u2019]){re.escape(answer)}(?!\w)" for answer in answers]
    return float(any(re.search(pattern, text, re.IGNORECASE) for pattern in whole))


def only_letter(text: str, answer: str) -> float:
    """`answer` is the one letter that stands alone in the text, in any case; 0.5 beside others. The words "a" and "I"
    are no letters, so neither can be the answer."""
    alone = {letter.lower() for letter in re.findall(r"(?<![\w'\u2019-])[^\W\d_](?![\w'\u2019-])", text)} - {"a", "i"}
    if alone == {answer.lower()}:
        return 1.0
    return 0.5 if answer.lower() in alone else 0.0


def own_words(text: str, prompt: str, count: int) -> float:
    """At least `count` different words that are not in the prompt; else the share of them: no copy of the prompt."""
    own = {word.lower() for word in _words(text)} - {word.lower() for word in _words(prompt)}
    return min(1.0, len(own) / count)


def list_with(text: str, count: int, word: str) -> float:
    """Exactly `count` list items (see `list_items`), with `word` in each; less for each that lacks it."""
    items = [line for line in text.splitlines() if re.match(r"\s*([-*•]|\d+[.)])\s+\S", line)]
    share = sum(_names(item, word) for item in items) / len(items) if items else 0.0
    score = list_items(text, count)
    return score if share == 1 else _partial(score * share)


def list_items(text: str, count: int) -> float:
    """Exactly `count` lines are list items, all with bullets or all numbered from 1; other lines may be prose."""
    lines = [line.strip() for line in text.splitlines()]
    bullets = [line for line in lines if re.match(r"[-*•]\s+\S", line)]
    numbered = [int(found.group(1)[:_DIGITS]) for line in lines if (found := re.match(r"(\d+)[.)]\s+\S", line))]
    items = len(bullets) + len(numbered)
    uniform = not bullets or not numbered
    if items == count and uniform and numbered == list(range(1, len(numbered) + 1)):
        return 1.0
    return _partial(1 - abs(items - count) / count) if items else 0.0


def keywords(text: str, words: list[str]) -> float:
    """Every one of `words` as a whole word, in any case; else the share that is there."""
    found = sum(bool(re.search(rf"\b{re.escape(word)}\b", text, re.IGNORECASE)) for word in words)
    return found / len(words)


def fewer_words(text: str, limit: int) -> float:
    """At least one word and fewer than `limit`; else the limit's share of the words there are."""
    count = len(_words(text))
    if 0 < count < limit:
        return 1.0
    return _partial(limit / count) if count else 0.0


def title(text: str) -> float:
    """A title in double angular brackets, such as `<<a quiet morning>>`; 0.5 for single brackets."""
    if re.search(rf"<<{_part('<>')}>>", text):
        return 1.0
    return 0.5 if re.search(rf"<{_part('<>')}>", text) else 0.0


def json_keys(text: str, keys: list[str]) -> float:
    """The whole text is one JSON object (a code fence is allowed) with exactly these keys, in any order."""
    if len(text) >= 6 and text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return 0.0
    if not isinstance(found, dict):
        return 0.25
    if set(found) == set(keys):
        return 1.0
    return _partial(0.5 + 0.5 * len(set(found) & set(keys)) / len(set(found) | set(keys)))


def starts_with(text: str, start: str) -> float:
    """The text starts with the word or words `start`, as written; 0.5 when only the case differs."""
    if re.match(rf"{re.escape(start)}(?!\w)", text):
        return 1.0
    return 0.5 if re.match(rf"{re.escape(start)}(?!\w)", text, re.IGNORECASE) else 0.0


def equals(text: str, answer: str) -> float:
    """Exactly this text, quotation marks around it allowed; else 0.5 when it is there among other text."""
    bare = text[1:-1] if len(text) > 1 and text[0] + text[-1] in ('""', "''", "\u201c\u201d") else text
    return 1.0 if bare == answer else 0.5 * (answer in text)


def sentences(text: str, count: int) -> float:
    """Exactly `count` sentences, each (the last too) ending in `.`, `!` or `?`, and no line breaks."""
    found = len([part for part in re.split(r"(?<=[.!?])[\"'\u201d\u2019)]*\s+", text) if _words(part)])
    if found == count and re.search(r"[.!?][\"'\u201d\u2019)]*$", text) and "\n" not in text:
        return 1.0
    return _partial(1 - abs(found - count) / max(found, count)) if found else 0.0


def question(text: str) -> float:
    """A single question: the text ends with a question mark and holds one; 0.5 when there is one elsewhere."""
    if text.endswith("?") and text.count("?") == 1 and len(_words(text)) >= 2:
        return 1.0
    return 0.5 if "?" in text else 0.0


def ends_with_question(text: str) -> float:
    """The text ends with a question mark; 0.5 when it holds one elsewhere."""
    return 1.0 if text.endswith("?") and _words(text) else 0.5 * ("?" in text)


def no_commas(text: str) -> float:
    """At least three words and no comma; less the more commas there are."""
    if len(_words(text)) < 3:
        return 0.0
    return 1.0 / (1 + text.count(","))


def highlighted(text: str, count: int) -> float:
    """At least `count` passages highlighted as `*passage*` or `**passage**`; else the share that is there."""
    inside = _part("*")
    found = len(re.findall(rf"\*\*{inside}\*\*|(?<!\*)\*(?![\s*]){inside}(?<!\s)\*(?!\*)", text))
    return min(1.0, found / count)


def all_of(text: str, parts: list[dict[str, Any]]) -> float:
    """Every one of several verifiers passes; else their mean score."""
    scores = [verify(text, part) for part in parts]
    return 1.0 if min(scores) == 1.0 else _partial(sum(scores) / len(scores))


def _names(text: str, word: str) -> bool:
    """Whether a word or words stand in the text, in any case; a plural's s may be there."""
    return bool(re.search(rf"(?<!\w){re.escape(word)}s?(?!\w)", text, re.IGNORECASE))


VERIFIERS: dict[str, Callable[..., float]] = {
    function.__name__: function
    for function in (
        number,
        only_number,
        mentions,
        equals,
        list_items,
        keywords,
        fewer_words,
        title,
        json_keys,
        starts_with,
        sentences,
        question,
        ends_with_question,
        no_commas,
        highlighted,
        only_letter,
        own_words,
        list_with,
        all_of,
    )
}
FORMS = frozenset(
    {
        "list_items",
        "fewer_words",
        "title",
        "sentences",
        "question",
        "ends_with_question",
        "no_commas",
        "highlighted",
        "own_words",
    }
)
"""Verifiers that look at the form alone: an answer to another prompt, or none to any, can pass."""
