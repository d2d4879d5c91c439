"""The verb `chat`: base and aligned policy answer the same prompts in the terminal.

Answers go to standard output, all else to standard error, so that a script which pipes prompts in reads answers alone.
"""

import contextlib
import io
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Generated, Sampling
from lightning_bnf.generation.sides import ALIGNED, BASE, Side, opened
from lightning_bnf.generation.terminal import beside, show
from lightning_bnf.policies.base import Dtype
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveInt, checked
from lightning_bnf.runtime.escapes import visible
from lightning_bnf.runtime.progress import say, watched
from lightning_bnf.runtime.refusal import Refusal

COMMANDS = {
    "/base": "only the base answers",
    "/aligned": "only the aligned policy answers",
    "/both": "both answer",
    "/reset": "begin anew: both conversations are forgotten",
    "/temperature": "of the sampling, such as /temperature 0.7; 0 is greedy",
    "/tokens": "after which an answer is cut off, such as /tokens 200",
    "/help": "this list",
    "/exit": "end, as Ctrl-D does",
}
_HINT = "Ctrl-C stops an answer. A prompt that begins with / needs a space before it."


@checked
def chat(
    run: Path,
    temperature: NonNegativeFloat = 0.0,
    max_new_tokens: PositiveInt = 256,
    dtype: Dtype | None = None,
) -> None:
    """Talk to a run's base and its aligned policy, side by side in the terminal.

    Each keeps its own conversation, by the model's chat template. Prompts are lines of standard input: of a terminal,
    or piped in; a line that is refused is said on a terminal, and ends a script.

    Args:
        run: run folder, or the folder of an exported policy.
        temperature: softmax temperature; 0 is greedy. No top-k, no top-p.
        max_new_tokens: tokens after which an answer is cut off.
        dtype: type of the weights; null: the run's, float32 without one. A GPU is used where there is one.
    """
    found = opened(Path(run), dtype)
    for line in found.about:
        say(visible(line))
    conversations = [Conversation(side, found.renderers[side.name]) for side in found.sides]
    for one in conversations:
        if one.plain_text:
            say(f"{one.side.name}: {one.plain_text}")
    talk(Talk(conversations, Sampling(temperature, max_new_tokens)), on_terminal())


def expanded(words: Sequence[str]) -> list[str]:
    """`chat RUN ...` is short for `chat --run RUN ...`."""
    return ["--run", *words] if words and not words[0].startswith("-") else list(words)


def on_terminal() -> bool:
    """Whether a person types and reads."""
    return sys.stdin.isatty() and sys.stdout.isatty()


class Conversation:
    """What one side has been asked and has answered."""

    def __init__(self, side: Side, renderer: Renderer):
        self.side = side
        self.renderer = renderer
        self.messages: list[Message] = []

    @property
    def plain_text(self) -> str | None:
        """Why the conversation is plain text; None where it goes by the chat template."""
        if not self.renderer.tokenizer.chat_template:
            return "the tokenizer has no chat template, so the conversation is plain text that each answer goes on with"
        if self.renderer.strings == "text":
            return "the run has data.options.rendering.strings: text, so the conversation is plain text"
        return None

    def ask(self, prompt: str, sampling: Sampling, stop: Callable[[], bool] | None = None) -> Generated:
        """The answer, which joins the conversation with its prompt, also where it was stopped.

        Raises `Refusal` where the template refuses the conversation, or it has grown too long for the model.
        """
        asked = [*self.messages, Message(role="user", content=prompt)]
        ids = self.renderer.prompt_ids(as_text(asked) if self.plain_text else tuple(asked))
        self._check_length(len(ids), sampling.max_new_tokens)
        (answer,) = self.side.answers([ids], sampling, stop)
        self.messages = [*asked, Message(role="assistant", content=answer.text)]
        return answer

    def _check_length(self, tokens: int, new: int) -> None:
        most = getattr(self.side.model.config.get_text_config(), "max_position_embeddings", None)
        if most is not None and tokens + new > most:
            raise Refusal(
                f"the conversation with {self.side.name} and its answer must be at most {most} tokens, the model's "
                f"positions, got {tokens} and {new}; /reset begins anew, /tokens takes fewer"
            )


def as_text(messages: Sequence[Message]) -> str:
    """A conversation without a template: answers go on where their prompts end, and each prompt is a new line."""
    spoken = "".join(("\n" if message["role"] == "user" else "") + message["content"] for message in messages)
    return spoken.removeprefix("\n")


