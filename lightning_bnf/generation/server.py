"""A client for servers that speak OpenAI's completions, by messages or token ids: vLLM, SGLang, `transformers serve`,
llama.cpp, the API itself."""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import SplitResult, urlsplit

from lightning_bnf.datamodules.reading.errors import shorten
from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.runtime.arguments import PositiveFloat, PositiveInt, checked
from lightning_bnf.runtime.refusal import Refusal, reason_of

if TYPE_CHECKING:
    from openai import OpenAI

INSTALL = "pip install 'lightning_bnf[server]'"
LARGEST_REPLY = 2**26  # bytes
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "repeat_penalty": 1.0}
"""What OpenAI's completions do not name, each switched off: for what a request leaves out, servers take the model's
generation config or values of their own. vLLM, SGLang and llama.cpp know the first two, vLLM and SGLang the third,
llama.cpp the fourth; all three leave out of account what they do not know. A server that refuses them is taken for one
that completes no ids, and is sent messages."""
LONGEST_WAIT = 86_400  # seconds
_SENT = {"host", "accept", "content-type", "content-length", "connection", "user-agent", "x-stainless-raw-response"}
"""Headers of the package that are sent; by the last one it knows its own raw replies."""


class ServerError(Refusal):
    """A server that cannot be used as it is given, or does not answer as it should. Never holds the key."""


@checked
@dataclass(frozen=True)
class Server:
    """An OpenAI-compatible server.

    Args:
        base_url: address up to and with /v1, such as http://localhost:8000/v1.
        model: name of the model as the server knows it.
        api_key_variable: environment variable that holds the key; null sends none. The key itself is never stored.
        tokenizer: source of the model's tokenizer; if given, the server's counts of prompt tokens must equal those of
            our rendering, which is training's.
        at_once: requests under way at the same time.
        tries: attempts for a request before the run stops; waits double from half a second, or are as the server says.
        timeout: seconds that one request may take.
    """

    base_url: str
    model: str
    api_key_variable: str | None = None
    tokenizer: str | None = None
    at_once: PositiveInt = 8
    tries: PositiveInt = 6
    timeout: PositiveFloat = 600.0

    def __post_init__(self) -> None:
        parts = _split(self.base_url)
        if parts is None:
            got = "one with an @" if "@" in self.base_url else shorten(self.base_url)  # before which a password stands
            raise ServerError(f"base_url must be an address like http://localhost:8000/v1, got {got}")
        if parts.username or parts.password or parts.query:
            raise ServerError(
                "base_url must be an address without user, password and query, got one with; a key goes into an"
                " environment variable named by api_key_variable"
            )

        if self.timeout > LONGEST_WAIT:
            raise ServerError(f"timeout must be at most {LONGEST_WAIT} seconds, a day, got {self.timeout}")

    def key(self) -> str | None:
        """The key, or None. Raises `ServerError` where the named variable is not set, or no header can hold it."""
        if self.api_key_variable is None:
            return None
        key = os.environ.get(self.api_key_variable)
        if not key:
            raise ServerError(f"api_key_variable must name a variable that is set, got {self.api_key_variable}")
        if not key.isascii() or not key.isprintable() or " " in key:
            raise ServerError(
                f"api_key_variable {self.api_key_variable}: the key must be printable ASCII without spaces and line "
                "breaks, got another (not shown)"
            )
        return key


class Unreachable(ServerError):
    """A server that is away, or busy for longer than it is tried for."""


@dataclass(frozen=True)
class Reply:
    """A server's answer; what it does not say is None.

    model: its own name of what answered. first: the likeliest first tokens with their log-probs, where asked for.
    """

    text: str
    finished: bool
    tokens: int | None
    prompt_tokens: int | None
    model: str | None = None
    first: tuple[tuple[str, float], ...] | None = None


