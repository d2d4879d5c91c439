"""A judge behind an OpenAI-compatible server: every reply is kept as it comes, and paid for once."""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.generation.server import Reply, Server, ServerError, ask
from lightning_bnf.judging.folder import Judgment, JudgmentFolder
from lightning_bnf.judging.games import Game, bytes_of
from lightning_bnf.judging.protocols import Protocol
from lightning_bnf.judging.templates import Template
from lightning_bnf.judging.verdicts import Verdict, preference
from lightning_bnf.runtime.arguments import NonNegativeFloat, checked
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.runtime.workers import at_once

IN_A_ROW = 10
"""Games that fail one after the other before a run stops: the server is gone, or the key is wrong."""


@checked
@dataclass(frozen=True)
class JudgeServer(Server):
    """An OpenAI-compatible server that judges.

    Args:
        base_url: address up to and with /v1, such as http://localhost:8000/v1.
        model: name of the model as the server knows it.
        api_key_variable: environment variable that holds the key; null sends none. The key itself is never stored.
        tokenizer: unused by judges.
        at_once: requests under way at the same time.
        tries: attempts for a request before it counts as failed; waits double from half a second, or are as the server
            says.
        timeout: seconds that one request may take.
        price_in: price of a million tokens that are read, for `max_cost` and what is printed.
        price_out: of a million that are written.
    """

    price_in: NonNegativeFloat | None = None
    price_out: NonNegativeFloat | None = None

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


class OutOfBudget(Refusal):
    """The next request could cost more than what is left of `max_cost`."""


class Budget:
    """What was spent, and what requests under way may cost at most; so that `most` is never exceeded."""

    def __init__(self, most: float | None, spent: float = 0.0):
        self.most, self.spent, self._reserved, self._lock = most, spent, 0.0, Lock()

    def reserve(self, worst: float) -> None:
        """Raises `OutOfBudget`."""
        with self._lock:
            if self.most is not None and self.spent + self._reserved + worst > self.most:
                raise OutOfBudget(
                    f"max_cost must be more to go on: {self.spent:.4f} are spent, and the next request may cost "
                    f"{worst:.4f}, got {self.most:g}"
                )
            self._reserved += worst

    def settle(self, worst: float, cost: float) -> None:
        """Of a request that ended."""
        with self._lock:
            self._reserved -= worst
            self.spent += cost


class ServerJudge:
    """Plays games on a server."""

    def __init__(
        self,
        server: JudgeServer,
        protocol: Protocol,
        template: Template,
        folder: JudgmentFolder,
        max_new_tokens: int,
        budget: Budget,
    ):
        self.server, self.protocol, self.template = server, protocol, template
        self.folder, self.max_new_tokens, self.budget = folder, max_new_tokens, budget
        self.failed: Counter[str] = Counter()

    def play(self, games: Sequence[Game]) -> None:
        """All games that are not done. Those whose requests fail are counted in `failed`, and left for the next run.

        Raises `OutOfBudget`, and `ServerError` after `IN_A_ROW` failures in a row.
        """
        todo = [i for i, game in enumerate(games) if self._next(game)[1]]
        row: list[str] = []

        def keep(_: int, failure: str | None) -> None:
            if failure is None:
                row.clear()
                return
            self.failed[failure] += 1
            row.append(failure)
            if len(row) >= IN_A_ROW:
                raise ServerError(failure)

        with Progress(len(games), "Judgments", "game", initial=len(games) - len(todo)) as bar:
            at_once(lambda i: self._played(games[i]), todo, self.server.at_once, bar, keep)

    def _played(self, game: Game) -> str | None:
        """Why a request of the game failed; None where it is over."""
        while True:
            attempt, messages = self._next(game)
            if not messages:
                return None
            try:
                self._ask(game, attempt, messages)
            except ServerError as error:
                return str(error)

    def _next(self, game: Game) -> tuple[int, list[Message]]:
        """The next attempt and what is sent; nothing where the game is over."""
        messages, said = list(game.messages), ""
        for attempt in range(self.protocol.attempts):
            key = self._key(game, attempt, messages)
            if key not in self.folder:
                return attempt, messages
            line = self.folder.get(key)
            said += "\n" + line["text"]
            if line["verdict"] is not None or line["preference"] is not None or not self._read(said).again:
                return attempt, []
            messages.append(Message(role="assistant", content=line["text"]))
            messages.append(Message(role="user", content=self.template.finish or "Give your verdict now."))
        return self.protocol.attempts, []

    def _key(self, game: Game, attempt: int, messages: Sequence[Message]) -> str:
        how = [self.protocol.temperature, self.max_new_tokens]
        return self.folder.key(game.pair.question, game.game, attempt, list(messages), *how)

    def _read(self, text: str) -> Verdict:
        if self.protocol.read is None:
            return Verdict(None, "neither token among the log-probs")
        return self.protocol.read(text)

    def _ask(self, game: Game, attempt: int, messages: list[Message]) -> None:
        worst = self.server.cost(bytes_of(messages), self.max_new_tokens) or 0.0
        self.budget.reserve(worst)
        cost = 0.0
        try:
            reply = ask(
                self.server,
                messages,
                self.protocol.temperature,
                self.max_new_tokens,
                0,
                self.protocol.first,
                self.protocol.json_object,
            )
            judgment = self._judgment(game, attempt, messages, reply, worst)
            cost = judgment.cost or 0.0
            self.folder.add(self._key(game, attempt, messages), judgment)
        finally:
            self.budget.settle(worst, cost)

    def _judgment(self, game: Game, attempt: int, messages: list[Message], reply: Reply, worst: float) -> Judgment:
        """A reply as a line. Its cost is the worst case where the server does not count tokens."""
        earlier = [one["content"] for one in messages[len(game.messages) :] if one["role"] == "assistant"]
        verdict = self._read("\n".join(["", *earlier, reply.text]))
        preferred = None
        if self.protocol.first and self.template.tokens is not None:
            p = preference(reply.first, self.template.tokens)
            preferred = None if p is None else 1 + (p if game.first else 1 - p)
            if reply.first is None:
                verdict = Verdict(None, "no log-probs in the reply")
        if verdict.said is None and preferred is None and not reply.finished and not self.protocol.first:
            verdict = Verdict(None, f"{verdict.reason}, cut off at {self.max_new_tokens} tokens")
        known = reply.prompt_tokens is not None and reply.tokens is not None
        cost = self.server.cost(reply.prompt_tokens or 0, reply.tokens or 0) if known else worst or None
        return Judgment(
            game.pair.question,
            game.game,
            game.first,
            attempt,
            reply.model or self.server.model,
            reply.text,
            verdict.said,
            None if preferred is not None else verdict.reason,
            preferred,
            reply.prompt_tokens,
            reply.tokens,
            cost,
            time.time(),
        )


def expected(server: JudgeServer, games: Sequence[Game], max_new_tokens: int) -> str:
    """What is printed before anything is sent."""
    characters = sum(len(json.dumps(list(game.messages), ensure_ascii=False)) for game in games)
    most = len(games) * max_new_tokens
    text = f"{len(games)} calls, {characters // 4} tokens to read (a fourth of the characters), at most {most} written"
    cost = server.cost(characters // 4, most)
    return f"{text}; at most about {cost:.2f}" if cost is not None else f"{text}; no prices are given"
