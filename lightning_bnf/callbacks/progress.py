"""Signs of life of a run: what it will be, where it is, how it goes, how long it will take."""

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from torch import Tensor

from lightning_bnf.batch import Step
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.progress import SECONDS, Progress, lasting, say, watched

MEASURED = 5
"""Steps, the first not among them, after which the time that was expected is corrected by the time they took."""

CHOSEN = "train/logratios_mean/chosen"
LAST = 8
"""Steps over which the end's fall of chosen answers is averaged."""
FALL = 1.0
"""Nats a token that chosen answers may have lost since the start without a word: what is left is e times less likely
at every token, and answers of such a model tend to be broken."""


class RunProgress(ProgressBar):
    """One line before the first step: rows, steps, tokens, memory and time expected, and how to stop and go on. Then a
    bar on terminals and in notebooks; elsewhere a line at the first and the last step, and every 30 seconds.

    Both say margin and accuracy where the loss has them, and the loss only where it falls as training goes well: BNF's
    tells nothing. Numbers are means over the steps since the last line; tokens count padding. The end warns where
    chosen answers have become far less likely.
    """

    def __init__(
        self,
        plan: bool = True,
        clock: Callable[[], float] = time.monotonic,
        bar: bool | None = None,
        write: Callable[[str], None] = say,
    ):
        """
        Args:
            plan: Whether memory and time are planned before the first step, which takes seconds.
            clock: Seconds, for tests.
            bar: Whether to draw a bar; null asks whether somebody watches.
            write: Takes a line.
        """
        super().__init__()
        self.plan, self.clock, self.write = plan, clock, write
        self.bar = watched() if bar is None else bar
        self._enabled = True
        self._means = StepMeans()
        self._chosen: deque[Tensor] = deque(maxlen=LAST)
        self._drawn: Any = None
        self._evaluated: Progress | None = None
        self._started = self._last = self._measured_from = 0.0
        self._first = 0
        self._total = 0
        self._paused = 0.0
        self._corrected = False

    def disable(self) -> None:
        """Say nothing, as all ranks but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Say something again."""
        self._enabled = True

    def print(self, *args: Any, **kwargs: Any) -> None:
        """A line beside the bar."""
        self._say(" ".join(map(str, args)))

    def _say(self, line: str) -> None:
        if not self._enabled:
            return
        if self._drawn is not None:
            self._drawn.write(line)
        else:
            self.write(line)

    # Training -------------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._total, self._first = int(trainer.estimated_stepping_batches), trainer.global_step
        data = getattr(trainer, "datamodule", None)
        if self._enabled and isinstance(data, PreferenceData) and isinstance(pl_module, PreferenceModule):
            from lightning_bnf.costs.plan.forecast import forecast  # a second of imports, which --help need not take

            for line in forecast(trainer, pl_module, data, self.plan).lines():
                self._say(line)
        self._started = self._last = self.clock()
        self._paused, self._corrected = 0.0, False
        if self._enabled and self.bar:
            from tqdm.auto import tqdm  # late: in notebooks it brings widgets

            self._drawn = tqdm(total=self._total, initial=self._first, desc="Training", unit="step", smoothing=0.1)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._means.add(trainer.callback_metrics, tokens_of(batch) * trainer.world_size)
        if (chosen := trainer.callback_metrics.get(CHOSEN)) is not None:
            self._chosen.append(chosen)
        step, now = trainer.global_step, self.clock()
        if not self._enabled:
            return
        if step - self._first == 1:
            self._measured_from = now
        if self._drawn is not None:
            self._drawn.update()
            if now - self._last >= 1 or step == self._total:
                self._drawn.set_postfix_str(", ".join(self._numbers(now, pl_module)))
        elif step - self._first == 1 or step >= self._total or trainer.should_stop or now - self._last >= SECONDS:
            left = f", {lasting(self._left(step, now))} left" if step < self._total else ""
            self.write(f"step {step} of {self._total}: {', '.join(self._numbers(now, pl_module))}{left}")
        if step - self._first == 1 + MEASURED and self._total - step > MEASURED and not self._corrected:
            self._corrected = True
            self._say(f"measured now, over {MEASURED} steps: {lasting(self._left(step, now))} of training left")

    def _numbers(self, now: float, module: LightningModule) -> list[str]:
        """What is to be said of the steps since it was said last."""
        tokens, passed = self._means.tokens, now - self._last - self._paused
        found = shown(self._means.take(), value_falls(module))
        if passed > 0:
            found.append(f"{tokens / passed:,.0f} tokens/s")
        self._last, self._paused = now, 0.0
        return found

    def _left(self, step: int, now: float) -> float:
        """Seconds of the steps to come, with validation in between, at the pace so far; the first step, in which
        kernels are chosen and memory is found, counts only while there is no other."""
        done = step - self._first - 1
        pace = (now - self._measured_from) / done if done > 0 else now - self._started
        return pace * (self._total - step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()
        if self._enabled and trainer.global_step > self._first:
            steps = trainer.global_step - self._first
            self._say(f"trained: {steps} steps in {lasting(self.clock() - self._started)}")
            if sentence := fall_of_chosen([float(value) for value in self._chosen]):
                self._say(sentence)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._drawn is not None:
            self._drawn.close()
            self._drawn = None

    # Going over a split ---------------------------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, what: str, batches: Any) -> None:
        if self._enabled and not trainer.sanity_checking:
            total = int(sum(batches) if isinstance(batches, list) else batches)
            self._evaluated = Progress(total, what, "step", delay=10.0, clock=self.clock, bar=self.bar, write=self._say)

    def _end(self, trainer: Trainer, module: LightningModule, what: str, split: str | None) -> None:
        if self._evaluated is None:
            return
        self._evaluated.close()
        passed = self._evaluated.clock() - self._evaluated.started
        self._evaluated, self._paused = None, self._paused + passed
        if split is not None:
            numbers = shown(of_split(trainer.callback_metrics, split), value_falls(module))
            at = f" at step {trainer.global_step}" if trainer.state.fn == "fit" else ""
            self._say(f"{what}{at}: {', '.join([*numbers, f'in {lasting(passed)}'])}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "validation", trainer.num_val_batches)

    def on_validation_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, pl_module, "validation", "val")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "test", trainer.num_test_batches)

    def on_test_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, pl_module, "test", "test")

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._begin(trainer, "predict", trainer.num_predict_batches)

    def on_predict_batch_end(self, *args: Any, **kwargs: Any) -> None:
        self._advance()

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._end(trainer, pl_module, "predict", None)

    def _advance(self) -> None:
        if self._evaluated is not None:
            self._evaluated.update()


