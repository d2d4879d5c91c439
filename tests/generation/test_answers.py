"""Answers of a tiny model and of a small server: formats, ids, kills, refusals, and a key that is in no file."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from lightning_bnf.cli.main import main
from lightning_bnf.datamodules.reading.errors import DataError
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.reading.records import Completion, Row
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation import answers as module
from lightning_bnf.generation import server as server_module
from lightning_bnf.generation.answer_files import Answer, Generator, answer_file, markdown_counts
from lightning_bnf.generation.answers import prompt_ids, write_answers
from lightning_bnf.generation.questions import Question, read_questions
from lightning_bnf.generation.sampling import Sampling, generate_with_lengths
from lightning_bnf.generation.server import Server, ServerError, ask
from lightning_bnf.policies.sources import load_model

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(server_module.time, "sleep", lambda seconds: None)


@pytest.fixture
def arena(tmp_path) -> str:
    """Five questions in Arena-Hard's form, of different lengths."""
    path = tmp_path / "question.jsonl"
    texts = ["Hi", "What is 3 + 4?", "Tell me about the rain in the north of Spain, please.", "Why?", "Name a colour."]
    rows = [{"uid": f"u{i}", "category": "hard_prompt", "prompt": text} for i, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


ANSWER = Answer(
    Question("s1", ({"role": "user", "content": "Hi"},), {"instruction": "Hi", "dataset": "d", "primary_tag": "t"}),
    "Hé",
    2,
    True,
    12.5,
    "<user>Hi",
)
GENERATOR = Generator("tiny", "transformers", 0.7, 64, 3)


def test_the_form_of_alpaca_eval():
    assert json.loads(answer_file("alpaca_eval", [ANSWER], GENERATOR)) == [
        {"dataset": "d", "instruction": "Hi", "output": "Hé", "generator": "tiny"}
    ]


def test_the_form_of_arena_hard():
    (row,) = map(json.loads, answer_file("arena_hard", [ANSWER], GENERATOR).splitlines())
    assert set(row) == {"uid", "ans_id", "model", "messages", "tstamp", "metadata"}
    assert (row["uid"], row["model"], row["tstamp"]) == ("s1", "tiny", 12.5)
    assert row["messages"] == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": {"answer": "Hé"}},
    ]
    assert row["metadata"]["token_len"] == 2
    assert row["metadata"]["sampling"] == {
        "engine": "transformers",
        "temperature": 0.7,
        "max_tokens": 64,
        "seed": 3,
        "finished": True,
    }


def test_the_form_of_wildbench():
    assert json.loads(answer_file("wildbench", [ANSWER], GENERATOR)) == [
        {
            "session_id": "s1",
            "chat_history": ["Hi"],
            "model_input": "<user>Hi",
            "output": ["Hé"],
            "generator": "tiny",
            "configs": {
                "engine": "transformers",
                "repetition_penalty": 1.0,
                "temperature": 0.7,
                "top_p": 1.0,
                "max_tokens": 64,
                "seed": 3,
            },
            "dataset": "wild_bench",
            "primary_tag": "t",
        }
    ]


