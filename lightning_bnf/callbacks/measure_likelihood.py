"""What a policy gives fixed texts and prompts, while it trains and when it is trained: measures of `likelihood`."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.steps.layout import PlannedBatch, ToScore
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.likelihood.material import LikelihoodRows, Material, material, sampled
from lightning_bnf.evaluation.likelihood.measures import (
    Sums,
    lines,
    row_fingerprints,
    table,
    values,
)
from lightning_bnf.evaluation.likelihood.scoring import (
    Give,
    all_rows,
    cut,
    draw,
    giving,
    kept_samples,
    passed,
    rounded,
    scored,
    summed_logps,
    way_of,
)
from lightning_bnf.module import PreferenceModule
from lightning_bnf.policies.reference.cached import CachedReference, open_cache
from lightning_bnf.policies.reference.providers import AdapterOff
from lightning_bnf.runtime.arguments import NonNegativeInt, OpenUnitInterval, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import weights_fingerprint
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import forward_context

DEFAULT_ROWS = LikelihoodRows()


@checked
class MeasureLikelihood(Callback):
    """Measures multiple choice, held-out pairs, prose and the distance from the base: within the run and at its end.

    `likelihood.json` holds every measure row by row for each moment, `likelihood.md` the end's table. With adapters the
    base is measured too, at the start, with the adapters off; without, the policy alone is measured, and `rows.prompts`
    is refused. The run is one process's.
    """

    turn: ClassVar[int] = 1
    """Its end comes after that of callbacks without a turn: plots and the exported policy are there already."""

    def __init__(
        self,
        rows: LikelihoodRows = DEFAULT_ROWS,
        at: Sequence[OpenUnitInterval] = (),
        choices_within: PositiveInt | None = 150,
        pairs_within: NonNegativeInt | None = None,
        cache: bool = False,
        max_tokens: PositiveInt = 2048,
    ):
        """
        Args:
            rows: Which rows are measured.
            at: Shares of the run's steps after which it is measured within the run, beside its end.
            choices_within: Questions of a measurement within the run, each kind in its share; null takes all. No
                samples of the policy are drawn there.
            pairs_within: The same of pairs.
            cache: Whether the base's log-probs are kept in the reference cache, for runs from the same base.
            max_tokens: Token budget of a micro-batch.
        """
        self.rows, self.at = rows, tuple(at)
        self.choices_within, self.pairs_within = choices_within, pairs_within
        self.cache, self.max_tokens = cache, max_tokens
        self._of = Material()
        self._steps: dict[int, float] = {}
        self._meter: _Meter | None = None
        self._points: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What cannot be measured is refused now, before any weights are loaded."""
        if stage != "fit":
            return
        if trainer.world_size > 1:
            raise Refusal(
                "callback MeasureLikelihood: the run must be of one process, got "
                f"{trainer.world_size}; the verb likelihood measures what it exports"
            )
        policy, data = _module(pl_module).policy, trainer.datamodule  # type: ignore[attr-defined]
        if self.rows.prompts is not None and not policy.adapters:
            raise Refusal(
                "callback MeasureLikelihood: rows.prompts must be null for a policy without adapters, whose base is "
                f"gone when it is trained, got {self.rows.prompts!r}; the verb likelihood compares folders"
            )
        options = data.options if isinstance(data, PreferenceData) else None
        self._of = material(self.rows, policy.tokenizer, policy.end_ids, options)
        if not all_rows(self._of, self._of.prompts):
            raise Refusal(
                "callback MeasureLikelihood: rows must name choices, pairs, prose or prompts (beside verified), "
                "got none"
            )

    def state_dict(self) -> dict[str, Any]:
        """A resumed run keeps what was measured before."""
        return {"points": self._points}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._points = list(state_dict["points"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The base is measured, and what a model cannot take is refused, before the first step."""
        precision = str(trainer.precision) if self.cache else None
        self._meter = _Meter(_module(pl_module), self._of, self.rows, self.max_tokens, precision)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        total = trainer.estimated_stepping_batches
        if self.at and total == float("inf"):
            raise Refusal(f"callback MeasureLikelihood: at must be empty for a run without an end, got {self.at}")
        self._steps = {min(int(total), max(1, round(share * total))): share for share in self.at}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        share = self._steps.get(trainer.global_step)
        if share is not None and self._meter is not None:
            few = self._of.first(self.choices_within, self.pairs_within)
            self._keep(trainer.global_step, share, values(few, *self._meter.policy_and_base(few)))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._meter is not None
        own, base = self._meter.policy_and_base(self._of, last=True)
        mine = values(self._of, own, base)
        self._keep(trainer.global_step, 1.0, mine)
        measured = lines(mine, None if base is None else values(self._of, base))
        root = Path(trainer.default_root_dir)
        result = {
            "rows": asdict(self.rows),
            "fingerprints": row_fingerprints(self._of),
            "measures": [asdict(one) for one in measured],
            "points": self._points,
        }
        write_text(root / "likelihood.json", json.dumps(result) + "\n")
        write_text(root / "likelihood.md", table(measured) + "\n")
        rank_zero_info(f"\n{table(measured)}\n")

    def _keep(self, step: int, share: float, found: dict[str, np.ndarray]) -> None:
        others = [point for point in self._points if point["step"] != step or point["share"] != share]
        self._points = [*others, {"step": step, "share": share, "values": rounded(found)}]


class _Meter:
    """Scores rows with a run's policy; with adapters, the base's samples and scores are made first, adapters off."""

    def __init__(
        self, module: PreferenceModule, of: Material, asked: LikelihoodRows, max_tokens: int, cached_as: str | None
    ):
        """cached_as: the run's precision, where the base's log-probs are kept in the reference cache"""
        self.module, self.asked, policy = module, asked, module.policy
        self.context = partial(forward_context, module)
        self.samples: list[TokenizedRow] = []
        self.base: Sums | None = None
        if policy.adapters:
            weights = weights_fingerprint(policy.causal_lm, frozen_only=True)
            self.samples = kept_samples(asked, of.prompts, weights, lambda: self._draw(of, base=True))
        self.way = way_of(policy, all_rows(of, self.samples), max_tokens, self.context)
        if policy.adapters:
            give = self._base_gives if cached_as is None else self._cached(all_rows(of, self.samples), cached_as)
            self.base = scored(give, of, self.samples, self.way, module.device, "log-probs of the base")

    def policy_and_base(self, of: Material, last: bool = False) -> tuple[Sums, Sums | None]:
        """What both have of the material, or its first questions; the `last` time of samples of the policy too."""
        give = giving(self.module.policy, self.context)
        title = "log-probs of the trained policy" if last else None
        own, base = scored(give, of, self.samples, self.way, self.module.device, title), self.base
        if of.verified:
            with self.context():
                own = replace(own, passes=passed(self.module.policy, of.verified))
        if base is not None:
            base = replace(base, questions=base.questions[: len(of.questions)], pairs=base.pairs[: len(of.pairs)])
        if base is not None and last and of.prompts:
            drawn = [sampled(row, ids) for row, ids in zip(of.prompts, self._draw(of, base=False), strict=True)]
            mine, its = (summed_logps(one, drawn, self.way, self.module.device) for one in (give, self._base_gives))
            own, base = replace(own, own_samples=mine), replace(base, own_samples=its)
        return own, base

    def _draw(self, of: Material, base: bool) -> list[list[int]]:
        policy = self.module.policy
        with policy.as_it_started() if base else nullcontext(), self.context():
            return draw(policy, of.prompts, self.asked, f"samples of {'the base' if base else 'the policy'}")

    def _base_gives(self, batch: MicroBatch) -> Tensor:
        with self.context():
            return AdapterOff(self.module.policy)(batch)

    def _cached(self, rows: list[TokenizedRow], precision: str) -> Give:
        module = self.module
        cached = CachedReference(open_cache(module.policy, module.reference_cache, module.global_rank, precision))
        batches = cut(rows, self.way, module.device)
        asked = ToScore.of([PlannedBatch([rows[i] for i in places], layout) for layout, places in batches])
        cached.fill(self._base_gives, asked, module.device)
        return cached


def _module(pl_module: LightningModule) -> PreferenceModule:
    assert isinstance(pl_module, PreferenceModule)
    return pl_module