@lru_cache(maxsize=64)  # servers of a run; each keeps its connections
def client(server: Server) -> "OpenAI":
    """The `openai` package's client of a server, for any number of threads: it retries and keeps to the timeout.

    It follows no redirect, which would carry the key to another host; sends the key that the server names and none of
    those that `openai` finds in the environment; and stops reading a reply that is too large or takes too long. Raises
    `ServerError` for a key that cannot be sent, or without the package.
    """
    try:
        import httpx2
        from openai import DefaultHttpxClient, OpenAI
    except ImportError:
        raise ServerError(f"server needs the openai package, which is not installed: {INSTALL}") from None
    key = server.key()

    class Bounded(httpx2.SyncByteStream):
        def __init__(self, stream: Any):
            self.stream = stream

        def __iter__(self) -> Iterator[bytes]:
            size = 0
            for part in self.stream:
                size += len(part)
                if size > LARGEST_REPLY:
                    raise httpx2.ReadError(f"a reply of more than {LARGEST_REPLY} bytes")
                yield part

        def close(self) -> None:
            self.stream.close()

    def send_ours(request: httpx2.Request) -> None:
        for name in set(request.headers) - _SENT:
            del request.headers[name]
        request.headers["accept-encoding"] = "identity"  # a small reply must not unpack to a huge one
        if key is not None:
            request.headers["authorization"] = f"Bearer {key}"

    def bound(response: httpx2.Response) -> None:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise httpx2.DecodingError("a compressed reply, which was not asked for")
        response.stream = Bounded(response.stream)

    http = _hurried(DefaultHttpxClient, server.timeout, httpx2.ReadTimeout)(
        follow_redirects=False,
        event_hooks={"request": [send_ours], "response": [bound]},
        limits=httpx2.Limits(max_connections=None),
    )
    return OpenAI(
        base_url=server.base_url,
        api_key="never sent",  # ours is added to each request
        timeout=server.timeout,
        max_retries=server.tries - 1,
        http_client=http,
    )


def _hurried(kind: Any, seconds: float, late: type[Exception]) -> Any:
    """The client of httpx, with a limit on the whole of a request: its own timeout is of each part, so that a name
    server, or headers that drip, could take for ever."""

    class Hurried(kind):
        def send(self, request: Any, **options: Any) -> Any:
            done: SimpleQueue[Any] = SimpleQueue()

            def run() -> None:
                try:
                    done.put((super(Hurried, self).send(request, **options), None))
                except BaseException as error:  # raised again where it is waited for
                    done.put((None, error))

            Thread(target=run, daemon=True).start()
            try:
                reply, error = done.get(timeout=seconds)
            except Empty:
                raise late(f"a reply that took longer than {seconds} s") from None
            if error is not None:
                raise error
            return reply

    return Hurried


def ask(
    server: Server,
    messages: Sequence[Message],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    first: int = 0,
    json_object: bool = False,
    top_p: float = 1.0,
) -> Reply:
    """One chat completion, with the log-probs of so many `first` tokens, or as a JSON object where the server can.

    Raises `ServerError` when it is refused, or failed `server.tries` times.
    """
    body = _body(server, temperature, top_p, max_new_tokens, seed) | {"messages": [_sent(one) for one in messages]}
    if first:
        body |= {"logprobs": True, "top_logprobs": first}
    if json_object:
        body["response_format"] = {"type": "json_object"}
    answer = _post(server, body)
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        raise _unlike(server, f"a chat completion, got {shorten(answer)}") from None
    text = _checked(server, text, reason)
    tokens, prompt_tokens = _counts(answer)
    named = answer.get("model")
    model = named[:200] if isinstance(named, str) else None
    return Reply(text, reason == "stop", tokens, prompt_tokens, model, _first_tokens(choice) if first else None)


def _first_tokens(choice: Any) -> tuple[tuple[str, float], ...] | None:
    """The first token's alternatives; None where a server leaves them out or says something else."""
    try:
        listed = choice["logprobs"]["content"][0]["top_logprobs"]
        held = tuple((one["token"], float(one["logprob"])) for one in listed)
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return held if all(isinstance(token, str) and number <= 0.001 for token, number in held) else None


