"""Two answers to a prompt, with what changed between them marked."""

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

MOST_WORDS = 1_500
"""Words of an answer up to which changes are looked for: the time grows with their square."""

_WORD = re.compile(r"\s+|\w+|[^\w\s]")
Part = tuple[bool, str]
"""(whether the other answer lacks it, text)"""


@dataclass(frozen=True)
class Change:
    """An answer before and after training: parts in order, and the verifier's verdicts where there is one."""

    prompt_id: str
    prompt: str
    decoding: str
    before: Sequence[Part]
    after: Sequence[Part]
    before_passed: bool | None
    after_passed: bool | None

    @property
    def verdict(self) -> str:
        """`mended`, `broken`, `passed`, `failed`, or nothing without a verifier."""
        if self.before_passed is None or self.after_passed is None:
            return ""
        return {(0, 1): "mended", (1, 0): "broken", (1, 1): "passed", (0, 0): "failed"}[
            int(self.before_passed), int(self.after_passed)
        ]

    @property
    def same(self) -> bool:
        """Whether the answer is what it was."""
        return not any(changed for changed, _ in (*self.before, *self.after))


def changed_parts(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """The two texts in parts, word by word; of very long ones each is one part, marked where they differ."""
    old, new = _WORD.findall(before), _WORD.findall(after)
    if max(len(old), len(new)) > MOST_WORDS:
        differ = before != after
        return [(differ, before)], [(differ, after)]
    left: list[Part] = []
    right: list[Part] = []
    for tag, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        for parts, words in ((left, old[a:b]), (right, new[c:d])):
            if words:
                parts.append((tag != "equal", "".join(words)))
    return _joined(left), _joined(right)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """The parts, with the spaces between changed words counted to these, and neighbours of a kind as one."""
    found: list[Part] = []
    for i, (changed, text) in enumerate(parts):
        if 0 < i < len(parts) - 1 and text.isspace():
            changed = changed or (parts[i - 1][0] and parts[i + 1][0])
        if found and found[-1][0] == changed:
            found[-1] = (changed, found[-1][1] + text)
        else:
            found.append((changed, text))
    return found


def read_changes(records: Sequence[dict[str, Any]]) -> list[Change]:
    """The records of `completions.jsonl`."""
    prompts = unframed([str(record.get("prompt", "")) for record in records])
    return [
        Change(
            str(record.get("prompt_id", "")),
            visible(prompt),
            str(record.get("decoding", "")),
            *changed_parts(visible(str(record["before"])), visible(str(record["after"]))),
            record.get("before_passed"),
            record.get("after_passed"),
        )
        for record, prompt in zip(records, prompts)
    ]


_SPECIAL = re.compile(r"<[^<>\s]+>|\[/?INST\]")


def unframed(prompts: Sequence[str]) -> list[str]:
    """The prompts without what a chat template writes around all of them: whole lines with special tokens in front,
    and what begins with one behind. A prompt alone stays as it is."""
    if len(set(prompts)) < 2:
        return list(prompts)
    head = _common_start(prompts)
    head = head[: head.rfind("\n") + 1]
    tail = _common_start([prompt[::-1] for prompt in prompts])[::-1]
    first = _SPECIAL.search(tail)
    start, stop = len(head) if _SPECIAL.search(head) else 0, len(tail) - first.start() if first else 0
    return [prompt[start : len(prompt) - stop] if len(prompt) > start + stop else prompt for prompt in prompts]


def _common_start(texts: Sequence[str]) -> str:
    first, last = min(texts), max(texts)  # what these two share, all share
    return first[: next((i for i, (a, b) in enumerate(zip(first, last)) if a != b), min(len(first), len(last)))]


def most_telling(changes: Sequence[Change], count: int) -> list[Change]:
    """At most `count`: those whose verdict changed first, then those whose text did, greedy before sampled ones."""
    rank = {"mended": 0, "broken": 0}
    return sorted(changes, key=lambda one: (rank.get(one.verdict, 1), one.same, one.decoding != "greedy"))[:count]


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def visible(text: str) -> str:
    """The text with control characters as pictures of them (U+2400 and on), which HTML takes none of."""

    def picture(found: re.Match[str]) -> str:
        code = ord(found[0])
        return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"

    return _CONTROL.sub(picture, text)
