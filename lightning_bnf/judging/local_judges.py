"""Judges without a server: any scorer of completions, and any causal language model by two tokens' probabilities."""

import time
from collections.abc import Sequence

import torch

from lightning_bnf.datamodules.reading.messages import Message
from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.judging.folder import Judgment, JudgmentFolder
from lightning_bnf.judging.games import Game
from lightning_bnf.judging.protocols import Protocol
from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.exported import exported
from lightning_bnf.policies.sources import placed
from lightning_bnf.preparation.scoring import Candidates, Scorer
from lightning_bnf.runtime.fingerprints import tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.runtime.progress import Progress
from lightning_bnf.runtime.refusal import Refusal


def play_by_scores(games: Sequence[Game], scorer: Scorer, tie_margin: float, folder: JudgmentFolder) -> None:
    """A win to the higher score, a tie within `tie_margin` of it. It has no place to prefer: one order says all."""
    groups = [
        Candidates(game.pair.messages, (game.pair.own.text, "" if game.pair.base is None else game.pair.base.text))
        for game in games
    ]
    for game, scores in zip(games, scorer.score(groups, folder.path / "scores.jsonl"), strict=True):
        own, base = scores
        if own is None or base is None:
            text = ""
            judgment = _judged(game, repr(scorer), text, None, "an answer too long for the scorer")
        else:
            text = f"{own:.6g} {base:.6g}"
            difference = own - base
            sure = 0.5 if abs(difference) <= tie_margin else float(difference > 0)
            judgment = _judged(game, repr(scorer), text, sure, None)
        # other weights give other scores, and then a new line, which is the last one
        folder.add(folder.key(game.pair.question, game.game, list(game.messages), tie_margin, text), judgment)


def _judged(game: Game, judge: str, text: str, sure: float | None, reason: str | None, tie: float = 0.0) -> Judgment:
    """A verdict by how sure the judge is of the model's answer, in [0, 1]."""
    if sure is None:
        return Judgment(game.pair.question, game.game, game.first, 0, judge, text, None, reason, time=time.time())
    better = 0 if abs(sure - 0.5) <= tie else 1 if (sure > 0.5) == game.first else -1
    label = ("A=B", "A>B", "B>A")[better]
    return Judgment(game.pair.question, game.game, game.first, 0, judge, text, label, None, 1 + sure, time=time.time())


class TokenJudge:
    """A causal language model that is asked for A or B: the better one is the likelier token, in each order."""

    def __init__(
        self, source: str, tokens: tuple[str, str], dtype: Dtype = "float32", rendering: Rendering | None = None
    ):
        """Raises `Refusal` where a word is not one token of the model's."""
        policy = exported(source, dtype)
        self.source, self.tokens = source, tokens
        self.renderer = Renderer(policy.tokenizer, rendering or Rendering(strings="chat"), policy.end_ids)
        ids = [policy.tokenizer.encode(token, add_special_tokens=False) for token in tokens]
        if any(len(one) != 1 for one in ids) or ids[0] == ids[1]:
            raise Refusal(f"tokens must be two words of one token each in the vocabulary of {source}, got {tokens}")
        self.ids = [one[0] for one in ids]
        policy.load()
        self.model = placed(policy.loaded)
        self.longest = int(getattr(policy.causal_lm.config, "max_position_embeddings", None) or 2**31)
        self.device = next(self.model.parameters()).device
        self.identity = {
            "source": source,
            "weights": weights_fingerprint(self.model),
            **tokenizer_fingerprints(policy.tokenizer),
        }

    def probability(self, messages: Sequence[Message]) -> float | None:
        """Of the first token among both, as the next one after the prompt; None where that is beyond its context."""
        ids = self.renderer.prompt_ids(tuple(messages))
        if len(ids) > self.longest:
            return None
        prompt = torch.tensor([ids], device=self.device)
        with torch.inference_mode():
            logits = self.model(input_ids=prompt, logits_to_keep=1).logits[0, -1].float()
        return float(torch.softmax(logits[self.ids], dim=0)[0])

    def play(self, games: Sequence[Game], tie_margin: float, folder: JudgmentFolder) -> None:
        """All games that are not done. A tie is a probability within `tie_margin` of 1/2."""
        with Progress(len(games), "Judgments", "game") as bar:
            for game in games:
                key = folder.key(game.pair.question, game.game, list(game.messages), tie_margin)
                if key not in folder:
                    p = self.probability(game.messages)
                    folder.add(key, self._judgment(game, p, tie_margin))
                bar.update()

    def _judgment(self, game: Game, p: float | None, tie_margin: float) -> Judgment:
        if p is None:
            return _judged(game, self.source, "", None, "a prompt beyond the model's context")
        return _judged(game, self.source, f"{self.tokens[0]} {p:.6f}", p if game.first else 1 - p, None, tie_margin)


def judged_once(games: Sequence[Game], protocol: Protocol) -> list[Game]:
    """One game a pair, for judges that see no order."""
    return [game for game in games if game.game == 0] if protocol.both else list(games)
