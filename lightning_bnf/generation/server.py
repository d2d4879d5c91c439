"""A client for servers that speak OpenAI's chat completions: vLLM, `transformers serve`, llama.cpp, the API itself."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from lightning_bnf.datamodules.reading.errors import shorten
from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.runtime.refusal import Refusal

_BUSY = (408, 409, 429, 500, 502, 503, 504)  # worth another try


class ServerError(Refusal):
    """A server that cannot be used as it is given, or does not answer as it should. Never holds the key."""


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
        tries: attempts for a request before the run stops; waits double from 1 second.
        timeout: seconds that one request may take.
    """

    base_url: str
    model: str
    api_key_variable: str | None = None
    tokenizer: str | None = None
    at_once: int = 8
    tries: int = 6
    timeout: float = 600.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ServerError(f"base_url {self.base_url!r}: accepted are addresses like http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ServerError(
                "base_url: it holds a user, a password or a query; accepted is an address without, and the key in an"
                " environment variable named by api_key_variable"
            )
        for name in ("at_once", "tries"):
            if getattr(self, name) < 1:
                raise ServerError(f"{name} {getattr(self, name)}: accepted are whole numbers from 1")

    def key(self) -> str | None:
        """The key, or None. Raises `ServerError` where the variable is named but not set."""
        if self.api_key_variable is None:
            return None
        found = os.environ.get(self.api_key_variable)
        if not found:
            raise ServerError(
                f"api_key_variable {self.api_key_variable}: it is not set; accepted is the name of an environment"
                " variable that holds the key"
            )
        return found


@dataclass(frozen=True)
class Reply:
    """A server's answer; token counts are None where it gives none."""

    text: str
    finished: bool
    tokens: int | None
    prompt_tokens: int | None


def ask(server: Server, messages: Sequence[Message], temperature: float, max_new_tokens: int, seed: int) -> Reply:
    """One chat completion. Raises `ServerError` when it is refused, or failed `server.tries` times."""
    body: dict[str, Any] = {
        "model": server.model,
        "messages": list(messages),
        "temperature": temperature,
        "top_p": 1.0,
        "max_tokens": max_new_tokens,
    }
    if temperature > 0:
        body["seed"] = seed
    answer = _post(server, json.dumps(body).encode())
    try:
        choice = answer["choices"][0]
        text, reason = choice["message"]["content"], choice["finish_reason"]
    except (KeyError, IndexError, TypeError):
        raise ServerError(f"{server.base_url}: it answered {shorten(answer)}; accepted: a chat completion") from None
    if not isinstance(text, str) or reason not in ("stop", "length"):
        raise ServerError(
            f"{server.base_url}: the answer ended with {reason!r} and the content {shorten(text)}; accepted: text that"
            " ended with 'stop' or 'length'"
        )
    usage = answer.get("usage") or {}
    return Reply(text, reason == "stop", usage.get("completion_tokens"), usage.get("prompt_tokens"))


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to another host."""

    def redirect_request(self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any) -> None:
        return None


def _post(server: Server, body: bytes) -> Any:
    key = server.key()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(server.base_url.rstrip("/") + "/chat/completions", body, headers)
    opener = urllib.request.build_opener(_NoRedirects)
    for attempt in range(server.tries):
        wait = 2.0**attempt
        try:
            with opener.open(request, timeout=server.timeout) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            said = error.read(2000).decode("utf-8", "replace").replace(key or "\0", "[key]")
            reason = f"status {error.code} {shorten(said, 300)}"
            if error.code not in _BUSY:
                raise ServerError(f"{server.base_url}: the request was refused with {reason}") from None
            wait = max(wait, _seconds(error.headers.get("Retry-After")))
        except (urllib.error.URLError, HTTPException, OSError, json.JSONDecodeError) as error:
            reason = f"{type(error).__name__} ({error})"
        if attempt + 1 < server.tries:
            time.sleep(wait)
    raise ServerError(f"{server.base_url}: no answer in {server.tries} tries; the last one failed with {reason}")


def _seconds(value: str | None) -> float:
    """What a Retry-After header asks for, at most a minute; dates in it are ignored."""
    return min(60.0, float(value)) if value and value.isdigit() else 0.0