def complete(
    server: Server, ids: Sequence[int], n: int, temperature: float, max_new_tokens: int, seed: int, top_p: float = 1.0
) -> list[Reply]:
    """`n` completions of a prompt of token ids, by one request. Raises `ServerError` as `ask` does, and where the
    server counts other prompt tokens than it was sent. vLLM and llama.cpp draw the k-th with seed `seed + k`."""
    body = _body(server, temperature, top_p, max_new_tokens, seed) | {"prompt": list(ids), "n": n}
    body["extra_body"] = NEUTRAL
    answer = _post(server, body, "completions")
    try:
        found = [(one["text"], one["finish_reason"], one.get("token_ids")) for one in answer["choices"]]
    except (KeyError, TypeError, AttributeError):
        raise _unlike(server, f"completions, got {shorten(answer)}") from None
    if len(found) != n:
        raise _unlike(server, f"{n} completions, got {len(found)}")
    tokens, prompt_tokens = _counts(answer)
    if prompt_tokens != len(ids):
        raise _unlike(server, f"completions of the {len(ids)} prompt tokens that it was sent, got {prompt_tokens}")
    return [
        Reply(
            _checked(server, text, reason),
            reason == "stop",
            len(own) if isinstance(own, list) else tokens if n == 1 else None,
            prompt_tokens,
        )
        for text, reason, own in found
    ]


def why_no_ids(server: Server, ids: Sequence[int]) -> str | None:
    """Why a server does not complete token ids, None where it does: it is asked for one token. Raises `Unreachable` for
    one that is away."""
    try:
        complete(server, ids, 1, 0.0, 1, 0)
    except Unreachable:
        raise
    except ServerError as error:
        return str(error)
    return None


def _body(server: Server, temperature: float, top_p: float, max_new_tokens: int, seed: int) -> dict[str, Any]:
    body = {"model": server.model, "temperature": temperature, "top_p": top_p, "max_tokens": max_new_tokens}
    return body | {"seed": seed} if temperature > 0 else body


def _sent(message: Message) -> dict[str, Any]:
    """A message as servers take it: the arguments of calls as a JSON string."""
    calls = [
        {**call, "function": call["function"] | {"arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else {**message}


def _checked(server: Server, text: object, reason: object) -> str:
    if not isinstance(text, str) or reason not in ("stop", "length"):
        raise _unlike(
            server, f"text that ended with 'stop' or 'length', got {shorten(text)} that ended with {reason!r}"
        )
    # Half a pair of UTF-16, where a server cuts an emoji, becomes U+FFFD, as in any decoder: no file could hold it.
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _counts(answer: Any) -> tuple[int | None, int | None]:
    """Tokens of the completions and of the prompt; None where the server gives none."""
    usage = answer.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("completion_tokens", "prompt_tokens")]
    tokens, prompt_tokens = (count if type(count) is int and 0 <= count < 2**31 else None for count in counts)
    return tokens, prompt_tokens


def _post(server: Server, body: dict[str, Any], path: Literal["chat", "completions"] = "chat") -> Any:
    """The reply's JSON. What is raised has no cause and no context: these hold the request."""
    asking, key = client(server), server.key()
    from openai import APIConnectionError, APIStatusError

    made: Any = asking.chat.completions if path == "chat" else asking.completions
    wanted = "a chat completion" if path == "chat" else "completions"
    away = False
    try:
        content = made.with_raw_response.create(**body).http_response.content
        refused = None
    except APIStatusError as error:
        away = error.status_code >= 500 or error.status_code == 429
        refused = f"status {error.status_code} {shorten(_without(error.response.text, key), 300)}"
    except Exception as error:  # of connections, and what addresses and headers raise that nothing can be made of
        away = isinstance(error, APIConnectionError)
        refused = _without(reason_of(error.__cause__ or error), key)
    if refused is not None:
        told = _unlike(server, f"{wanted}, got {refused}; tried {server.tries} times at most")
        raise Unreachable(str(told)) if away else told
    if key is not None and key.encode() in content:
        raise _unlike(server, "an answer without the key, got one that holds it (not shown)")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise _unlike(server, f"{wanted}, got {shorten(content.decode('utf-8', 'replace'), 300)}") from None


def _split(url: str) -> SplitResult | None:
    """The parts of an address of HTTP; None for what is none."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0  # asked for, it is checked
    except ValueError:
        return None
    plain = url.isascii() and url.isprintable() and not {" ", "\\", "#"} & set(url) and len(url) < 2000
    return parts if known and plain else None


def _unlike(server: Server, what: str) -> ServerError:
    return ServerError(f"{server.base_url} must answer with {what}")


def _without(text: str, key: str | None) -> str:
    return text.replace(key, "[key]") if key else text
