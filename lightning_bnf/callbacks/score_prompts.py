"""Verified completions before a policy trains, while it does, and when it is trained."""

import json
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

from lightning_bnf.callbacks.graceful_shutdown import GracefulShutdown
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.evaluation import comparison
from lightning_bnf.evaluation.comparison import Snapshot, choose
from lightning_bnf.evaluation.pass_rates import Record, VerifiedPrompt, complete_and_verify, verified_prompts
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.fingerprints import content_hash
from lightning_bnf.runtime.memory import Unmeasurable, highest_bytes
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import refuse_sharded

Split = Literal["validation", "test"]
BEFORE = "before.json"


@checked
class ScorePrompts(Callback):
    """Scores prompts that carry verifiers: at the start, a few every so many steps, and at the end.

    The end gives `scores.json`: for each split one record per prompt and way of decoding. With `every_n_steps`,
    `val/pass_rate` (greedy) is logged. With `compare`, the test split's prompts and pairs are scored by the policy as
    it started too, and what training changed is printed and written: `before_after.md`, `before_after.json` and
    `completions.jsonl`. Where there are adapters this waits for the end, where they are switched off for it, and the
    first step does not wait. What the start gave is in `before.json` as soon as it is there, and stays the start's when
    a run is gone on with.
    """

    turn: ClassVar[int] = 1
    """Its end comes after that of callbacks without a turn: when minutes of completions begin, plots and the exported
    policy are there already."""

    def __init__(
        self,
        splits: Sequence[Split] = ("validation", "test"),
        trained_prompts: int | None = None,
        kept_out_prompts: int | None = None,
        compare: bool = False,
        pairs: int | None = None,
        every_n_steps: PositiveInt | None = None,
        watched_prompts: int = 20,
        temperature: NonNegativeFloat = 0.0,
        seed: int = 1,
        batch_size: int = 128,
    ):
        """
        Args:
            splits: Splits of the data whose prompts are scored at the end.
            trained_prompts: Prompts of trained families, of each split, from the families in turn; null takes all.
            kept_out_prompts: The same of families that are kept out of training.
            compare: Whether the test split is scored by the policy as it started too, and compared.
            pairs: Test pairs whose log-probabilities are compared; null takes all.
            every_n_steps: Optimizer steps between two scorings of validation prompts; null never does.
            watched_prompts: How many of them.
            temperature: Of sampled completions beside the greedy ones, at the start and the end; 0 samples none.
            seed: Of the sampled completions.
            batch_size: Completions generated together.
        """
        for split in splits:
            if split not in ("validation", "test"):
                raise Refusal(f"splits must be of validation and test, got {split!r}")
        if compare and "test" not in splits:
            raise Refusal(f"splits must hold test where compare is true, got {list(splits)}")
        if every_n_steps is not None and every_n_steps < 1:
            raise Refusal(f"every_n_steps must be a whole number from 1, or null, got {every_n_steps}")
        self.splits = tuple(splits)
        self.trained_prompts, self.kept_out_prompts = trained_prompts, kept_out_prompts
        self.compare, self.pairs = compare, pairs
        self.every_n_steps, self.watched_prompts = every_n_steps, watched_prompts
        self.temperature, self.seed, self.batch_size = temperature, seed, batch_size
        self._watched: list[VerifiedPrompt] = []
        self._before: Snapshot | None = None
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """What cannot be scored is refused now, before any weights are loaded."""
        refuse_sharded(trainer.strategy, "callback ScorePrompts")
        if stage != "fit":
            return
        data = _data(trainer)
        for split in self.splits:
            self._prompts(data, split)
        if self.every_n_steps is not None:
            self._watched = choose(verified_prompts(data.split("validation")), self.watched_prompts, 0)
            if not self._watched:
                raise Refusal(
                    "callback ScorePrompts, every_n_steps must be null where no validation row of a trained family "
                    f"carries a verifier, got {self.every_n_steps}"
                )
        if self.compare and not data.paths["test"]:
            raise Refusal("callback ScorePrompts, compare must be false where data.test names no files, got true")

    def state_dict(self) -> dict[str, Any]:
        """A resumed run compares with the policy as it was before the first step, not before its own."""
        return {"before": asdict(self._before) if self._before else None}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if before := state_dict["before"]:
            self._before = _snapshot_of(before)

    def _started_with(self, root: Path, prompts: Sequence[VerifiedPrompt]) -> Snapshot | None:
        """What an earlier process of this run has written of its start, if it was asked the same."""
        path = root / BEFORE
        held = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if held.get("asked") != self._asked(prompts):
            return None
        return _snapshot_of(held["before"])

    def _asked(self, prompts: Sequence[VerifiedPrompt]) -> str:
        """A fingerprint of the prompts and of all that says how they are completed."""
        asked = [[prompt.prompt_ids, prompt.max_new_tokens, prompt.verifier] for prompt in prompts]
        return content_hash([asked, self.temperature, self.seed, self.batch_size, self.pairs])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.perf_counter()
        if self.compare and trainer.is_global_zero and not _module(pl_module).policy.adapters:
            self._score_start(trainer, pl_module, _data(trainer))

    def _score_start(self, trainer: Trainer, pl_module: LightningModule, data: PreferenceData) -> None:
        """Find or make what the policy did before the first step of the run, and keep it in the run folder."""
        root, prompts, policy = Path(trainer.default_root_dir), self._prompts(data, "test"), _module(pl_module).policy
        resumed = trainer.ckpt_path is not None
        if self._before is None and resumed:
            self._before = self._started_with(root, prompts)
        if self._before is None and resumed and not policy.adapters:
            rank_zero_warn(
                f"callback ScorePrompts: nothing is compared, as {root / BEFORE} holds no completions of these prompts "
                "before training, and the policy that the run goes on with is trained already"
            )
            return
        if self._before is None:
            with policy.as_it_started() if policy.adapters else nullcontext():
                records = self._score(pl_module, prompts, self.temperature, "Completions before training")
                self._before = self._snapshot(pl_module, data, records)
        held = {"asked": self._asked(prompts), "before": asdict(self._before)}
        write_text(root / BEFORE, json.dumps(held, indent=1) + "\n")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if self.every_n_steps is not None and trainer.global_step % self.every_n_steps == 0:
            records = self._score(pl_module, self._watched, 0.0, None, _told(trainer))
            if not records:
                rank_zero_info(f"val/pass_rate of step {trainer.global_step} is left out: the run was told to end")
                return
            rate = {"val/pass_rate": sum(record.passed for record in records) / len(records)}
            pl_module.log_dict(
                rate, logger=False
            )  # for callbacks that watch it; Lightning would repeat it in every row
            for logger in trainer.loggers:
                logger.log_metrics(rate, step=trainer.global_step - 1)  # the step's number in the other rows

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        data, root = _data(trainer), Path(trainer.default_root_dir)
        if self.compare and _module(pl_module).policy.adapters:
            self._score_start(trainer, pl_module, data)
        records = {}
        for split in self.splits:
            prompts = self._prompts(data, split)
            records[split] = self._score(pl_module, prompts, self.temperature, f"Completions of {split} prompts")
        scores = {split: [asdict(record) for record in scored] for split, scored in records.items()}
        write_text(root / "scores.json", json.dumps(scores, indent=1) + "\n")
        if self._before is not None:
            after = self._snapshot(pl_module, data, records["test"])
            self._report(root, trainer.global_step, self._texts(pl_module, data), self._before, after)

    def _report(self, root: Path, steps: int, texts: dict[str, str], before: Snapshot, after: Snapshot) -> None:
        """Print and write what changed; `texts`: each prompt's text by its id."""
        lines = comparison.compare(before, after)
        table = comparison.table(lines)
        rank_zero_info(f"\n{table}\n")
        for sample in comparison.samples(texts, before, after):
            rank_zero_info(sample)
        falls = comparison.falls_of_kept_out(lines)
        for measure, fall in falls.items():
            rank_zero_info(f"{measure}: fell by at most {fall:.2f} (upper end of the fall's 95 % interval)")
        minutes = (time.perf_counter() - self._started) / 60
        peak = _peak_gib()
        memory = "" if peak is None else f" and {peak:.1f} GiB of memory at most"
        rank_zero_info(f"Evaluation and training took {minutes:.1f} minutes{memory}.")
        settings = {
            "temperature": self.temperature,
            "seed": self.seed,
            "steps": steps,
            "minutes": round(minutes, 2),
            "peak_memory_gib": None if peak is None else round(peak, 2),
            "fell_at_most": falls,
        }
        write_text(root / "before_after.md", table + "\n")
        write_text(root / "before_after.json", comparison.as_json(lines, settings) + "\n")
        write_text(root / "completions.jsonl", comparison.side_by_side(texts, before, after))

    def _prompts(self, data: PreferenceData, split: str) -> list[VerifiedPrompt]:
        return choose(verified_prompts(data.split(split)), self.trained_prompts, self.kept_out_prompts)

    def _texts(self, pl_module: LightningModule, data: PreferenceData) -> dict[str, str]:
        tokenizer = _module(pl_module).policy.tokenizer
        return {prompt.prompt_id: str(tokenizer.decode(prompt.prompt_ids)) for prompt in self._prompts(data, "test")}

    def _score(
        self,
        pl_module: LightningModule,
        prompts: Sequence[VerifiedPrompt],
        temperature: float,
        progress: str | None,
        stop: Callable[[], bool] | None = None,
    ) -> list[Record]:
        policy = _module(pl_module).policy
        return complete_and_verify(
            policy.loaded, policy.tokenizer, prompts, temperature, self.seed, self.batch_size, progress, stop
        )

    def _snapshot(self, pl_module: LightningModule, data: PreferenceData, records: list[Record]) -> Snapshot:
        """The records, and the mean token log-probs of the test pairs that are compared."""
        paired = [row for row in data.split("test") if row.pairs]
        stride = max(1, len(paired) // self.pairs) if self.pairs else 1
        means = _module(pl_module).mean_logps(paired[::stride][: self.pairs], data.budget.max_tokens)
        return Snapshot(records, [chosen for chosen, _ in means], [rejected for _, rejected in means])


def _told(trainer: Trainer) -> Callable[[], bool]:
    """Asks whether the run was told to end, which it does after the step at hand."""
    shutdowns = [callback for callback in trainer.callbacks if isinstance(callback, GracefulShutdown)]  # type: ignore[attr-defined]
    return lambda: any(shutdown.told for shutdown in shutdowns)


def _module(pl_module: LightningModule) -> PreferenceModule:
    assert isinstance(pl_module, PreferenceModule)
    return pl_module


def _snapshot_of(held: dict[str, Any]) -> Snapshot:
    """From what `asdict` made of one; JSON has made lists of its tuples."""
    records = [Record(**record | {"groups": tuple(record["groups"])}) for record in held["records"]]
    return Snapshot(**held | {"records": records})


def _peak_gib() -> float | None:
    """The most memory that this process has held, in GiB; None where the system does not tell."""
    try:
        return highest_bytes() / 2**30
    except Unmeasurable:
        return None


def _data(trainer: Trainer) -> PreferenceData:
    data = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, PreferenceData):
        raise Refusal(f"callback ScorePrompts: the run's data must be PreferenceData, got {type(data).__name__}")
    return data