class StepMeans:
    """Means of a run's metrics over the steps since they were last taken. They stay on their device until then: a step
    does not wait for it."""

    def __init__(self) -> None:
        self.tokens = 0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, metrics: Mapping[str, Tensor], tokens: int) -> None:
        """A step's own metrics, `train/*`, by name."""
        self.tokens += tokens
        for name, value in of_split(metrics, "train").items():
            value = torch.as_tensor(value).detach().double()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def take(self) -> dict[str, float]:
        """The means; then all begins anew."""
        means = {name: float(total) / self._counts[name] for name, total in self._sums.items()}
        self.tokens, self._sums, self._counts = 0, {}, {}
        return means


SIDES = tuple(f"{what}/{side}" for what in ("rewards", "logps_mean") for side in ("chosen", "rejected"))
NAMES = ("loss", "rewards/margins", "rewards/accuracies", *SIDES)


def of_split(metrics: Mapping[str, Any], split: str) -> dict[str, Any]:
    """What there is to be said of a split's metrics, by names without the split."""
    return {name: metrics[f"{split}/{name}"] for name in NAMES if f"{split}/{name}" in metrics}


def value_falls(module: LightningModule) -> bool:
    """Whether the loss of a run is worth watching."""
    return not isinstance(module, PreferenceModule) or module.loss.value_falls


def fall_of_chosen(logratios: Sequence[float]) -> str:
    """What to say of chosen answers' log-ratios to the start (nats a token) in the last steps; "" where all is well."""
    mean = sum(logratios) / len(logratios) if logratios else 0.0
    if mean > -FALL:
        return ""
    return (
        f"chosen answers have lost {-mean:.1f} nats a token against the reference, so that the policy leaves even what "
        "it was to prefer: look at its answers; a smaller --model.optimization.learning_rate, fewer steps or more rows "
        "keep it nearer"
    )


def shown(metrics: Mapping[str, Any], loss: bool = True) -> list[str]:
    """The metrics as words; `loss`: whether its value says something. The margin is the chosen rewards' mean less the
    rejected ones', in nats times beta; without pairs the two are told apart, and without a reference the mean log-probs
    of a token, in nats."""
    found = []
    if "loss" in metrics and loss:
        found.append(f"loss {float(metrics['loss']):.4g}")
    if "rewards/margins" in metrics:
        found.append(f"reward margin {float(metrics['rewards/margins']):+.3g}")
    else:
        what = "rewards" if "rewards/chosen" in metrics or "rewards/rejected" in metrics else "logps_mean"
        sides = [side for side in ("chosen", "rejected") if f"{what}/{side}" in metrics]
        found += [f"{side} {float(metrics[f'{what}/{side}']):+.3g}" for side in sides]
    if "rewards/accuracies" in metrics:
        found.append(f"accuracy {100 * float(metrics['rewards/accuracies']):.0f} %")
    return found


def tokens_of(batch: Any) -> int:
    """Tokens of a step of this rank, padding included."""
    if not isinstance(batch, Step):
        return 0
    return sum(part.inputs["input_ids"].numel() for part in batch.micro_batches)
