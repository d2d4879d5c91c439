"""PreferenceData: files, hub ids or rows in memory in, optimizer steps out."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from lightning_bnf.datamodules.contract import DataNeeds, MeetsData
from lightning_bnf.datamodules.reading.errors import DataError, some_of
from lightning_bnf.datamodules.reading.options import DataOptions
from lightning_bnf.datamodules.reading.tables import ACCEPTED, Sources, sources_of
from lightning_bnf.datamodules.steps.holdout import hold_out, shared_prompts
from lightning_bnf.datamodules.steps.layout import Layout, LayoutName, PlannedBatch, ToScore
from lightning_bnf.datamodules.steps.loader import Part, PromptLoader, StepLoader
from lightning_bnf.datamodules.steps.mixing import Mix, WeightedSet, mixed, weighted_sets
from lightning_bnf.datamodules.steps.needs import check_labels, check_rows, label_sentences, usable_rows
from lightning_bnf.datamodules.steps.plan import Budget, StepPlan, call_tokens_on, families_of
from lightning_bnf.datamodules.steps.step_size import LARGEST, automatic_step_size
from lightning_bnf.datamodules.tokens.between_files import between_files
from lightning_bnf.datamodules.tokens.derived import Mismatched, PartlyPaired
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.datamodules.tokens.report import ReportText
from lightning_bnf.datamodules.tokens.rows import RowView, content_keys, rows_fingerprint
from lightning_bnf.datamodules.tokens.stored import load_stored
from lightning_bnf.losses.base import Loss
from lightning_bnf.runtime.arguments import ClosedUnitInterval, PositiveInt, checked
from lightning_bnf.runtime.escapes import visible
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal

SPLITS = {"fit": ("train", "validation"), "validate": ("validation",), "test": ("test",), "predict": ("test",)}
DEFAULT_OPTIONS = DataOptions()
HOLD_OUT = "auto"  # as `validation`: some of the training rows; a file of that name is ./auto
SEED = 1  # where nothing names one
EVALUATION_TOKENS = 8192  # of a micro-batch without gradients, where max_tokens is auto


@checked
class PreferenceData(LightningDataModule):
    """Preference data of three splits, each from one or more files, dataset folders or hub ids (`owner/name:split`).
    In Python also from a list of dicts, a pandas DataFrame or a `datasets.Dataset`, or a list of such.

    Formats are found by their columns: pairs, labelled completions, demonstrations, and, for the test split, prompts.
    """

    def __init__(
        self,
        train: Sources | list[WeightedSet] | None = None,
        validation: Sources | None = None,
        test: Sources | None = None,
        examples_per_step: PositiveInt | Literal["auto"] = "auto",
        max_tokens: PositiveInt | Literal["auto"] = 8192,
        seed: int | None = None,
        layout: LayoutName = "auto",
        pairing_ratio: ClosedUnitInterval = 1.0,
        stratify: bool = False,
        epoch_of: str | None = None,
        options: DataOptions = DEFAULT_OPTIONS,
    ):
        """
        Args:
            train: Files (.jsonl, .json, .csv, .parquet), dataset folders or hub ids to train on; or sets with weights,
                `[{path: ..., weight: ...}, ...]`, which are mixed so that each prefix of an epoch is within one example
                of the weights.
            validation: The same for `val/` metrics; or `auto`, which holds out 5 % of the training rows, at least 16
                but at most a fifth, none of under 40; drawn by the seed, with all rows of a prompt on one side.
            test: The same for `test` and `predict`; may hold prompts alone.
            examples_per_step: Data rows of one optimizer step, over all micro-batches and devices. `auto` is the
                largest power of two from 4 to 128 that leaves at least 32 steps an epoch; in validation and test 128.
            max_tokens: Token budget of a micro-batch, padding included: sets memory, never the result. `auto` finds the
                largest that fits, by dry steps on the longest rows; at most 2,048 on a CPU and 32,768 on a GPU.
            seed: Of the order, the rows held out and the sides left out; null is that of seed_everything, in Python 1.
            layout: `padded` (a model row for each completion), `packed` (one for all), `shared_prompt` (a prompt once,
                its completions behind it), `packed_shared` (all of these in one row, what all prompts begin with
                once), or `auto`: shared where that saves tokens, if the model gives the same numbers.
            pairing_ratio: Share of the training pairs that keep both answers; each other one keeps either, so that a
                loss that needs no pairs can be tried without them (Table 6 of the BNF paper).
            stratify: Whether every step holds each task family (column `family`) in its share of the training rows, so
                that seeds do not differ in the mix of families.
            epoch_of: Of sets with weights, the path of the one of which an epoch holds every row once; null: the
                largest size by weight.
            options: How the files are read: lengths, truncation, chat template.
        """
        super().__init__()
        self.holds_out = isinstance(validation, str) and validation == HOLD_OUT
        self.sets = weighted_sets(train, epoch_of, pairing_ratio, stratify)
        train = train if self.sets is None else [one.path for one in self.sets]
        named = {"train": train, "validation": None if self.holds_out else validation, "test": test}
        self.sources = {split: sources_of(split, given) for split, given in named.items()}
        self.step_size = examples_per_step
        self.max_tokens = max_tokens
        self.seed = SEED if seed is None else seed
        self.layout = layout
        self.pairing_ratio = pairing_ratio
        self.stratify, self.epoch_of = stratify, epoch_of
        self.options = options
        self.rows: dict[str, RowView] = {}
        self.reports: list[ReportText] = []
        self._needs: DataNeeds | None = None
        self._made_by: tuple[Any, ...] | None = None
        self._layouts: dict[str, Layout] = {}
        self._partners: dict[str, Mismatched] = {}
        self._budget: Budget | None = None
        self._fingerprint: str | None = None
        self._mix: Mix | None = None

    @property
    def paths(self) -> dict[str, list[str]]:
        """The files, folders and hub ids of each split; rows in memory by their name, kind and count."""
        return {split: [str(source) for source in sources] for split, sources in self.sources.items()}

    def setup(self, stage: str) -> None:
        """Meet the Trainer's module, or stay with the one met; read, check and tokenize the stage's splits; report.

        Raises `DataError`, and `Refusal` for a module that does not train on such data.
        """
        if self.trainer is not None or self._needs is None:
            self.meet(self.trainer and self.trainer.lightning_module)
        for split in SPLITS[stage]:
            self.split(split)
        self._refuse_empty(SPLITS[stage][0])
        if stage != "predict":
            for split in SPLITS[stage]:  # the test split may hold prompts beside what is scored
                rows = self.rows[split] if split != "test" else self.rows[split].with_completions()
                check_rows(rows, self.needs.loss)
        if stage == "fit":
            check_labels(self.rows["train"], self.needs.loss)
            shared = [] if self.holds_out else shared_prompts(self.rows["train"], self.rows["validation"])
            if shared:
                count = f"{len(shared):,} of {len(self.rows['validation']):,}"
                told = ReportText(f"[validation] {count} rows have a prompt that is trained on too: {some_of(shared)}")
                self.reports += [told] if told not in self.reports else []  # which a run before may have told
        self._report()

    def meet(self, module: Any) -> None:
        """Learn what the module needs, without a Trainer too; rows that are there stay where it makes the same of them.
        Raises `Refusal` for one that takes no such data."""
        if not isinstance(module, MeetsData):
            raise Refusal(f"the module of PreferenceData must be a PreferenceModule, got {type(module).__name__}")
        self._needs = module.meet(self)
        self._layouts, self._partners, self._budget = {}, {}, None
        if self._made_by != (made_by := (self.options.kind, *self._needs.of_rows())):
            self.rows, self.reports, self._made_by = {}, [], made_by
            self._fingerprint = self._mix = None

    def _refuse_empty(self, split: str) -> None:
        if self.rows[split]:
            return
        if split == "validation" and self.holds_out:
            few = f"{len(self.rows['train'])} training rows, which are too few to hold some out"
            raise DataError(f"data.validation must be {ACCEPTED}, got {HOLD_OUT!r} with {few}")
        raise DataError(f"data.{split} must be {ACCEPTED}, got none")

    def split(self, split: str) -> RowView:
        """The rows of `train`, `validation` or `test`, read on first use. Raises `DataError`."""
        if split not in self.rows:
            self.rows |= self._load("train" if split == "validation" and self.holds_out else split)
        return self.rows[split]

    def _load(self, split: str) -> dict[str, RowView]:
        """A split's rows by its name; with the training rows those that are held out of them."""
        needs, read = self.needs, 0
        parts: list[Sequence[TokenizedRow]] = []
        told: list[str] = []
        votes: list[Mapping[str, str]] = []
        for source in self.sources[split]:
            loaded, report = load_stored(source, needs.tokenizer, self.options, needs.end_ids)
            if split == "train" and report.kept_out:
                view = RowView([loaded])
                loaded = view.only(~view.columns.kept_out)
                told.append(f"{report.kept_out:,} rows of {source} are marked kept_out, and not trained")
            parts.append(loaded)
            votes.append(report.votes or {})
            read += report.read
            first = not any(found.sample for found in self.reports)  # one sample is enough on a screen
            sample = report.sample if first else ""
            self.reports.append(report._replace(head=f"[{split}] {report.head}", sample=sample))
        found, sentences = self.selected(split, RowView(parts), self.needs.loss)
        sentences = [*told, *between_files(parts, votes), *sentences]
        if split == "train" and parts:
            sentences += [*label_sentences(found["train"], self.needs.loss), self._counts(read, found)]
        self.reports += [ReportText(f"[{split}] {sentence}") for sentence in sentences]
        return found

    def _counts(self, read: int, found: Mapping[str, RowView]) -> str:
        """What became of the training files' rows, to the last one, and what a step takes of them."""
        rows = len(found["train"])
        mix = self.mix(found["train"])
        examples = rows if mix is None else len(mix.sets)
        size = self.step_size_for(examples)
        held = len(found.get("validation", ()))
        why = " (examples_per_step: auto)" if self.step_size == "auto" else ""
        mixed = "" if mix is None else f"\n  {mix.sentence([one.path for one in self.sets or ()])}"
        return (
            f"rows: {read:,} read, {rows:,} trained, {held:,} held out for validation, {read - rows - held:,} dropped; "
            f"{size} rows a step{why}, {-(-examples // size):,} steps an epoch{mixed}"
        )

    def mix(self, rows: Sequence[TokenizedRow]) -> Mix | None:
        """How the sets of the training rows are mixed; None where they have no weights. Raises `DataError`."""
        if self.sets is None or not rows:
            return None
        assert isinstance(rows, RowView)
        set_of = rows.part_of_rows()
        if self._mix is None or not np.array_equal(self._mix.set_of, set_of):
            self._mix = mixed(self.sets, set_of, self.epoch_of)
        return self._mix

    def _examples(self) -> int:
        """Rows of a training epoch, each as often as it is in it."""
        mix = self.mix(self.split("train"))
        return len(self.split("train")) if mix is None else len(mix.sets)

    def step_size_for(self, rows: int | None) -> int:
        """Data rows of an optimizer step where there are so many training rows; the most there can be for None."""
        if self.step_size != "auto":
            return self.step_size
        return LARGEST if rows is None else automatic_step_size(rows)

    @property
    def examples_per_step(self) -> int:
        """Data rows of an optimizer step. Under `auto` the training rows are read for it, where any are named."""
        if self.step_size != "auto":
            return self.step_size
        if self.sources["train"]:
            return self.step_size_for(self._examples())
        return LARGEST

    def selected(self, split: str, rows: RowView, loss: Loss) -> tuple[dict[str, RowView], list[str]]:
        """A split's rows that `loss` can use, by its name: of training rows those to train on, pairs without the sides
        that `pairing_ratio` leaves out, and those held out of them under `validation`; and sentences on what was left
        out. Raises `DataError` where the arguments contradict each other."""
        rows, sentence = usable_rows(rows, loss, self.options.allow_drop)
        sentences = [sentence] if sentence else []
        found = {split: rows}
        if split == "train" and self.holds_out:
            divided = hold_out(rows, self.seed)
            found = {"train": divided.train, "validation": divided.validation}
            sentences += [divided.sentence] if rows else []
        if split == "train" and self.pairing_ratio < 1:
            if loss.needs_pairs or loss.needs_groups:
                raise DataError(
                    f"data.pairing_ratio must be 1 with {type(loss).__name__}, which needs whole pairs or groups, got "
                    f"{self.pairing_ratio:g}"
                )
            partly = PartlyPaired(found["train"], self.pairing_ratio, self.seed)
            found["train"] = RowView([partly])
            sentences.append(partly.report)
        return found, sentences

    @rank_zero_only
    def _report(self) -> None:
        rank_zero_info(visible("\n".join(report.short for report in self.reports)))
        if self.trainer is not None:
            path = Path(self.trainer.default_root_dir) / "data_report.txt"
            write_text(path, visible("".join(report.full + "\n" for report in self.reports)))

    @property
    def needs(self) -> DataNeeds:
        """What the module that the data were set up for has told. Raises RuntimeError before."""
        if self._needs is None:
            raise RuntimeError("PreferenceData: its splits are read for a module, and none has set it up yet")
        return self._needs

    def _plan(self, split: str) -> StepPlan:
        assert self.trainer is not None
        rows, layout = self._rows(split), self.layout_of(split)
        training: dict[str, Any] = {}
        if split == "train":
            again = bool(getattr(self.trainer, "overfit_batches", 0))  # of which Lightning makes the limit
            training = {"limit": self.trainer.limit_train_batches, "again": again, "mix": self.mix(rows)}
            training |= {"seed": self.seed, "strata": families_of(rows) if self.stratify else None}
        return StepPlan(
            tokens=layout.lengths_of(rows, self._labels(split)),
            examples_per_step=self.examples_per_step if split == "train" else self.step_size_for(None),
            max_tokens=self.budget.max_tokens,
            world_size=self.trainer.world_size,
            packed=layout.packed,
            call_tokens=self.budget.call_tokens,
            common=layout.common,
            **training,
        )

    def _loader(self, split: str) -> StepLoader:
        assert self.trainer is not None
        layout, labels, plan, partners = self.layout_of(split), self._labels(split), self._plan(split), None
        if "mismatched" in self.needs.loss.step_passes:
            others = self._mismatched(split)
            partners = Part(others, replace(plan, tokens=layout.lengths_of(others, labels)))
        rows, rank, device = self._rows(split), self.trainer.global_rank, self.trainer.strategy.root_device
        return StepLoader(rows, plan, layout, labels, rank, plan.seed is None, partners, device)

    def _labels(self, split: str) -> tuple[int, ...]:
        """Training leaves out what the loss does not learn from; metrics are of all completions."""
        return self.needs.loss.labels if split == "train" else (1, -1)

    def layout_of(self, split: str) -> Layout:
        """The layout of all that is made of a split: decided once a run, as the loaded model is tried for it."""
        if split not in self._layouts:
            rows, labels = self._scored(split), self._labels(split)
            self._layouts[split] = self.needs.fitting.layout(self.layout, rows, labels)
        return self._layouts[split]

    def _scored(self, split: str) -> RowView:
        """The rows of a split with completions, and with those that its loss scores beside them."""
        rows = self._rows(split)
        return RowView([rows, self._mismatched(split)] if "mismatched" in self.needs.loss.step_passes else [rows])

    def _rows(self, split: str) -> RowView:
        return self.rows[split].with_completions()

    def _mismatched(self, split: str) -> Mismatched:
        if split not in self._partners:
            self._partners[split] = Mismatched(self._rows(split), self.options.max_length)
        return self._partners[split]

    @property
    def budget(self) -> Budget:
        """Tokens of a micro-batch, and what one costs beside them: measured with `max_tokens: auto` in training."""
        usual = call_tokens_on("cpu" if self.trainer is None else self.trainer.strategy.root_device.type)
        if self.max_tokens != "auto":
            return Budget(self.max_tokens, usual)
        if self.trainer is None or self.trainer.state.fn != "fit":
            return Budget(EVALUATION_TOKENS, usual)
        if self._budget is None:
            rows, count = self._rows("train"), self.step_size_for(self._examples())
            self._budget = self.needs.fitting.budget(rows, self.layout_of("train"), self.needs.loss, count)
        return self._budget

    def to_score(self, steps: Mapping[str, int | None]) -> ToScore:
        """The completions that a reference is asked for in the first so many steps of each split, in all of them for
        None; mismatched ones included."""
        rows = {split: self._until(split, count) for split, count in steps.items() if self.rows.get(split)}
        keys = [content_keys(found) for found in rows.values()]
        return ToScore(np.concatenate([np.zeros((0, 2), np.uint64), *keys]), partial(self._batches, rows))

    def _until(self, split: str, steps: int | None) -> RowView:
        scored, each = self._scored(split), len(self._rows(split))
        if steps is None or not each:
            return scored
        places = self._plan(split).rows_until(steps)
        return RowView([scored], np.concatenate([places + first for first in range(0, len(scored), each)]))

    def _batches(self, rows: Mapping[str, RowView]) -> list[PlannedBatch]:
        assert self.trainer is not None
        batches: list[PlannedBatch] = []
        for split, some in rows.items():
            layout = self.layout_of(split)
            lengths, cut = layout.lengths_of(some, (1, -1)), self.budget._asdict()
            plan = StepPlan(lengths, len(some), packed=layout.packed, common=layout.common, **cut)
            places = plan.micro_batches(0, 0)[self.trainer.global_rank :: self.trainer.world_size]
            batches += [PlannedBatch(RowView([some], np.array(batch)), layout) for batch in places]
        return batches

    def places(self, ids: Collection[str]) -> list[str]:
        """Where the training rows of these ids stand, by file and line."""
        rows = self.split("train")
        wanted = pc.is_in(rows.values("id"), value_set=pa.array([one.encode() for one in ids], pa.large_binary()))
        return [rows.source(i) for i in np.flatnonzero(wanted.to_numpy()).tolist()]

    def meaning(self) -> dict[str, str]:
        """The training rows in their order, how they are mixed, how many a step takes, and the seed of their order."""
        if self._fingerprint is None:
            self._fingerprint = rows_fingerprint(self.split("train"))
        rows = f"{len(self.split('train')):,} rows ({self._fingerprint})"
        steps: dict[str, Any] = {
            "data.examples_per_step": self.examples_per_step,
            "data.seed": self.seed,
            "data.stratify": self.stratify,
            "data.train weights": None if self.sets is None else [one.weight for one in self.sets],
            "data.epoch_of": self.epoch_of,
        }
        return {"data.train": rows} | {name: str(value) for name, value in steps.items()}

    def train_dataloader(self) -> StepLoader:
        """The training steps, in the plan's order, from where the run is."""
        loader = self._loader("train")
        loader.consumed = self.trainer.global_step if self.trainer is not None else 0
        return loader

    def val_dataloader(self) -> StepLoader | list[Any]:
        """The validation rows in file order, all their completions; nothing where no file was named."""
        return self._loader("validation") if self.rows.get("validation") else []

    def test_dataloader(self) -> StepLoader:
        """The test rows in file order, all their completions."""
        return self._loader("test")

    def predict_dataloader(self) -> PromptLoader:
        """The test split's prompts, once each, shared over the devices."""
        assert self.trainer is not None
        size = self.needs.prompts_at_once
        return PromptLoader(self.rows["test"], size, self.trainer.global_rank, self.trainer.world_size)
