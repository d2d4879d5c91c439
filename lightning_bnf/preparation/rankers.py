"""Pairwise rankers: models that compare two completions of a prompt; a completion's score is its share of wins."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import combinations, permutations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DebertaV2Model, PreTrainedTokenizerBase
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

from lightning_bnf.policies.base import Dtype
from lightning_bnf.policies.sources import load_tokenizer, placed
from lightning_bnf.preparation.reward_models import load_whole
from lightning_bnf.preparation.scoring import Candidates, Entry, ScoreFile, Scorer, ScoringError, right_padded
from lightning_bnf.runtime.arguments import PositiveInt, checked
from lightning_bnf.runtime.fingerprints import content_hash, tokenizer_fingerprints, weights_fingerprint

MARKS = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
_CHUNK = 16384  # comparisons of which the token ids are held at once


@checked
class PairRanker(Scorer):
    """Scores by comparing every two completions of a prompt, in both orders (rankers prefer a place, too).

    A ranker of one's own says what margin the first completion has over the second (`margins`).
    """

    @abstractmethod
    def margins(self, comparisons: Sequence[tuple[Candidates, int, int]], work_file: Path) -> list[float]:
        """For every (candidates, first, second) how much better the completion `first`, shown first, is than `second`.

        Above 0 the first wins; any unit.
        """

    def score(self, groups: Sequence[Candidates], work_file: Path) -> list[list[float | None]]:
        asked = [
            (group, first, second)
            for group in groups
            for first, second in permutations(range(len(group.completions)), 2)
        ]
        found = iter(self.margins(asked, work_file))
        scores: list[list[float | None]] = []
        for group in groups:
            count = len(group.completions)
            margins = {pair: next(found) for pair in permutations(range(count), 2)}
            scores.append([*shares_of_wins(margins, count)])
        return scores


def shares_of_wins(margins: Mapping[tuple[int, int], float], count: int) -> list[float]:
    """Each completion's share of the `count - 1` others that it beats; a tie is half a win.

    `margins[i, j]` is how much better i, shown first, is than j. i beats j where margins[i, j] > margins[j, i]: what
    a ranker adds to whatever it sees first cancels. Alone, without anything to beat, a completion has 0.5.
    """
    won = [0.0] * count
    for i, j in combinations(range(count), 2):
        margin = margins[i, j] - margins[j, i]
        won[i] += 1.0 if margin > 0 else 0.5 if margin == 0 else 0.0
        won[j] += 1.0 if margin < 0 else 0.5 if margin == 0 else 0.0
    return [wins / (count - 1) if count > 1 else 0.5 for wins in won]


class PairRM(PairRanker):
    """PairRM (Jiang et al. 2023, arXiv 2306.02561), the ranker of the BNF paper's Mistral data: llm-blender/PairRM-hf.

    Written down again from the published layout, since the hub's class is code of its own, which is never run here. It
    reads one user message (no longer conversation), at most 1,224 tokens of it, and of the two answers what then fits
    into 2,048 tokens, as published; how many texts were cut is printed.
    """

    def __init__(
        self,
        source: str = "llm-blender/PairRM-hf",
        revision: str | None = None,
        max_prompt_length: int = 1224,
        max_length: int = 2048,
        max_tokens: PositiveInt = 16384,
        dtype: Dtype = "float32",
    ):
        """
        Args:
            source: Hub id or local folder of the ranker.
            revision: Commit, tag or branch of a hub id.
            max_prompt_length: Tokens of the prompt that are read.
            max_length: Tokens of prompt and both answers together that are read.
            max_tokens: Token budget of a batch, padding included.
            dtype: Type of the weights.
        """
        if not 4 <= max_prompt_length <= max_length - 8:
            raise ScoringError(
                f"max_prompt_length must be from 4 to max_length - 8 ({max_length - 8}) tokens, got {max_prompt_length}"
            )
        self.source = source
        self.revision = revision
        self.max_prompt_length = max_prompt_length
        self.max_length = max_length
        self.max_tokens = max_tokens
        self.dtype = dtype

    def __repr__(self) -> str:
        return f"PairRM({self.source}{f' at {self.revision}' if self.revision else ''}, {self.dtype})"

    def margins(self, comparisons: Sequence[tuple[Candidates, int, int]], work_file: Path) -> list[float]:
        tokenizer = load_tokenizer(self.source, self.revision)
        model = placed(load_whole(PairRMModel, self.source, self.revision, self.dtype))
        identity = content_hash([weights_fingerprint(model), tokenizer_fingerprints(tokenizer), self.dtype])
        read = _Reader(tokenizer)

        def compute(batch: list[Entry]) -> list[float]:
            with torch.inference_mode():
                ids, mask = right_padded(batch, model.config.pad_token_id or 0, model.device)
                return model(ids, mask).float().tolist()

        file = ScoreFile(work_file, f"Comparisons of {self.source}", len(comparisons))
        margins: list[float] = []
        for start in range(0, len(comparisons), _CHUNK):
            chunk = comparisons[start : start + _CHUNK]
            entries = [self._entry(read, identity, *asked) for asked in chunk]
            read.seen.clear()
            found = file.fill(entries, compute, self.max_tokens)
            margins += [found[entry.key] for entry in entries]
        file.bar.close()
        if read.cut:
            print(f"{self.source}: {len(read.cut)} texts are longer than it reads and were cut")
        return margins

    def _entry(self, read: "_Reader", identity: str, group: Candidates, first: int, second: int) -> Entry:
        if len(group.prompt) != 1:
            raise ScoringError(f"{self.source}: prompts must be one user message, got {len(group.prompt)} messages")
        prompt = read(MARKS[0], group.prompt[0]["content"], self.max_prompt_length)
        limit = (self.max_length - len(prompt)) // 2
        one, other = (
            read(mark, group.completions[index], limit) for mark, index in ((MARKS[1], first), (MARKS[2], second))
        )
        ids = [*prompt, *one, *other]
        return Entry(content_hash([identity, ids]), ids, len(prompt))


class _Reader:
    """Ids of a text behind its mark, cut to a limit; each is made once, since every text is in many comparisons."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        self.seen: dict[tuple[str, str, int], list[int]] = {}
        self.cut: set[str] = set()

    def __call__(self, mark: str, text: str, limit: int) -> list[int]:
        """Raises `ScoringError` for a text that holds a mark, which would be taken for the answer's beginning."""
        key = (mark, text, limit)
        if key not in self.seen:
            if any(other in text for other in MARKS):
                raise ScoringError(f"texts to compare must be without {', '.join(MARKS)}, got one with")
            ids = self.tokenizer.encode(mark + text, verbose=False)
            if len(ids) > limit:
                self.cut.add(text)
                ids = self.tokenizer.encode(mark + text, max_length=limit, truncation=True)
            self.seen[key] = ids
        return self.seen[key]


class PairRMModel(DebertaV2PreTrainedModel):
    """DeBERTa-v2 over prompt and both answers, and a head on (prompt mark, answer mark). Names as in the checkpoint."""

    def __init__(self, config: Any):
        super().__init__(config)
        size = config.hidden_size
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(config.drop_out),
            nn.Linear(2 * size, size),
            nn.Tanh(),
            nn.Dropout(config.drop_out),
            nn.Linear(size, config.n_tasks),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Margins (B,) of the first answer over the second; `input_ids` (B, T) hold each of the three marks once."""
        hidden = self.pretrained_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = torch.arange(len(hidden), device=hidden.device)
        prompt, first, second = (
            hidden[rows, (input_ids == mark).int().argmax(dim=1)]
            for mark in (self.config.source_prefix_id, self.config.cand1_prefix_id, self.config.cand2_prefix_id)
        )
        one, other = (self.head_layer(torch.cat([prompt, answer], dim=1)) for answer in (first, second))
        return (one - other).mean(dim=1)
