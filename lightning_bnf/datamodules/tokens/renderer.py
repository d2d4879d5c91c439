"""From rows to token ids: one chat-template render, of which prompt and completion are parts.

    prompt ids       the prompt rendered with the generation prompt: exactly what generation starts from
    completion ids   what the whole conversation's render has after that, up to and with the end-of-turn token
    completion mask  True for the tokens that are trained; made from positions, never from token ids

Plain strings are one user and one assistant message where the tokenizer has a chat template, without the spaces around
them and an end-of-turn token behind the answer, which is there only once. Without a template, or under
`strings: text`, they are not rendered: the completion's tokens follow the prompt's, then the end-of-sequence token
(TRL's standard format).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, cast

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.answers import Completion, Text
from lightning_bnf.datamodules.reading.errors import ALIKE, DataError, Fault, Unfit, shorten
from lightning_bnf.datamodules.reading.formats import format_of
from lightning_bnf.datamodules.reading.messages import Message, Messages, last_turn, said
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.reading.records import Row
from lightning_bnf.datamodules.tokens.chat_template import ChatTemplate

END_INSIDE = "end-of-turn token inside an answer"
MERGED = "answer's first token merges with the prompt's last"


@dataclass(frozen=True)
class TokenizedCompletion:
    """Token ids of a completion, the end of turn included; `completion_mask` is True where they are trained, `numbers`
    are those of the data."""

    ids: list[int]
    completion_mask: list[bool]
    label: int
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class TokenizedRow:
    """A row as token ids; `id`, `source`, `format`, `verifier`, ... as in `Row`. All completions share the prompt."""

    id: str
    source: str
    format: str
    prompt_ids: list[int]
    completions: tuple[TokenizedCompletion, ...] = ()
    verifier: Mapping[str, Any] | None = None
    family: str | None = None
    prompt_id: str | None = None
    max_new_tokens: int | None = None
    kept_out: bool = False
    prompt: Text = ""

    @property
    def pairs(self) -> bool:
        """Whether it is a chosen completion and, behind it, a rejected one."""
        return format_of(self.format).pairs

    @property
    def groups(self) -> bool:
        """Whether it is several preferred samples and, behind them, a rejected completion."""
        return format_of(self.format).groups


@dataclass(frozen=True)
class _Texts:
    """What is tokenized of one completion: the whole conversation, and start, end and message of each turn that is
    trained.

    Of plain strings there are no turns, but the completion `alone`.
    """

    prompt: str
    full: str
    turns: tuple[tuple[str, str, Message], ...] = ()
    alone: str | None = None

    def all(self) -> Iterable[str]:
        """Every text that is needed as ids."""
        return (self.prompt, self.full, *(text for turn in self.turns for text in turn[:2]), self.alone or "")


class Renderer:
    """Renders rows with one tokenizer. `end_ids`: tokens that end a turn, besides the tokenizer's own EOS.

    Raises `DataError` for a tokenizer that cannot render conversations, once, at the first row that needs it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rendering: Rendering | None = None, end_ids: Iterable[int] = ()
    ):
        self.tokenizer = tokenizer
        self.rendering = rendering or Rendering()
        self.end_ids = tuple(end_ids)

    @cached_property
    def chat(self) -> ChatTemplate:
        """The tokenizer's chat template."""
        rendering = self.rendering
        return ChatTemplate(self.tokenizer, rendering.template_arguments or {}, self.end_ids, rendering.date)

    @property
    def asked_for_the_date(self) -> bool:
        """Whether the chat template did so in what was rendered."""
        return "chat" in vars(self) and self.chat.clock.asked

    @property
    def leaves_turns_open(self) -> bool:
        """Whether the chat template, by which something was rendered, ends an assistant's turn with no token."""
        return "chat" in vars(self) and not self.chat.tail

    def prompt_ids(self, prompt: Text) -> list[int]:
        """The ids that generation starts from; training's prompt ids are the same."""
        text = self._prompt_text(prompt)
        return self._prompt_ids(prompt, self._ids([text])[text])

    def row(self, row: Row) -> TokenizedRow:
        """Render a row. Raises `Fault` where prompt and conversation do not fit together."""
        (found,) = self.rows([row])
        if isinstance(found, Fault):
            raise found
        return found

    def rows(self, rows: Sequence[Row]) -> list[TokenizedRow | Fault]:
        """Render many rows, their texts tokenized together: a few times faster than one by one."""
        outlines = [self._outline(row) for row in rows]
        ids = self._ids(
            {text for outline in outlines if isinstance(outline, list) for t in outline for text in t.all()}
        )
        return [self._tokenized(row, outline, ids) for row, outline in zip(rows, outlines)]

    def _ids(self, texts: Iterable[str]) -> dict[str, list[int]]:
        texts = list(texts)
        if not texts:
            return {}
        # The template writes BOS itself where it wants one: the tokenizer must not add a second.
        found = self.tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
        return dict(zip(texts, cast(list[list[int]], found["input_ids"])))

    def _outline(self, row: Row) -> list[_Texts] | Fault:
        """The texts of every completion of a row; of a prompt alone, one entry without a completion."""
        prompt, history = _cut_history(row, self.rendering.train_on)
        try:
            if self.rendering.control_tokens == "refuse":
                self._refuse_control_tokens(row)
            start = self._prompt_text(prompt)
            if not row.completions:
                return [_Texts(start, start)]
            return [self._texts(prompt, start, history, completion) for completion in row.completions]
        except Fault as fault:
            return fault

    def _texts(self, prompt: Text, start: str, history: Messages, completion: Completion) -> _Texts:
        if self._is_text(prompt):
            answer = completion.text or ""
            return _Texts(start, start + answer, alone=answer)
        before = self._conversation(prompt)
        answers = self._answers(completion)
        messages = (*before, *history, *answers)
        first = len(before) if self.rendering.train_on == "all_turns" else max(len(before), last_turn(messages))
        trained = [i for i in range(first, len(messages)) if messages[i]["role"] == "assistant"]
        turns = [
            (
                start if i == len(before) else self.chat.render(messages[:i], generation=True),
                self.chat.render(messages[: i + 1]),
                messages[i],
            )
            for i in trained
        ]
        return _Texts(start, turns[-1][1], tuple(turns))

    def _tokenized(self, row: Row, outline: list[_Texts] | Fault, ids: Mapping[str, list[int]]) -> TokenizedRow | Fault:
        if isinstance(outline, Fault):
            return outline
        try:
            prompt_ids = self._prompt_ids(row.prompt, ids[outline[0].prompt])
            completions = tuple(
                self._text_completion(texts, completion, ids)
                if texts.alone is not None
                else self._spoken_completion(texts, completion, ids)
                for texts, completion in zip(outline, row.completions)
            )
            refuse_alike(row.format, completions)
        except Fault as fault:
            return fault
        return TokenizedRow(
            id=row.id,
            source=row.source,
            format=row.format,
            prompt_ids=prompt_ids,
            completions=completions,
            verifier=row.verifier,
            family=row.family,
            prompt_id=row.prompt_id,
            max_new_tokens=row.max_new_tokens,
            kept_out=row.kept_out,
            prompt=row.prompt,
        )

    def control_tokens(self, row: Row) -> list[str]:
        """The control tokens that stand in what is said in a row: in the rendered text they are such tokens too."""
        if self._is_text(row.prompt):
            return []  # a file of rendered texts has them where they belong
        turns = [*self._conversation(row.prompt), *(turn for one in row.completions for turn in self._answers(one))]
        found = (token for turn in turns for token in self._control_tokens.findall(said(turn)))
        return list(dict.fromkeys(found))

    @cached_property
    def _control_tokens(self) -> re.Pattern[str]:
        added = (str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special)
        longest_first = sorted((text for text in added if text.strip()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def _refuse_control_tokens(self, row: Row) -> None:
        found = self.control_tokens(row)
        if found:
            raise Fault(
                "the texts must be without control tokens under data.options.rendering.control_tokens: refuse, got"
                f" {', '.join(map(repr, found))}"
            )

    def _answers(self, completion: Completion) -> Messages:
        return completion.messages or (Message(role="assistant", content=self._spoken(completion.text or "")),)

    def _spoken(self, text: str) -> str:
        """A plain string as a message's content: without spaces around it, which merge with the template's own, and
        without an end of turn, which the template writes."""
        text = text.strip()
        for end in self.chat.ends:
            text = text.removesuffix(str(self.tokenizer.decode([end]))).strip()
        return text

    def _spoken_completion(
        self, texts: _Texts, completion: Completion, ids: Mapping[str, list[int]]
    ) -> TokenizedCompletion:
        full = self.chat.up_to_end(ids[texts.full], texts.turns[-1][2])
        start = self._length_of_prefix(texts.prompt, ids[texts.prompt], texts.full, full)
        mask = [False] * len(full)
        for opened, ended, message in texts.turns:
            first = self._length_of_prefix(opened, ids[opened], texts.full, full)
            alone = self.chat.up_to_end(ids[ended], message)
            stop = _stop_behind_dropped(alone, full, first) if message.get("tool_calls") else None
            stop = stop or self._length_of_prefix(ended, alone, texts.full, full)
            if stop <= first:
                raise Fault(
                    "the chat template must be one whose prompt is a strict prefix of the conversation, got one that"
                    f" writes nothing of the answer behind {shorten(opened[-40:])}"
                )
            self._refuse_ends(full[first : stop - 1], self.chat.ends)
            mask[first:stop] = [True] * (stop - first)
        return TokenizedCompletion(full[start:], mask[start:], completion.label, completion.numbers)

    def _text_completion(
        self, texts: _Texts, completion: Completion, ids: Mapping[str, list[int]]
    ) -> TokenizedCompletion:
        """The tokens of prompt and completion together, if the prompt's come first; else the completion's own.

        Together, because a tokenizer may put a space before a text that stands alone (Llama-2's does).
        """
        prompt, joint, alone = ids[texts.prompt], ids[texts.full], ids[texts.alone or ""]
        found = joint[len(prompt) :] if joint[: len(prompt)] == prompt and len(joint) > len(prompt) else alone
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise DataError(
                "the tokenizer must be one with an end-of-sequence token (eos_token), which ends plain strings, got"
                f" {self.tokenizer.name_or_path!r} without"
            )
        body = found[:-1] if found[-1:] == [eos] else found  # exactly one, also where the file has it already
        self._refuse_ends(body, frozenset({eos, *self.end_ids}))
        return TokenizedCompletion([*body, eos], [True] * (len(body) + 1), completion.label, completion.numbers)

    def _refuse_ends(self, inside: list[int], ends: frozenset[int]) -> None:
        found = next((token for token in inside if token in ends), None)
        if found is not None:
            raise Unfit(
                END_INSIDE,
                "the answer's text must be without end-of-turn tokens, since one is added at its end, got"
                f" {self.tokenizer.decode([found])!r}",
            )

    def _length_of_prefix(self, text: str, ids: list[int], full_text: str, full: list[int]) -> int:
        """How many ids a part of the conversation has; they must be the first ones of the whole."""
        if ids == full[: len(ids)]:
            return len(ids)
        at = next((i for i, (one, other) in enumerate(zip(ids, full)) if one != other), min(len(ids), len(full)))
        part, whole = (self.tokenizer.decode(found[at : at + 5]) for found in (ids, full))
        sentence = f"at token {at} the prompt alone has {part!r} and the conversation {whole!r}"
        if full_text.startswith(text):
            raise Unfit(MERGED, f"{sentence}: the answer's beginning merges into the prompt's last token")
        raise Fault(
            "the chat template must be one whose prompt is a strict prefix of the conversation, got one that renders"
            f" the prompt otherwise when an answer follows: {sentence}"
        )

    @cached_property
    def strings(self) -> Literal["text", "chat"]:
        """How plain strings become tokens: as they are, or through the chat template."""
        if self.rendering.strings != "auto":
            return self.rendering.strings
        return "chat" if self.tokenizer.chat_template else "text"

    def _is_text(self, prompt: Text) -> bool:
        return isinstance(prompt, str) and self.strings == "text"

    def _prompt_text(self, prompt: Text) -> str:
        if isinstance(prompt, str):
            if self.strings == "text":
                return prompt
            if self.rendering.strings == "auto":
                self._refuse_rendered(prompt)
        return self.chat.render(self._conversation(prompt), generation=True)

    def _refuse_rendered(self, prompt: str) -> None:
        mark = next((mark for mark in self.chat.marks if mark in prompt), None)
        if mark is not None:
            raise Fault(
                f"data.options.rendering.strings must be text for prompts that the chat template has rendered already,"
                f" or chat where its tokens are part of what the user says, got auto with {mark!r} in the prompt"
            )

    def _prompt_ids(self, prompt: Text, ids: list[int]) -> list[int]:
        """`ids` with the BOS that the tokenizer puts before plain strings; the template has written its own."""
        bos = self.tokenizer.bos_token_id
        if self._is_text(prompt):
            return ids if ids[:1] == self._added_bos else [*self._added_bos, *ids]
        if bos is not None and bos != self.tokenizer.eos_token_id and ids[:2] == [bos, bos]:
            raise Fault("the prompt must be of one BOS token, got two: the chat template's and one in its text")
        return list(ids)

    @cached_property
    def _added_bos(self) -> list[int]:
        first = cast(list[int], self.tokenizer("a")["input_ids"])[:1]
        return first if first == [self.tokenizer.bos_token_id] else []

    def _conversation(self, prompt: Text) -> Messages:
        """The prompt's messages as the template takes them: the system message as `system` says."""
        messages = (Message(role="user", content=prompt.strip()),) if isinstance(prompt, str) else prompt
        if messages[0]["role"] != "system" or self.chat.takes_system:
            return messages
        if self.rendering.system == "error":
            raise Fault(
                "system must be merge (put it before the first user message) or drop, since the model's chat template"
                " refuses or ignores system messages, got error"
            )
        system, user, *rest = messages
        if self.rendering.system == "merge":
            user = {**user, "content": system["content"] + "\n\n" + user["content"]}
        if "tools" in system:
            user = {**user, "tools": system["tools"]}
        return (user, *rest)


def _stop_behind_dropped(alone: list[int], full: list[int], first: int) -> int | None:
    """Where a call's turn ends in the whole conversation: some templates leave out what it begins with, such as an
    empty thought, once others follow (Qwen3, GPT-OSS). `alone` are the ids up to its end where it is the last turn;
    what is left of it is its end, and begins at `first`."""
    turn = alone[first:]
    for dropped in range(len(turn) - 1):
        if full[first : first + len(turn) - dropped] == turn[dropped:]:
            return first + len(turn) - dropped
    return None


def refuse_alike(format: str, completions: Sequence[TokenizedCompletion]) -> None:
    """The same tokens would be trained up and down at once. Raises `Unfit`."""
    kind = format_of(format)
    if (kind.pairs or kind.groups) and any(one.ids == completions[-1].ids for one in completions[:-1]):
        raise Unfit(ALIKE, "chosen and rejected must be two answers, got the same tokens for both")


def _cut_history(row: Row, train_on: str) -> tuple[Text, Messages]:
    """The prompt, and the messages of it that are trained on as well: with `all_turns`, from the first answer on.

    Not for pairs: what chosen and rejected share says nothing of either.
    """
    prompt = row.prompt
    if isinstance(prompt, str) or train_on != "all_turns" or not format_of(row.format).single:
        return prompt, ()
    first = next((i for i, message in enumerate(prompt) if message["role"] == "assistant"), len(prompt))
    return prompt[:first], prompt[first:]
