"""Keeps what a run's page shows of single tokens, and writes the page."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_bnf.callbacks.step_costs import StepCosts
from lightning_bnf.callbacks.token_scores import ScoredRows, shown_rows
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.module import PreferenceModule
from lightning_bnf.pages import scores
from lightning_bnf.pages.report import write_report
from lightning_bnf.pages.scores import Snapshot
from lightning_bnf.runtime.arguments import NonNegativeInt, checked
from lightning_bnf.runtime.distributed import gather_objects

MOST_ROWS, LEAST_ROWS = 64, 8
TRAINED_FOR_EACH = 16
"""Training rows for each row that is shown: three passes without gradients over the shown ones, which is the most they
take, are then under 5 % of the training, in which every row goes forward, backward and through the reference."""
SHARE = 0.01  # of the run's time, past which the page waits for the end


@checked
class RunReport(Callback):
    """Writes `report.html` in the run folder, and rewrites it with each validation and at the end.

    The page shows the settings, the curves, answers before and after, and of some rows every token's log-probs: before
    the first step, about the middle and at the end. They come from validation passes where these go over the rows,
    else from passes of their own; what is trained is the same with and without them.
    """

    turn: ClassVar[int] = 2
    """Its end comes after the answers that `ScorePrompts` draws at its own."""

    def __init__(self, rows: NonNegativeInt | Literal["auto"] = "auto"):
        """
        Args:
            rows: Rows of the validation data, else of the training data, whose tokens the page shows: `auto` is 64, or
                fewer in a short run, one for 16 rows trained and at least 8. 0 leaves all data out of the page.
        """
        self.rows = rows
        self.chosen: list[tuple[str, str, str]] = []  # settings that nothing named: name, value, why
        self._scored: ScoredRows | None = None
        self._split = "validation"
        self._middle: int | None = None
        self._begun = 0.0
        self._scoring = self._rendering = 0.0  # seconds of this page
        self._before = (0.0, 0.0, 0.0)  # seconds of the run, of scoring and of rendering before it was resumed
        self._steps = StepCosts()
        self._last: Snapshot | None = None

    # The moments ----------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(pl_module, PreferenceModule)
        if not isinstance(data, PreferenceData):
            self.rows = 0
        self._begun = time.perf_counter()
        self._steps.begin(_run(trainer), trainer.global_step)
        self._recall(trainer)
        if self.rows != 0:
            self._choose(trainer, data)
            if trainer.global_step == 0:
                self._keep_rows(trainer, pl_module, data)
                self._keep(trainer, "start", self._score(trainer, pl_module))
            else:
                self._resume(trainer, pl_module, data)
        self._write(trainer, pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """The step after the middle: a validation pass at the middle itself has come by then."""
        total = _planned(trainer)
        if self._scored is not None and self._middle is None and total and trainer.global_step == total // 2 + 1:
            self._keep_middle(trainer, self._score(trainer, pl_module))
            self._rewrite(trainer, pl_module)
        self._steps.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._steps.end(trainer.global_step, batch, pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        if self._scored is not None and not trainer.sanity_checking:
            for micro_batch, token_logps in (outputs or {}).get("scored", ()):
                self._scored.take(micro_batch, token_logps)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        if self._scored is not None:
            found = self._scored.taken()
            if found is not None:
                self._last = Snapshot(trainer.global_step, found)
                if trainer.global_step < (_planned(trainer) or trainer.global_step):
                    self._keep_middle(trainer, self._last)
        self._rewrite(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._scored is not None:
            same = self._last is not None and self._last.step == trainer.global_step
            self._keep(trainer, "end", self._last if same and self._last else self._score(trainer, pl_module))
        self._write(trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Once more, with the answers that other callbacks have made of the trained policy."""
        if (_run(trainer) / "completions.jsonl").is_file():
            self._write(trainer, pl_module)
        if (page := _run(trainer) / "report.html").is_file():  # else nothing was trained
            rank_zero_info(f"The page of the run is {page}")

    # The rows -------------------------------------------------------------------------------------------------------

    def _choose(self, trainer: Trainer, data: PreferenceData) -> None:
        """The rows that are looked at: evenly apart among those that validation goes over, else of the training."""
        validation = data.split("validation").with_completions()
        self._split = "validation" if len(validation) else "train"
        pool: Any = validation if len(validation) else data.split("train").with_completions()
        seen = len(pool)
        if self._split == "validation" and (batches := sum(trainer.num_val_batches)):
            seen = min(seen, int(batches) * data.step_size_for(None))  # a step of validation
        count = self.rows if self.rows != "auto" else _affordable(trainer, data)
        places = [i * seen // min(count, seen) for i in range(min(count, seen))]
        self._scored = ScoredRows([pool[i] for i in places])

    def _keep_rows(self, trainer: Trainer, module: PreferenceModule, data: PreferenceData) -> None:
        assert self._scored is not None
        if trainer.is_global_zero:
            scores.write_rows(_run(trainer), shown_rows(self._scored.rows, module.policy.tokenizer))

    def _resume(self, trainer: Trainer, module: PreferenceModule, data: PreferenceData) -> None:
        """The start's scores lie in the run folder; without them adapters that are off give them, else nothing does."""
        assert self._scored is not None
        run = _run(trainer)
        there = scores.has_snapshot(run, "start") and [row.key for row in scores.read_rows(run)] == self._scored.names
        there = trainer.strategy.broadcast(there)
        if there:
            middle = scores.read_snapshot(run, "middle") if trainer.is_global_zero else None
            self._middle = trainer.strategy.broadcast(None if middle is None else middle.step)
            return
        self._keep_rows(trainer, module, data)
        if module.policy.adapters:
            with module.policy.as_it_started():
                logps = self._score(trainer, module).logps
            self._keep(trainer, "start", Snapshot(0, logps))
        else:
            rank_zero_warn(
                f"{run / scores.FOLDER} holds no scores of the policy as it was at the start, so the page of this "
                "resumed run shows probabilities alone"
            )

    def _score(self, trainer: Trainer, module: LightningModule) -> Snapshot:
        """A pass over the rows; all ranks together."""
        assert isinstance(module, PreferenceModule)
        assert self._scored is not None
        begun = time.perf_counter()
        data = trainer.datamodule  # type: ignore[attr-defined]
        layout = data.layout_of(self._split)
        with trainer.precision_plugin.forward_context():
            logps = self._scored.score(module, layout, data.budget.max_tokens, trainer.global_rank, trainer.world_size)
        self._scoring += time.perf_counter() - begun
        return Snapshot(trainer.global_step, logps)

    def _keep_middle(self, trainer: Trainer, snapshot: Snapshot) -> None:
        """In place of the one that is there where it is nearer to the middle."""
        half = (_planned(trainer) or 0) / 2
        if self._middle is None or abs(snapshot.step - half) <= abs(self._middle - half):
            self._middle = snapshot.step
            self._keep(trainer, "middle", snapshot)

    def _keep(self, trainer: Trainer, moment: str, snapshot: Snapshot) -> None:
        if trainer.is_global_zero:
            with _never_fatal(trainer):
                scores.write_snapshot(_run(trainer), moment, snapshot)

    # The page -------------------------------------------------------------------------------------------------------

    def _recall(self, trainer: Trainer) -> None:
        before = scores.read_about(_run(trainer)) if trainer.global_step else {}
        self.chosen = self.chosen or before.get("chosen", [])  # the saved config that a run goes on with names all
        cost = before.get("seconds", {})
        self._before = (cost.get("run", 0.0), cost.get("scoring", 0.0), cost.get("rendering", 0.0))

    def _rewrite(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the page unless that has taken its share of the run already."""
        run = time.perf_counter() - self._begun
        if all(gather_objects(self._rendering <= SHARE * run)):  # writing gathers: the ranks must not part ways over it
            self._write(trainer, module)

    def _write(self, trainer: Trainer, module: LightningModule) -> None:
        """Every rank's tokens are counted; the first rank writes."""
        begun = time.perf_counter()
        steps = self._steps.gathered()
        if trainer.is_global_zero:
            with _never_fatal(trainer):
                run = _run(trainer)
                scores.write_steps(run, steps)
                scores.write_about(run, self._about(trainer, module))
                write_report(run)
        self._rendering += time.perf_counter() - begun

    def _about(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        assert isinstance(module, PreferenceModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        known = isinstance(data, PreferenceData)
        run, scoring, rendering = self._before
        return {
            "model": module.policy.source,
            "policy": type(module.policy).__name__,
            "loss": type(module.loss).__name__,
            "formula": repr(module.loss),
            "reference": module.reference_kind,
            "device": f"{trainer.world_size} x {_device_name(module)}",
            "precision": str(trainer.precision),
            "examples_per_step": data.examples_per_step if known else None,
            "train_rows": len(data.split("train")) if known else None,
            "validation_rows": len(data.split("validation")) if known else None,
            "step": trainer.global_step,
            "steps": _planned(trainer),
            "rows": 0 if self._scored is None else len(self._scored.rows),
            "split": self._split,
            "chosen": self.chosen,
            "seconds": {
                "run": run + time.perf_counter() - self._begun,
                "scoring": scoring + self._scoring,
                "rendering": rendering + self._rendering,
            },
        }


@contextmanager
def _never_fatal(trainer: Trainer) -> Iterator[None]:
    """Once training has begun, a page that cannot be written is no reason to lose what was trained."""
    try:
        yield
    except Exception as error:
        if trainer.global_step == 0:
            raise
        run = _run(trainer)
        rank_zero_warn(
            f"{run / 'report.html'} was not written: {error!r}. `report {run}` writes it from what is there."
        )


def _affordable(trainer: Trainer, data: PreferenceData) -> int:
    trained = (_planned(trainer) or 0) * data.examples_per_step or len(data.split("train"))
    return min(MOST_ROWS, max(LEAST_ROWS, trained // TRAINED_FOR_EACH))


def _planned(trainer: Trainer) -> int | None:
    """Optimizer steps of the whole run; None where nothing but its time limits it."""
    steps = trainer.estimated_stepping_batches
    return int(steps) if 0 < steps < float("inf") else None


def _run(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir)


def _device_name(module: LightningModule) -> str:
    import torch

    return torch.cuda.get_device_name(module.device) if module.device.type == "cuda" else module.device.type
