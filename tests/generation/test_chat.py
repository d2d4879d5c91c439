"""The verb `chat` as it is typed: piped lines, commands, conversations, hostile answers, Ctrl-C, refusals."""

import io
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.chat import run_of
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from lightning_bnf.cli.main import main
from lightning_bnf.generation import chat as module
from lightning_bnf.generation.chat import Conversation, Talk, as_text, expanded, stopping, talk
from lightning_bnf.generation.sampling import Generated, Sampling
from lightning_bnf.generation.sides import opened
from lightning_bnf.policies import FullPolicy, LoRAPolicy
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

QUESTIONS = ["What is 3 + 4?", "Name a colour."]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_folder: str) -> Path:
    """A run that left an adapter, far from the base."""
    return run_of(LoRAPolicy(tiny_folder, target_modules=["q_proj", "down_proj"]), tmp_path_factory.mktemp("run"))


def piped(text: str, monkeypatch: pytest.MonkeyPatch, columns: int = 80) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode("utf-8", "surrogateescape"))))
    monkeypatch.setenv("COLUMNS", str(columns))


def own_answers(folder: str | Path, tokenizer: PreTrainedTokenizerBase, limit: int = 8) -> list[str]:
    """What transformers alone makes of the questions, asked one after the other in one conversation."""
    model = AutoModelForCausalLM.from_pretrained(folder)
    messages: list[dict[str, str]] = []
    for question in QUESTIONS:
        messages.append({"role": "user", "content": question})
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt")["input_ids"]
        out = model.generate(ids, do_sample=False, max_new_tokens=limit, pad_token_id=2)[0, ids.shape[1] :]
        messages.append({"role": "assistant", "content": tokenizer.decode(out, skip_special_tokens=True)})
    return [message["content"] for message in messages[1::2]]


class Fake:
    """A side that says what it was told to say, and keeps what it was asked."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerBase, says: str = "Yes.", positions: int = 64):
        self.name, self.tokenizer, self.says = name, tokenizer, says
        text_config = type("Config", (), {"max_position_embeddings": positions})()
        self.model: Any = type("Model", (), {"config": type("C", (), {"get_text_config": lambda _: text_config})()})()
        self.asked: list[str] = []
        self.seeds: list[int] = []

    def answers(self, prompts: list[list[int]], sampling: Sampling, stop: Any = None) -> list[Generated]:
        self.asked.append(str(self.tokenizer.decode(prompts[0])))
        self.seeds.append(sampling.seed)
        return [Generated(self.says, 2, True)]


@pytest.fixture
def fakes(tokenizer: PreTrainedTokenizerBase) -> tuple[Fake, Fake]:
    return Fake("base", tokenizer, "No."), Fake("aligned", tokenizer)


def talk_of(fakes: tuple[Fake, Fake]) -> Talk:
    from lightning_bnf.datamodules.tokens.renderer import Renderer

    sides = [Conversation(one, Renderer(one.tokenizer)) for one in fakes]  # type: ignore[arg-type]
    return Talk(sides, Sampling(0.0, 8))


def test_piped_prompts_get_the_models_own_answers(
    run: Path,
    tiny_folder: str,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two turns, adapter off and on, against transformers' `generate` on the base alone; nothing else on stdout."""
    piped("".join(f"{question}\n" for question in QUESTIONS), monkeypatch)
    main(["chat", str(run), "--max_new_tokens", "8"])
    out, err = capsys.readouterr()
    parts = out.split("\n\n")
    base = own_answers(tiny_folder, tokenizer)
    assert [parts[i].removeprefix("base (cut off at 8 tokens):\n").strip() for i in (0, 2)] == [
        module.visible(text).strip() for text in base
    ]
    assert parts[1].startswith("aligned (cut off at 8 tokens):\n")
    assert parts[1].partition("\n")[2] != parts[0].partition("\n")[2]
    assert "base: the same with the adapter off." in err
    assert ">" not in err.splitlines()[-1]


