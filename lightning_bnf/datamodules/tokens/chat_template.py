"""What a tokenizer's chat template does, found out by rendering short conversations instead of trusting its name."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, cast

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.reading.errors import DataError, Fault, shorten
from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.options import DATE
from lightning_bnf.datamodules.tokens.template_code import Clock, check_arguments, within_bounds
from lightning_bnf.datamodules.tokens.tool_support import CALLING, RESULT, VALUE, ToolSupport

_QUESTION, _ANSWER, _SYSTEM = "Which xquestionx?", "This xanswerx.", "Be xsystemx."  # found again in the rendered text

_MARK = 5  # characters: what is shorter, such as HTML's <s>, does not say where it comes from


class ChatTemplate:
    """Renders conversations, and knows how a template ends an assistant turn and whether it takes system messages.

    `end_ids` are the ids that stop generation (the generation config's), `arguments` go to the template, for which the
    day is always `date`. Raises `DataError` for a tokenizer without a template, for a template that does not open the
    assistant's turn or takes no end, and for arguments that it does not read.

    takes_system: the template has a place for system messages. tail: what it writes from the end-of-turn token on, as
    ids (`<|im_end|>` and a line break, say); empty where it ends turns with text. ends: all ids that end a turn. marks:
    what it writes around messages, by which a prompt is known that was rendered already. clock: whether it asked for
    the date. tools: how it writes calls; refuses what it does not write.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        arguments: Mapping[str, Any],
        end_ids: Iterable[int],
        date: str = DATE,
    ):
        self.tokenizer = tokenizer
        self.arguments = arguments
        self.clock = Clock(date)
        if not tokenizer.chat_template:
            raise DataError(
                "the tokenizer must be an instruct model's, with a chat template, where data are message lists, got"
                f" {tokenizer.name_or_path!r} without; plain strings as prompt and answers need none"
            )
        check_arguments(str(tokenizer.chat_template), arguments)
        question = Message(role="user", content=_QUESTION)
        try:
            opened, unopened = self.render([question], generation=True), self.render([question])
            full = self.render([question, Message(role="assistant", content=_ANSWER)])
        except Fault as fault:
            raise DataError(f"the tokenizer of {tokenizer.name_or_path!r}: {fault}") from None
        if opened == unopened:
            self._check_opened(opened, full)
        self.takes_system = self._takes_system(question)
        eos = tokenizer.eos_token_id
        self.ends = frozenset(end_ids) | (frozenset() if eos is None else {eos})
        self.tail = self._find_tail(full, _ANSWER, self._inner_end())
        self.ends |= set(self.tail[:1])
        self.marks = self._find_marks(full)

    def render(self, messages: Sequence[Message], generation: bool = False) -> str:
        """The conversation as text; with `generation`, up to where the assistant's next turn begins."""
        if any({"tools", "tool_calls"} & set(message) or message["role"] == "tool" for message in messages):
            self.tools.check(messages)
            messages = [self.tools.written(message) for message in messages]
        return self._render(messages, generation)

    def _render(self, messages: Sequence[Message], generation: bool = False) -> str:
        tools = messages[0].get("tools") if messages else None
        given = [{key: value for key, value in message.items() if key != "tools"} for message in messages]

        def rendered() -> str:
            text = self.tokenizer.apply_chat_template(
                cast(list[dict[str, str]], given),
                tools=cast(Any, tools),
                tokenize=False,
                add_generation_prompt=generation,
                **self.arguments,
            )
            return cast(str, text)

        with self.clock.pinned():
            return within_bounds(rendered)

    @cached_property
    def tools(self) -> ToolSupport:
        """What the template does with tools, tried when a conversation with some comes first."""
        return ToolSupport(self._render)

    @cached_property
    def calls_tail(self) -> list[int]:
        """As `tail`, behind a turn that calls a tool."""
        return self._find_tail(self.render(CALLING[:2]), VALUE, last=True)

    def up_to_end(self, ids: list[int], last: Message) -> list[int]:
        """A rendered conversation's ids up to its last end-of-turn token; `last` is its last message.

        What the template writes behind it, such as a line break, is never generated. A template that ends turns with
        text has no such token: all that it rendered is kept, and nothing is appended.
        """
        tail = self.calls_tail if last.get("tool_calls") else self.tail
        if not tail:
            return ids
        if ids[-len(tail) :] != tail:
            raise Fault(
                "the chat template must be one that ends every turn alike, got"
                f" {self._decode(ids[-len(tail) :])} here and {self._decode(tail)} in other conversations"
            )
        return ids[: len(ids) - len(tail) + 1]

    def _check_opened(self, prompt: str, full: str) -> None:
        """A template may ignore `add_generation_prompt` only if the user's turn itself opens the assistant's.

        So do Llama-2's and Mistral's (`[INST] ... [/INST]`). Else the header of the assistant's turn would be trained,
        and generation would begin without it.
        """
        header = full[len(prompt) :].partition(_ANSWER)[0] if full.startswith(prompt) else "?"
        if header.strip() or not prompt.partition(_QUESTION)[2].strip():
            raise DataError(
                "the chat template must be one that opens the assistant's turn, where generation begins, got that of"
                f" {self.tokenizer.name_or_path!r}, without generation prompt (it renders the same with"
                f" add_generation_prompt and without: {shorten(prompt)})"
            )

    def _takes_system(self, question: Message) -> bool:
        try:
            return _SYSTEM in self.render([Message(role="system", content=_SYSTEM), question])
        except Fault:
            return False

    def _inner_end(self) -> str:
        """What is written between an answer and the next question; nothing where such a conversation is refused."""
        question = Message(role="user", content=_QUESTION)
        answer, following = Message(role="assistant", content=_ANSWER), Message(role="user", content=RESULT)
        try:
            return self.render([question, answer, following]).rpartition(_ANSWER)[2].partition(RESULT)[0]
        except Fault:
            return ""

    def _find_tail(self, full: str, said: str, inner: str = "", last: bool = False) -> list[int]:
        """The ids from the end-of-turn token behind `said` on: the first known end that inner turns have too; else the
        first special token there, or the `last` one, which comes behind a call's own."""
        added = self.tokenizer.added_tokens_decoder
        marks = self.ends | {number for number, token in added.items() if str(token).strip()}
        behind, within, ids = (
            cast(list[int], self.tokenizer(text, add_special_tokens=False)["input_ids"])
            for text in (full.rpartition(said)[2], inner, full)
        )
        known = [token for token in behind if token in self.ends and (last or token in within)]
        special = [token for token in behind if token in marks]
        if not known and not special:
            return []
        end = known[0] if known else special[-1 if last else 0]
        places = [place for place, token in enumerate(ids) if token == end]
        return ids[places[-behind.count(end)] :]

    def _find_marks(self, full: str) -> tuple[str, ...]:
        """The special tokens in a rendered conversation, and what stands between question and answer (`[/INST]`)."""
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        between = full.partition(_QUESTION)[2].partition(_ANSWER)[0].strip()
        found = [*(token for token in added if token in full), between]
        return tuple(dict.fromkeys(mark for mark in found if len(mark) >= _MARK))

    def _decode(self, ids: list[int]) -> str:
        return repr(self.tokenizer.decode(ids))
