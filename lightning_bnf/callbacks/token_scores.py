"""Token log-probs of a few rows, from passes of their own or from a validation pass that goes over them."""

from collections.abc import Callable, Sequence
from itertools import islice

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import Layout
from lightning_bnf.datamodules.steps.plan import StepPlan
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.module import PreferenceModule
from lightning_bnf.pages.pieces import Pieces
from lightning_bnf.pages.scores import Answer, ShownRow
from lightning_bnf.policies.base import evaluating
from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.runtime.fingerprints import content_key
from lightning_bnf.training.strategies import forward_context

Logps = list[list[list[float]]]


class ScoredRows:
    """Rows, and the log-probs of their completions' tokens as micro-batches give them, in any order and on any rank."""

    def __init__(self, rows: Sequence[TokenizedRow]):
        self.rows = list(rows)
        self._keys = [
            [content_key(row.prompt_ids, one.ids, one.completion_mask) for one in row.completions] for row in self.rows
        ]
        self._wanted = {key for keys in self._keys for key in keys}
        self._found: dict[bytes, list[float]] = {}

    @property
    def names(self) -> list[str]:
        """Of each row the hex digits that stand for its contents."""
        return [b"".join(keys).hex() for keys in self._keys]

    def take(self, batch: MicroBatch, token_logps: Tensor) -> None:
        """Keep of a scored micro-batch what belongs to the rows; `token_logps` (N,)."""
        wanted = [i for i, key in enumerate(batch.keys) if key in self._wanted]
        if not wanted:
            return
        values = iter(token_logps.float().tolist())
        each = [list(islice(values, length)) for length in batch.length.tolist()]
        self._found |= {batch.keys[i]: each[i] for i in wanted}

    def taken(self) -> Logps | None:
        """What all ranks have taken since the last call; None where it is not all of the rows. Every rank calls it."""
        found = {key: values for part in gather_objects(self._found) for key, values in part.items()}
        self._found = {}
        if not self._wanted <= set(found):
            return None
        return [[found[key] for key in keys] for keys in self._keys]

    def score(self, module: PreferenceModule, layout: Layout, max_tokens: int, rank: int, world_size: int) -> Logps:
        """The policy's log-probs now, without gradients; the ranks share the rows, and each makes as many passes."""
        lengths = layout.lengths_of(self.rows, (1, -1))
        plan = StepPlan(
            lengths, max(len(self.rows), 1), max_tokens, None, world_size, layout.packed, common=layout.common
        )
        self._found = {}
        for places in plan.for_rank(0, 0, rank):
            batch = layout.batch([self.rows[i] for i in places], (1, -1)).to(module.device)
            with evaluating(module.policy), forward_context(module):
                self.take(batch, module.policy(batch).token_logps)
        found = self.taken()
        assert found is not None
        return found


def shown_rows(rows: Sequence[TokenizedRow], tokenizer: PreTrainedTokenizerBase) -> list[ShownRow]:
    """The rows as a page shows them."""

    def decode(ids: Sequence[int]) -> str:
        return str(tokenizer.decode(list(ids), clean_up_tokenization_spaces=False))

    pieces, names = Pieces(decode), ScoredRows(rows).names
    return [
        ShownRow(
            key,
            row.id,
            _prompt(row, decode),
            [Answer(one.label, pieces.of(one.ids), one.completion_mask) for one in row.completions],
        )
        for key, row in zip(names, rows)
    ]


def _prompt(row: TokenizedRow, decode: Callable[[Sequence[int]], str]) -> str:
    """The prompt as it stands in the data; of a conversation each message behind its role, but for a single one."""
    if isinstance(row.prompt, str):
        return row.prompt or decode(row.prompt_ids)
    if len(row.prompt) == 1:
        return str(row.prompt[0]["content"])
    return "\n".join(f"{message['role']}: {message['content']}" for message in row.prompt)
