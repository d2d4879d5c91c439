"""Evaluates the policy on test prompts and test pairs before and after training."""

import resource
import time
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation import comparison
from lightning_bnf.evaluation.comparison import Snapshot
from lightning_bnf.evaluation.pass_rates import VerifiedPrompt, complete_and_verify, verified_prompts
from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import refuse_sharded


class BeforeAfter(Callback):
    """Prints a table of what training changed, and writes it with the completions into the run folder.

    Reads the data's `test` split: rows with a verifier give pass rates, pairs give log-probabilities. Writes
    `before_after.md`, `before_after.json` and `completions.jsonl`.
    """

    def __init__(
        self,
        trained_prompts: int | None = None,
        kept_out_prompts: int | None = None,
        pairs: int | None = None,
        temperature: float = 0.8,
        seed: int = 1,
        batch_size: int = 128,
    ):
        """
        Args:
            trained_prompts: Test prompts of trained families, taken from the families in turn; null takes all.
            kept_out_prompts: Test prompts of families that are kept out of training; null takes all.
            pairs: Test pairs whose log-probabilities are compared; null takes all.
            temperature: Softmax temperature of the sampled completions.
            seed: Of the sampled completions.
            batch_size: Completions generated together.
        """
        self.trained_prompts = trained_prompts
        self.kept_out_prompts = kept_out_prompts
        self.pairs = pairs
        self.temperature, self.seed, self.batch_size = temperature, seed, batch_size
        self._prompts: list[VerifiedPrompt] = []
        self._texts: list[str] = []
        self._rows: list[TokenizedRow] = []
        self._before: Snapshot | None = None
        self._started = 0.0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_sharded(trainer.strategy, "callback BeforeAfter")

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PreferenceData) or not data.paths["test"]:
            raise Refusal("callback BeforeAfter: accepted is data with test files (data.test)")
        if not trainer.is_global_zero:
            return
        rows = data.split("test")
        tokenizer = self._module(pl_module).policy.tokenizer
        self._prompts = comparison.choose(verified_prompts(rows), self.trained_prompts, self.kept_out_prompts)
        self._texts = [str(tokenizer.decode(prompt.prompt_ids)) for prompt in self._prompts]
        paired = [row for row in rows if row.format == "paired"]
        stride = max(1, len(paired) // self.pairs) if self.pairs else 1
        self._rows = paired[::stride][: self.pairs]
        self._started = time.perf_counter()
        self._before = self._snapshot(trainer, pl_module, "before training")

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._before is None:
            return
        after = self._snapshot(trainer, pl_module, "after training")
        lines = comparison.compare(self._before, after)
        minutes = (time.perf_counter() - self._started) / 60
        table = comparison.table(lines)
        rank_zero_info(f"\n{table}\n")
        for sample in self._samples(after):
            rank_zero_info(sample)
        falls = {
            line.measure: comparison.fall_at_most(lines, line.measure)
            for line in lines
            if line.measure.startswith("pass rate, kept-out")
        }
        for measure, fall in falls.items():
            rank_zero_info(f"{measure}: fell by at most {fall:.2f} (upper end of the fall's 95 % interval)")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux gives KiB
        rank_zero_info(f"Evaluation and training took {minutes:.1f} minutes and {peak:.1f} GiB of memory at most.")
        root = Path(trainer.default_root_dir)
        settings = {
            "temperature": self.temperature,
            "seed": self.seed,
            "steps": trainer.global_step,
            "minutes": round(minutes, 2),
            "peak_memory_gib": round(peak, 2),
            "fell_at_most": falls,
        }
        (root / "before_after.md").write_text(table + "\n")
        (root / "before_after.json").write_text(comparison.as_json(lines, settings) + "\n")
        sides = comparison.side_by_side(self._prompts, self._texts, self._before, after)
        (root / "completions.jsonl").write_text(sides)

    def _samples(self, after: Snapshot, count: int = 3) -> list[str]:
        """The first prompts' sampled completions, before and after."""
        assert self._before is not None
        by_id = dict(zip((prompt.prompt_id for prompt in self._prompts), self._texts))
        both = [(old, new) for old, new in zip(self._before.records, after.records) if old.decoding == "sampled"]
        return [
            f"{by_id[old.prompt_id]!r}\n  before: {old.text!r}\n  after:  {new.text!r}\n" for old, new in both[:count]
        ]

    def _snapshot(self, trainer: Trainer, pl_module: LightningModule, name: str) -> Snapshot:
        module = self._module(pl_module)
        records = complete_and_verify(
            module.policy.loaded,
            module.policy.tokenizer,
            self._prompts,
            self.temperature,
            self.seed,
            self.batch_size,
            progress=f"Completions {name}",
        )
        means = module.mean_logps(self._rows, trainer.datamodule.token_budget)  # type: ignore[attr-defined]
        chosen, rejected = zip(*means) if means else ((), ())
        return Snapshot(records, list(chosen), list(rejected))

    @staticmethod
    def _module(pl_module: LightningModule) -> PreferenceModule:
        assert isinstance(pl_module, PreferenceModule)
        return pl_module