class Talk:
    """Both conversations, who answers, and how. A `line` is a prompt or a command."""

    def __init__(self, conversations: Sequence[Conversation], sampling: Sampling):
        self.conversations = {one.side.name: one for one in conversations}
        self.answering: tuple[str, ...] = (BASE, ALIGNED)
        self.sampling = sampling
        self.ended = False

    def line(self, line: str) -> None:
        """Do what a line says. Raises `Refusal` for an unknown command, a value out of range, a prompt that is no text
        and a conversation that has grown too long."""
        if line.startswith("/"):
            self._command(*line.split())
        elif line.strip():
            self._prompt(line.strip())

    def _prompt(self, prompt: str) -> None:
        try:
            prompt.encode()
        except UnicodeEncodeError:
            raise Refusal(f"a prompt must be UTF-8 text, got {prompt!r}") from None
        texts = []
        for name in self.answering:
            with stopping(name) as stop:
                answer = self.conversations[name].ask(prompt, self.sampling, stop)
            title = f"{name} ({remark})" if (remark := _remark(answer, self.sampling)) else name
            texts.append((title, answer.text.strip()))
        self.sampling = replace(self.sampling, seed=self.sampling.seed + 1)  # a question asked again: another sample
        show(beside(texts, shutil.get_terminal_size().columns) + "\n")

    def _command(self, name: str, *values: str) -> None:
        if name not in COMMANDS:
            raise Refusal(f"a command must be one of {', '.join(COMMANDS)}, got {name!r}; {_HINT}")
        wanted = 1 if name in ("/temperature", "/tokens") else 0
        if len(values) != wanted:
            raise Refusal(f"{name} must be followed by {'a number' if wanted else 'nothing'}, got {' '.join(values)!r}")
        if name == "/exit":
            self.ended = True
        elif name == "/help":
            say("\n".join(f"{command:14}{what}" for command, what in COMMANDS.items()) + f"\n{_HINT}")
        elif name == "/reset":
            for one in self.conversations.values():
                one.messages = []
            say("Both conversations begin anew.")
        elif wanted:
            setting = {"/temperature": "temperature", "/tokens": "max_new_tokens"}[name]
            changed: dict[str, Any] = {setting: values[0]}
            self.sampling = replace(self.sampling, **changed)
            say(f"{setting} {getattr(self.sampling, setting)}")
        else:
            self.answering = (BASE, ALIGNED) if name == "/both" else (name.removeprefix("/"),)
            say(f"{' and '.join(self.answering)} will answer.")


def _remark(answer: Generated, sampling: Sampling) -> str:
    """What a reader cannot see of an answer."""
    if not answer.finished:
        return "stopped" if answer.length < sampling.max_new_tokens else f"cut off at {sampling.max_new_tokens} tokens"
    return "" if answer.text.strip() else "says nothing"


def talk(conversation: Talk, person: bool) -> None:
    """Take lines until the input ends or `/exit`. A refusal is said to a person, and raised in a script."""
    if person:
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401 - input() then edits lines, and has a history
        say(f"{', '.join(COMMANDS)}\n{_HINT}\n")
    elif isinstance(sys.stdin, io.TextIOWrapper):
        with contextlib.suppress(io.UnsupportedOperation):  # of a stream that was read from before
            sys.stdin.reconfigure(errors="surrogateescape")  # a byte that is no UTF-8 is then refused with its line
    while not conversation.ended:
        line = _next_line(person)
        if line is None:
            return
        try:
            conversation.line(line)
        except Refusal as refusal:
            if not person:
                raise
            say(visible(f"error: {refusal}"))


def _next_line(person: bool) -> str | None:
    """The next line, None at the end of the input. Ctrl-C drops what a person has typed of it."""
    while True:
        try:
            return input("> " if person else "")
        except EOFError:
            if person:
                say("")
            return None
        except KeyboardInterrupt:
            if not person:
                raise
            say("\n/exit or Ctrl-D ends.")


@contextlib.contextmanager
def stopping(name: str) -> Iterator[Callable[[], bool]]:
    """Inside, Ctrl-C makes what is yielded say true instead of raising in the middle of a step, which could leave an
    adapter switched off. The second one raises. On a terminal it counts the tokens of `name`."""
    pressed = threading.Event()
    count = 0

    def press(number: int, frame: FrameType | None) -> None:
        if pressed.is_set():
            raise KeyboardInterrupt
        pressed.set()

    def stop() -> bool:
        nonlocal count
        count += 1
        if watched():
            print(f"\r{name}: {count} tokens", end="", file=sys.stderr, flush=True)
        return pressed.is_set()

    in_main = threading.current_thread() is threading.main_thread()  # no other may set handlers
    before = signal.signal(signal.SIGINT, press) if in_main else None
    try:
        yield stop
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)
        if count and watched():
            print(f"\r{' ' * (len(name) + 20)}\r", end="", file=sys.stderr, flush=True)
