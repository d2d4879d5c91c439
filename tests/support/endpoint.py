"""A server of completions, by messages and by token ids, that answers what it is told to."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Endpoint(ThreadingHTTPServer):
    """A server that answers with the prompt in capitals; its `replies` come first: (status, body) each, then what its
    `script` makes of a request."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.replies: list[tuple[int, object]] = []
        self.script: Callable[[dict], tuple[int, object]] | None = None
        self.seen: list[tuple[str, dict, str | None]] = []
        self.headers: list[set[str]] = []
        self.retry_after: str | None = None
        self.prompt_tokens = 1
        self.takes_ids = True
        self.length_of: Callable[[bytes], str] | None = lambda data: str(len(data))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body, self.headers["Authorization"]))
        self.server.headers.append({name.lower() for name in self.headers})
        reply = self._chat(body) if "messages" in body else self._completions(body)
        if self.server.script is not None:
            reply = self.server.script(body)
        status, content = self.server.replies.pop(0) if self.server.replies else reply
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if self.server.length_of is not None:
            self.send_header("Content-Length", self.server.length_of(data))
        self.send_header("Location", "http://127.0.0.1:9/elsewhere")
        if self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        if data.startswith(b"\x1f\x8b"):
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        self.wfile.write(data)

    def _chat(self, body: dict) -> tuple[int, object]:
        message = {"content": body["messages"][-1]["content"].upper()}
        usage = {"completion_tokens": 7, "prompt_tokens": self.server.prompt_tokens}
        return 200, {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}

    def _completions(self, body: dict) -> tuple[int, object]:
        """Each completion names its prompt's length and its seed, which is counted up as vLLM's; the second of a prompt
        is cut off."""
        if not self.server.takes_ids:
            return 404, {"error": "no such path"}
        ids, seed = body["prompt"], body.get("seed", 0)
        choices = [
            {"text": f"{len(ids)} {seed + k}", "finish_reason": "length" if k == 1 else "stop"}
            for k in range(body["n"])
        ]
        return 200, {"choices": choices, "usage": {"completion_tokens": 9, "prompt_tokens": len(ids)}}

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Endpoint]:
    """A server that answers, on a thread."""
    found = Endpoint()
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield found
    found.shutdown()
    found.server_close()