def test_markdown_is_counted_outside_of_code():
    text = "# One\n## Two\n## Two\n1. a\n 2. b\n- c\n**bold** and __bold__\n```\n# code\n- code\n```"
    found = markdown_counts(text)
    assert found["header_count"] == {"h1": 1, "h2": 2, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert found["list_count"] == {"ordered": 2, "unordered": 1}
    assert found["bold_count"] == {"**": 1, "__": 1}


def generate(arena: str, tmp_path: Path, *words: str, output: str = "out.jsonl") -> Path:
    """The command as a user types it."""
    main(
        [
            *("generate", "--questions", arena, "--format", "arena_hard", "--name", "tiny", "--max_new_tokens", "6"),
            *("--output", str(tmp_path / output), "--work", str(tmp_path / "work"), *words),
        ]
    )
    return tmp_path / output


def test_answers_are_the_models_own_on_trainings_prompt_ids(arena, tmp_path, tiny_folder, tokenizer):
    """Against one prompt at a time; the prompt ids are those of a training row with this prompt and some answer."""
    found = lines(generate(arena, tmp_path, "--source", tiny_folder, "--batch_size", "3"))
    model = load_model(tiny_folder)
    for question, row in zip(read_questions(arena), found, strict=True):
        trained = Row("", "", "unpaired", question.messages, (Completion("A different answer.", None, 1),))
        ids = Renderer(tokenizer).row(trained).prompt_ids
        ((alone,),) = generate_with_lengths(model, tokenizer, [ids], Sampling(0.0, 6))
        assert row["uid"] == question.id
        assert row["messages"][-1]["content"]["answer"] == alone.text
        assert row["metadata"]["token_len"] == alone.length
    settings = yaml.safe_load((tmp_path / "out.jsonl.settings.yaml").read_text())
    assert settings["answers"] == 5
    assert settings["identity"]["source"] == tiny_folder
    assert settings["generator"] == {
        "name": "tiny",
        "engine": "transformers",
        "temperature": 0.0,
        "max_new_tokens": 6,
        "seed": 0,
    }


def test_ids_other_than_trainings_are_refused(tokenizer):
    class Other(Renderer):
        def prompt_ids(self, prompt):
            return [*super().prompt_ids(prompt), 5]

    question = Question("q", ({"role": "user", "content": "Hi"},), {})
    expected = Renderer(tokenizer).prompt_ids(question.messages)
    assert prompt_ids([question], Renderer(tokenizer)) == [expected]
    with pytest.raises(DataError, match=r"question q: its prompt has .* others in training; accepted: the same"):
        prompt_ids([question], Other(tokenizer))


class Stopped(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 2])
def test_a_killed_run_goes_on_to_the_same_samples(arena, tmp_path, tiny_folder, monkeypatch, stop):
    words = ["--source", tiny_folder, "--batch_size", "2", "--temperature", "1.0"]
    whole = [row["messages"] for row in lines(generate(arena, tmp_path, *words, "--work", str(tmp_path / "other")))]
    original, calls = module.generate_with_lengths, []

    def counted(*arguments):
        if len(calls) == stop:
            raise Stopped
        calls.append(len(arguments[2]))
        return original(*arguments)

    monkeypatch.setattr(module, "generate_with_lengths", counted)
    with pytest.raises(Stopped):
        generate(arena, tmp_path, *words, output="cut.jsonl")
    assert not (tmp_path / "cut.jsonl").exists()
    calls.clear()
    monkeypatch.setattr(module, "generate_with_lengths", lambda *arguments: (calls.append(1), original(*arguments))[1])
    found = generate(arena, tmp_path, *words, output="cut.jsonl")
    assert len(calls) == 3 - stop, "of three batches those that were missing"
    assert [row["messages"] for row in lines(found)] == whole
    calls.clear()
    again = found.read_bytes()
    generate(arena, tmp_path, *words, output="cut.jsonl")
    assert not calls
    assert found.read_bytes() == again, "times too are those of the answers"