def test_full_weights_and_columns(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of(FullPolicy(tiny_folder), tmp_path)
    piped("Hi\n\n/exit\nnever asked\n", monkeypatch, columns=120)
    main(["chat", "--run", str(run / "policy"), "--max_new_tokens", "2"])
    out, err = capsys.readouterr()
    assert f"base: {tiny_folder}, loaded beside it" in err
    title = f"base (cut off at 2 tokens){' ' * 32} | aligned (cut off at 2 tokens)\n"
    assert out.startswith(title + "-" * 58 + " | " + "-" * 58)
    assert out.count("aligned") == 1


def test_commands(fakes: tuple[Fake, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    base, aligned = fakes
    talking = talk_of(fakes)
    for line in ("/base", "one", "/aligned", "two", "/both", "three", "   ", "/reset", " /four"):
        talking.line(line)
    assert [len(one.asked) for one in fakes] == [3, 3]
    assert [("one" in text, "two" in text, "No." in text) for text in base.asked] == [
        (True, False, False),
        (True, False, True),  # of its own conversation alone
        (False, False, False),
    ]
    assert "two" in aligned.asked[1]
    assert "one" not in aligned.asked[1]
    assert "/four" in aligned.asked[2]
    assert base.seeds == [0, 2, 3], "a question asked again is sampled anew"
    assert aligned.seeds == [1, 2, 3], "both sides with the same seed"
    assert capsys.readouterr().out.split("\n\n")[:3] == ["base:\nNo.", "aligned:\nYes.", "base:\nNo."]
    talking.line("/temperature 0.7")
    talking.line("/tokens 200")
    assert (talking.sampling.temperature, talking.sampling.max_new_tokens) == (0.7, 200)
    talking.line("/help")
    shown = capsys.readouterr().err
    assert all(command in shown for command in module.COMMANDS)
    talking.line("/exit")
    assert talking.ended


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/quit", "a command must be one of /base, .*, got '/quit'"),
        ("/", "a command must be one of /base, .*, got '/'"),
        ("/temperature", "/temperature must be followed by a number, got ''"),
        ("/temperature -1", r"temperature must be >= 0, got -1"),
        ("/temperature hot", "temperature must be a finite number >= 0, got 'hot'"),
        ("/tokens 0", "max_new_tokens must be >= 1, got 0"),
        ("/reset all", "/reset must be followed by nothing, got 'all'"),
        ("half \udcff", "a prompt must be UTF-8 text, got "),
        ("long " * 60, "the conversation with base and its answer must be at most 64 tokens, .* got 9. and 8; /reset"),
    ],
)
def test_lines_that_are_refused_change_nothing(fakes: tuple[Fake, Fake], line: str, message: str) -> None:
    talking = talk_of(fakes)
    with pytest.raises(Refusal, match=message):
        talking.line(line)
    assert talking.sampling == Sampling(0.0, 8)
    assert [one.messages for one in talking.conversations.values()] == [[], []]


def test_hostile_answers_are_written_out(fakes: tuple[Fake, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    fakes[0].says = "\x1b]52;c;ZXZpbA==\x07\x1b[2J\rdone"
    talk_of(fakes).line("Hi")
    out = capsys.readouterr().out
    assert out == "base:\n\\x1b]52;c;ZXZpbA==\\x07\\x1b[2J\\rdone\n\naligned:\nYes.\n\n"


def test_an_empty_answer_is_said_to_be_one(fakes: tuple[Fake, Fake], capsys: pytest.CaptureFixture[str]) -> None:
    fakes[0].says = " \n"
    talk_of(fakes).line("Hi")
    assert capsys.readouterr().out == "base (says nothing):\n\n\naligned:\nYes.\n\n"


def test_a_person_is_told_and_a_script_ends(
    fakes: tuple[Fake, Fake], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed() -> Iterator[str]:
        yield from ("/quit", "Hi")
        raise KeyboardInterrupt  # at the prompt: drops the line

    def ask(prompt: str) -> str:
        assert prompt == "> "
        try:
            return next(lines)
        except StopIteration:
            raise EOFError from None

    lines = typed()
    monkeypatch.setattr("builtins.input", ask)
    talk(talk_of(fakes), person=True)
    shown = capsys.readouterr()
    assert "error: a command must be one of" in shown.err
    assert "/exit or Ctrl-D ends." in shown.err
    assert "Yes." in shown.out
    monkeypatch.undo()
    piped("/quit\nHi\n", monkeypatch)
    with pytest.raises(Refusal, match="got '/quit'"):
        talk(talk_of(fakes), person=False)
    piped("half \udcff\n", monkeypatch)
    with pytest.raises(Refusal, match="a prompt must be UTF-8 text, got 'half "):
        talk(talk_of(fakes), person=False)


def test_ctrl_c_stops_one_answer(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pressed while the base reads the prompt: its answer ends after a token, the other side gives all of its own."""
    found = opened(run)
    conversations = [Conversation(side, found.renderers[side.name]) for side in found.sides]
    base = conversations[0].side
    answers = type(base).answers

    def pressed(self: Any, *arguments: Any) -> list[Generated]:
        if self is base:
            signal.raise_signal(signal.SIGINT)
        return answers(self, *arguments)

    monkeypatch.setattr(type(base), "answers", pressed)
    before = signal.getsignal(signal.SIGINT)
    Talk(conversations, Sampling(0.0, 5)).line("Hi")
    out = capsys.readouterr().out
    assert out.startswith("base (stopped):\n")
    assert "aligned (cut off at 5 tokens):\n" in out
    assert signal.getsignal(signal.SIGINT) is before
    with stopping("base") as stop:
        assert not stop()
        signal.raise_signal(signal.SIGINT)
        assert stop()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_without_a_template_it_is_plain_text_and_said(
    tmp_path: Path, tiny_folder: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The base's answer goes on from the prompt's own tokens, as transformers' does."""
    plain = AutoTokenizer.from_pretrained(tiny_folder)
    plain.chat_template = None
    source = tmp_path / "plain"
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(source)
    plain.save_pretrained(source)
    run = run_of(LoRAPolicy(str(source), target_modules=["q_proj"]), tmp_path / "run", {"strings": "chat"})
    piped("The sky is\n", monkeypatch)
    main(["chat", str(run), "--max_new_tokens", "4"])
    out, err = capsys.readouterr()
    assert "base: the tokenizer has no chat template, so the conversation is plain text" in err
    ids = plain("The sky is", return_tensors="pt")["input_ids"]
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        own = plain.decode(model.generate(ids, do_sample=False, max_new_tokens=4, pad_token_id=2)[0, ids.shape[1] :])
    assert out.startswith(f"base (cut off at 4 tokens):\n{module.visible(own.strip())}\n")
    turns = [("user", "The sky is"), ("assistant", " blue."), ("user", "Grass is")]
    assert as_text([{"role": role, "content": text} for role, text in turns]) == "The sky is blue.\nGrass is"


def test_what_the_command_line_refuses(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        (["/no/such"], "error: run must be a run folder, or an exported policy's, got '/no/such'"),
        ([str(run), "--temperature", "-1"], "must be >= 0, got -1"),
        ([str(run), "--dtype", "int8"], "int8"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["chat", *words])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err
    assert expanded(["runs/latest", "--dtype", "float32"]) == ["--run", "runs/latest", "--dtype", "float32"]
    assert expanded(["--help"]) == ["--help"]
