"""How the data module and the training module meet: once, when the data are set up, through the types of this file.

Lightning sets the data up before the module and loads the weights after both. It asks for the training loader from
within `configure_optimizers` (for the number of steps), and in `validate` and `test` for theirs before any hook of the
module that comes after the weights are on their device. So no hook lies where layout and budget could be pushed into
the data: they hand themselves over when they are set up, and get `DataNeeds`, whose `fitting` decides on the loaded
model when the first loader is made. The data keep what it decided for the whole run.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from transformers import PreTrainedTokenizerBase

from lightning_bnf.datamodules.steps.layout import Layout, LayoutName, ToScore
from lightning_bnf.datamodules.steps.plan import Budget
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.losses.base import Loss
from lightning_bnf.runtime.fingerprints import content_hash, tokenizer_state


class Fitting(Protocol):
    """Decides on the loaded model what suits it; both are asked on all ranks together, and answer all of them alike."""

    def layout(self, name: LayoutName, rows: Sequence[TokenizedRow], labels: Sequence[int]) -> Layout:
        """The layout asked for, or found under `auto`. Raises `DataError` where the model cannot take it."""

    def budget(self, rows: Sequence[TokenizedRow], layout: Layout, loss: Loss, step_rows: int) -> Budget:
        """Of the largest micro-batch that fits into memory, of a step of `step_rows` rows. Raises `DataError` where
        none does."""


@dataclass(frozen=True)
class DataNeeds:
    """What the data module is told when it is set up.

    tokenizer, end_ids: how rows become token ids, and which ids end a turn besides the tokenizer's own
    loss: what it needs of the rows
    prompts_at_once: prompts that `predict` completes together
    fitting: decides layout and budget
    """

    tokenizer: PreTrainedTokenizerBase
    end_ids: tuple[int, ...]
    loss: Loss
    prompts_at_once: int
    fitting: Fitting

    def of_rows(self) -> tuple[Any, ...]:
        """What files are made rows by: another run for which all of it is equal has the same rows and reports."""
        loss = self.loss
        drops = type(loss).__name__ if loss.needs_ordered_rewards else None  # by the name, which reports hold
        return content_hash(tokenizer_state(self.tokenizer)), self.end_ids, loss.needs_pairs, loss.needs_groups, drops


class ScoredData(Protocol):
    """What the module asks of the data."""

    def split(self, split: str) -> Sequence[TokenizedRow]:
        """The rows of `train`, `validation` or `test`."""

    def to_score(self, steps: Mapping[str, int | None]) -> ToScore:
        """The completions that a reference is asked for in the first so many steps of each split; in all for None."""

    def places(self, ids: Collection[str]) -> list[str]:
        """Where the training rows of these ids stand, by file and line."""

    def meaning(self) -> dict[str, str]:
        """What a training step's number stands for: the training rows and their order, by the settings that say it."""


@runtime_checkable
class MeetsData(Protocol):
    """A LightningModule that trains on `PreferenceData`."""

    def meet(self, data: ScoredData) -> DataNeeds:
        """Keep the data, and tell them what is needed."""