class Endpoint(ThreadingHTTPServer):
    """A server that answers with the prompt in capitals; its `replies` come first: (status, body) each."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, object]] = []
        self.seen: list[tuple[str, dict, str | None]] = []
        self.prompt_tokens = 1

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers["Authorization"]))
        message = {"content": body["messages"][-1]["content"].upper()}
        usage = {"completion_tokens": 7, "prompt_tokens": self.server.prompt_tokens}
        reply = (200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})
        status, content = self.server.replies.pop(0) if self.server.replies else reply
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def endpoint():
    found = Endpoint()
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def served(endpoint: Endpoint, *words: str) -> list[str]:
    return ["--server.base_url", endpoint.url, "--server.model", "big", "--server.at_once", "2", *words]


def test_a_server_answers_and_its_key_is_nowhere(arena, tmp_path, endpoint, monkeypatch, capsys):
    monkeypatch.setenv("MY_KEY", KEY)
    words = served(endpoint, "--server.api_key_variable", "MY_KEY", "--temperature", "0.5", "--seed", "9")
    found = lines(generate(arena, tmp_path, *words))
    assert [row["messages"][-1]["content"]["answer"] for row in found][:2] == ["HI", "WHAT IS 3 + 4?"]
    assert found[0]["metadata"]["token_len"] == 7
    assert [row["uid"] for row in found] == ["u0", "u1", "u2", "u3", "u4"]
    path, body, key = endpoint.seen[0]
    assert (path, key) == ("/v1/chat/completions", f"Bearer {KEY}")
    assert {name: body[name] for name in ("model", "temperature", "max_tokens", "top_p", "seed")} == {
        "model": "big",
        "temperature": 0.5,
        "max_tokens": 6,
        "top_p": 1.0,
        "seed": 9,
    }
    shown = capsys.readouterr()
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert all(KEY not in text for text in [shown.out, shown.err, *files])


def test_ids_that_were_answered_are_skipped(arena, tmp_path, endpoint):
    """The third of five requests is refused: two or so answers stay, and the next run asks for the others only."""
    endpoint.replies = [(429, {})]  # busy once: tried again
    ok = {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]}
    endpoint.replies += [(200, ok), (200, ok), (400, {"error": "too long"})]
    words = served(endpoint, "--server.at_once", "1")
    with pytest.raises(SystemExit):
        generate(arena, tmp_path, *words)
    assert not (tmp_path / "out.jsonl").exists()
    (work,) = (tmp_path / "work").iterdir()
    kept = len(lines(work))
    assert 2 <= kept < 5
    endpoint.seen.clear()
    assert len(lines(generate(arena, tmp_path, *words))) == 5
    assert len(endpoint.seen) == 5 - kept


def test_no_key_is_sent_that_was_not_asked_for(arena, tmp_path, endpoint, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    generate(arena, tmp_path, *served(endpoint))
    assert {key for _, _, key in endpoint.seen} == {None}
    assert "seed" not in endpoint.seen[0][1], "greedy"


@pytest.mark.parametrize(
    ("replies", "sentence"),
    [
        ([(401, {"error": f"wrong key {KEY}"})], r"refused with status 401 .*wrong key \[key\]"),
        ([(302, {})], "refused with status 302"),
        ([(503, {})] * 2, "no answer in 2 tries; the last one failed with status 503"),
        ([(200, {"object": "list"})], "accepted: a chat completion"),
        (
            [(200, {"choices": [{"message": {"content": None}, "finish_reason": "tool_calls"}]})],
            "ended with 'tool_calls'",
        ),
    ],
)
def test_what_a_server_may_not_answer(endpoint, monkeypatch, replies, sentence):
    monkeypatch.setenv("MY_KEY", KEY)
    endpoint.replies = list(replies)
    with pytest.raises(ServerError, match=sentence) as error:
        ask(Server(endpoint.url, "big", "MY_KEY", tries=2), [{"role": "user", "content": "Hi"}], 0.0, 5, 0)
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None
    assert len(endpoint.seen) == len(replies)


def test_a_server_that_is_not_there():
    with pytest.raises(ServerError, match="no answer in 2 tries; the last one failed with URLError"):
        ask(Server("http://127.0.0.1:9/v1", "big", tries=2), [{"role": "user", "content": "Hi"}], 0.0, 5, 0)


def test_prompt_tokens_of_a_server_are_held_against_trainings(
    arena, tmp_path, endpoint, tiny_folder, tokenizer, capsys
):
    question = read_questions(arena)[0]
    endpoint.prompt_tokens = len(Renderer(tokenizer, Rendering(strings="chat")).prompt_ids(question.messages))
    words = served(endpoint, "--server.tokenizer", tiny_folder, "--limit", "1")
    assert len(lines(generate(arena, tmp_path, *words))) == 1
    endpoint.prompt_tokens += 1
    with pytest.raises(SystemExit):
        generate(arena, tmp_path, *words, "--work", str(tmp_path / "new"))
    assert "accepted: a server with the same chat template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"base_url": "localhost:8000"}, "accepted are addresses like"),
        ({"base_url": f"http://user:{KEY}@host/v1"}, "it holds a user, a password or a query"),
        ({"base_url": f"http://host/v1?key={KEY}"}, "it holds a user, a password or a query"),
        ({"at_once": 0}, "at_once 0: accepted are whole numbers from 1"),
    ],
)
def test_servers_that_cannot_be(changed, sentence):
    with pytest.raises(ServerError, match=sentence) as error:
        Server(**({"base_url": "http://host/v1", "model": "big"} | changed))
    assert KEY not in str(error.value)


def test_a_named_variable_must_be_set(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ServerError, match="api_key_variable MY_KEY: it is not set"):
        Server("http://host/v1", "big", "MY_KEY").key()


def test_one_who_answers_not_both_not_none(arena, tmp_path, tiny_folder):
    for who in ({}, {"source": tiny_folder, "server": Server("http://host/v1", "big")}):
        with pytest.raises(ValueError, match=r"source, server: .* given; accepted is one of them"):
            write_answers(tmp_path / "out", arena, "arena_hard", "tiny", **who)
