"""Answers of a server: what is asked, what may be answered, and that no key is shown."""

import socket
import sys
import threading
import time

import pytest
from support.answers import generate, lines
from support.endpoint import Endpoint

from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation import server as server_module
from lightning_bnf.generation.questions import read_questions
from lightning_bnf.generation.sampling import prompt_seed
from lightning_bnf.generation.server import Server, ServerError, ask, client
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.jsonl import JsonlStore
from lightning_bnf.runtime.refusal import Refusal

pytestmark = pytest.mark.slow

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Nor is a client kept from one test to the next: it has the key of its making."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    client.cache_clear()


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
        "seed": prompt_seed(9, body["messages"]),
    }
    assert len({body["seed"] for _, body, _ in endpoint.seen}) == 5, "like questions must not meet the same noise"
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


def test_sampled_answers_of_a_seed_for_all_are_asked_for_anew(arena, tmp_path, endpoint):
    """Greedy ones are not: a work file's key holds the seed that is sent, and for those none is."""
    identity = {"base_url": endpoint.url, "model": "big"}
    store = JsonlStore(tmp_path / "work/out.jsonl.jsonl")
    for question in read_questions(arena):
        for temperature in (0.0, 0.5):
            said = {"text": "earlier", "length": 1, "finished": True, "time": 0.0}
            key = content_hash([identity, temperature, 6, 9, list(question.messages)])
            store.add({key: {"said": said}})
    for temperature, asked in (("0", 0), ("0.5", 5), ("0.5", 5)):
        generate(arena, tmp_path, *served(endpoint), "--temperature", temperature, "--seed", "9")
        assert len(endpoint.seen) == asked


def test_nothing_is_sent_that_was_not_asked_for(arena, tmp_path, endpoint, monkeypatch):
    """The package would send keys and names that it finds in the environment."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: {KEY}")
    generate(arena, tmp_path, *served(endpoint))
    assert {key for _, _, key in endpoint.seen} == {None}
    known = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"} | {
        "x-stainless-raw-response"
    }
    assert set.union(*endpoint.headers) <= known
    assert "seed" not in endpoint.seen[0][1], "greedy"


OK = {"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("replies", "sentence"),
    [
        ([(401, {"error": f"wrong key {KEY}"})], r"got status 401 .*wrong key \[key\]"),
        ([(302, {})], "got status 302"),
        ([(503, {})] * 2, "a chat completion, got status 503 .*; tried 2 times at most"),
        ([(200, {"object": "list"})], "a chat completion, got "),
        ([(200, b"<html>")], "a chat completion, got .*<html>"),
        ([(200, b"[" * 100_000)], "a chat completion, got "),
        ([(200, b"\x1f\x8b")] * 2, "got DecodingError: a compressed reply, which was not asked for"),
        ([(200, {**OK, "echo": KEY})], "an answer without the key"),
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
        ask(Server(endpoint.url, "big", "MY_KEY", tries=2), HI, 0.0, 5, 0)
    assert KEY not in str(error.value)
    assert error.value.__cause__ is None
    assert "Bearer" not in repr(error.value.__context__)
    assert len(endpoint.seen) == len(replies)


HI = [{"role": "user", "content": "Hi"}]


def test_a_busy_server_is_asked_again_when_it_says(endpoint, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    endpoint.replies, endpoint.retry_after = [(429, {}), (503, {}), (200, OK)], "7"
    assert ask(Server(endpoint.url, "big"), HI, 0.0, 5, 0).text == "A"
    assert [wait for wait in waits if wait == 7] == [7, 7]


def test_a_reply_that_never_ends_is_not_read_on(endpoint, monkeypatch):
    monkeypatch.setattr(server_module, "LARGEST_REPLY", 1000)
    endpoint.replies = [(200, {"choices": "A" * 2000})]
    with pytest.raises(ServerError, match=r"got ReadError: a reply of more than 1000 bytes"):
        ask(Server(endpoint.url, "big", tries=1), HI, 0.0, 5, 0)


def test_a_server_that_drips_is_waited_for_no_longer_than_the_timeout(monkeypatch):
    """Here its name is looked for without end, which no timeout of a connection covers."""
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *given, **named: gate.wait())
    with pytest.raises(ServerError, match=r"got ReadTimeout: a reply that took longer than 0\.1 s; tried 1 times"):
        ask(Server("http://host.example/v1", "big", tries=1, timeout=0.1), HI, 0.0, 5, 0)
    gate.set()


def test_half_an_emoji_is_text_that_a_file_can_hold(endpoint):
    endpoint.replies = [(200, {"choices": [{"message": {"content": "a\ud83d"}, "finish_reason": "length"}]})]
    assert ask(Server(endpoint.url, "big"), HI, 0.0, 5, 0).text == "a\ufffd"


@pytest.mark.parametrize("usage", [None, [], 3, {"completion_tokens": "7"}, {"prompt_tokens": True}])
def test_counts_that_are_none_are_unknown(endpoint, usage):
    endpoint.replies = [(200, {**OK, "usage": usage})]
    reply = ask(Server(endpoint.url, "big"), HI, 0.0, 5, 0)
    assert (reply.tokens, reply.prompt_tokens) == (None, None)


def test_a_server_that_is_not_there():
    with pytest.raises(ServerError, match=r"got ConnectError: .*; tried 2 times at most"):
        ask(Server("http://127.0.0.1:9/v1", "big", tries=2), HI, 0.0, 5, 0)


def test_the_package_that_lacks_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(ServerError, match=r"not installed: pip install 'lightning_bnf\[server\]'"):
        client(Server("http://host/v1", "big"))


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
    assert "must be a server with training's chat template" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"base_url": "localhost:8000"}, "base_url must be an address like .*, got 'localhost:8000'"),
        (
            {"base_url": f"http://user:{KEY}@host/v1"},
            "base_url must be an address without user, password and query, got one with",
        ),
        (
            {"base_url": f"http://host/v1?key={KEY}"},
            "base_url must be an address without user, password and query, got one with",
        ),
        *(
            ({"base_url": url}, "base_url must be an address like http://localhost:8000/v1, got ")
            for url in (
                f"ftp://user:{KEY}@host/v1",
                "http://[::1",
                "http://host:x/v1",
                "http://host:99999/v1",
                "http://ho st/v1",
                "http://host/v1\n",
                "http://host\\other/v1",
                f"http://host/{'v1' * 1000}",
            )
        ),
        ({"at_once": 0}, "at_once must be >= 1, got 0"),
        ({"timeout": 1e9}, "timeout must be at most 86400 seconds, a day, got 1000000000.0"),
        ({"timeout": float("nan")}, "timeout must be a finite number > 0, got nan"),
    ],
)
def test_servers_that_cannot_be(changed, sentence):
    with pytest.raises(Refusal, match=sentence) as error:
        Server(**({"base_url": "http://host/v1", "model": "big"} | changed))
    assert KEY not in str(error.value)


def test_a_named_variable_must_be_set(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(ServerError, match="api_key_variable must name a variable that is set, got MY_KEY"):
        Server("http://host/v1", "big", "MY_KEY").key()


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY} x", f"{KEY}é", f"{KEY}\r"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(monkeypatch, key):
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(ServerError, match="the key must be printable ASCII without spaces and line breaks") as error:
        Server("http://host/v1", "big", "MY_KEY").key()
    assert KEY not in str(error.value)
