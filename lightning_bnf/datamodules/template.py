"""From rows to token ids: one chat-template render, of which prompt and completion are parts.

    prompt ids       the prompt rendered with the generation prompt: exactly what generation starts from
    completion ids   what the whole conversation's render has after that, up to and with the end-of-turn token
    completion mask  True for the tokens that are trained; made from positions, never from token ids

Plain strings are not rendered: the completion's tokens follow the prompt's, then the end-of-sequence token (TRL's
standard format).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.errors import DataError, Fault, shorten
from lightning_bnf.datamodules.messages import Message, Messages
from lightning_bnf.datamodules.records import Row, Text


@dataclass(frozen=True)
class Rendering:
    """How rows become token ids.

    Args:
        strings: What plain strings are: `text` (no template, the end-of-sequence token appended), or `chat` (one user
            and one assistant message).
        system: What happens to a system message that the model's template refuses: `error`, `merge` (put before the
            first user message), or `drop`.
        train_on: Which assistant turns of a multi-turn completion are trained: `last_turn`, or `all_turns` (of
            `messages` rows: from the first assistant turn on).
    """

    strings: Literal["text", "chat"] = "text"
    system: Literal["error", "merge", "drop"] = "error"
    train_on: Literal["last_turn", "all_turns"] = "last_turn"

    def __post_init__(self) -> None:
        accepted = {
            "strings": ("text", "chat"),
            "system": ("error", "merge", "drop"),
            "train_on": ("last_turn", "all_turns"),
        }
        for name, values in accepted.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name} {getattr(self, name)!r}: accepted are {', '.join(map(repr, values))}")


@dataclass(frozen=True)
class TokenizedCompletion:
    """Token ids of a completion, the end of turn included; `completion_mask` is True where they are trained."""

    ids: list[int]
    completion_mask: list[bool]
    label: int


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


class Renderer:
    """Renders rows with one tokenizer. `end_ids`: tokens that end a turn, besides the tokenizer's own EOS.

    Raises `DataError` for a tokenizer that cannot render conversations, once, at the first row that needs it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, rendering: Rendering | None = None, end_ids: Iterable[int] = ()
    ):
        self.tokenizer = tokenizer
        self.rendering = rendering or Rendering()
        eos = tokenizer.eos_token_id
        self.end_ids = {*end_ids, *([] if eos is None else [eos])}
        self._checked = False
        self._refuses_system = False

    def prompt_ids(self, prompt: Text) -> list[int]:
        """The ids that generation starts from; training's prompt ids are the same."""
        if isinstance(prompt, str) and self.rendering.strings == "text":
            ids = list(self.tokenizer(prompt)["input_ids"])
            return ids[:-1] if len(ids) > 1 and ids[-1] == self.tokenizer.eos_token_id else ids
        return self._render(self._accepted(_as_messages(prompt, "user")), generation=True)

    def row(self, row: Row) -> TokenizedRow:
        """Render a row. Raises `Fault` where prompt and conversation do not fit together."""
        prompt = row.prompt
        completions = [(answer.messages or answer.text or "", answer.label) for answer in row.completions]
        if row.format == "demonstration" and self.rendering.train_on == "all_turns" and not isinstance(prompt, str):
            first = next((i for i, message in enumerate(prompt) if message["role"] == "assistant"), len(prompt))
            completions = [((*prompt[first:], *content), label) for content, label in completions]
            prompt = prompt[:first]
        return TokenizedRow(
            id=row.id,
            source=row.source,
            format=row.format,
            prompt_ids=self.prompt_ids(prompt),
            completions=tuple(self._completion(prompt, content, label) for content, label in completions),
            verifier=row.verifier,
            family=row.family,
            prompt_id=row.prompt_id,
            max_new_tokens=row.max_new_tokens,
            kept_out=row.kept_out,
            prompt=row.prompt,
        )

    def _completion(self, prompt: Text, content: Text, label: int) -> TokenizedCompletion:
        if isinstance(content, str) and isinstance(prompt, str) and self.rendering.strings == "text":
            ids = list(self.tokenizer(content, add_special_tokens=False)["input_ids"])
            if self.tokenizer.eos_token_id is not None:
                ids.append(self.tokenizer.eos_token_id)
            return TokenizedCompletion(ids, [True] * len(ids), label)
        before = self._accepted(_as_messages(prompt, "user"))
        messages = (*before, *_as_messages(content, "assistant"))
        full = self._render(messages)
        bos = self.tokenizer.bos_token_id
        if bos is not None and full[:2] == [bos, bos]:
            raise Fault(
                "the conversation starts with two BOS tokens, the chat template's and one in its text; accepted: one"
            )
        start = len(self._prefix(before, full))
        mask = [False] * len(full)
        stop = len(full)
        for i in range(len(before), len(messages)):
            if messages[i]["role"] != "assistant":
                continue
            last = i == len(messages) - 1
            first = len(self._prefix(messages[:i], full))
            after = len(full) if last else len(self._prefix(messages[: i + 1], full, generation=False))
            stop = self._end_of_turn(full, first, after, messages[i]["content"])
            if last or self.rendering.train_on == "all_turns":
                mask[first:stop] = [True] * (stop - first)
        return TokenizedCompletion(full[start:stop], mask[start:stop], label)

    def _end_of_turn(self, full: list[int], first: int, after: int, content: str) -> int:
        """Where the turn that starts at `first` ends, its end-of-turn token included.

        What the template writes behind that token, such as a line break, belongs to the next turn. A template without
        such a token ends the turn with its text.
        """
        ends = [position for position in range(first, after) if full[position] in self.end_ids]
        if len(ends) > 1:
            raise Fault(
                f"the answer {shorten(content)} holds {len(ends)} end-of-turn tokens "
                f"({self.tokenizer.decode(full[ends[0]])!r}); accepted: exactly one, which the chat template writes"
            )
        return ends[0] + 1 if ends else after

    def _prefix(self, messages: Sequence[Message], full: list[int], generation: bool = True) -> list[int]:
        """The render of the first messages, which must be a strict prefix of the whole conversation's."""
        ids = self._render(messages, generation)
        if ids == full[: len(ids)] and (len(ids) < len(full) or not generation):
            return ids
        at = next((i for i, (one, other) in enumerate(zip(ids, full)) if one != other), min(len(ids), len(full)))
        raise Fault(
            "the chat template renders the prompt otherwise when an answer follows: at token "
            f"{at} the prompt alone has {self.tokenizer.decode(ids[at : at + 5])!r} and the conversation "
            f"{self.tokenizer.decode(full[at : at + 5])!r}; accepted: a template whose prompt is a strict prefix"
        )

    def _render(self, messages: Sequence[Message], generation: bool = False) -> list[int]:
        self._check_template()
        try:
            ids = self.tokenizer.apply_chat_template(
                cast(list[dict[str, str]], [dict(message) for message in messages]),
                add_generation_prompt=generation,
                return_dict=False,
            )
        except TemplateError as error:
            raise Fault(f"the model's chat template refuses this conversation: {error}") from None
        return list(cast(list[int], ids))

    def _check_template(self) -> None:
        """A template must exist and have a generation prompt; whether it takes system messages is found out."""
        if self._checked:
            return
        name = self.tokenizer.name_or_path
        if not self.tokenizer.chat_template:
            raise DataError(
                f"the tokenizer of {name!r} has no chat template, so message lists cannot be rendered; accepted: an "
                "instruct model's tokenizer, or plain strings as prompt and answers"
            )
        self._checked = True
        hello: Message = {"role": "user", "content": "Hello"}
        if self._render([hello], generation=True) == self._render([hello], generation=False):
            raise DataError(
                f"the chat template of {name!r} has no generation prompt (it renders the same with "
                "add_generation_prompt and without), so where an answer starts is unknown; accepted: one that has it"
            )
        try:
            self._render([{"role": "system", "content": "Be kind."}, hello])
        except Fault:
            self._refuses_system = True

    def _accepted(self, messages: Messages) -> Messages:
        """The messages as the template takes them: the system message as `system` says."""
        self._check_template()
        if not self._refuses_system or messages[0]["role"] != "system":
            return messages
        if self.rendering.system == "error":
            raise Fault(
                "the model's chat template refuses system messages; accepted: system: merge (put it before the first "
                "user message) or system: drop"
            )
        system, user, *rest = messages
        if self.rendering.system == "merge":
            user = {"role": "user", "content": system["content"] + "\n\n" + user["content"]}
        return (user, *rest)


def _as_messages(text: Text, role: str) -> Messages:
    return ({"role": role, "content": text},) if isinstance(text, str) else text
