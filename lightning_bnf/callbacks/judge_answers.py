"""A judge in the loop: a run's answers beside those that it began with, every so many steps."""

import json
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from scipy.special import logit

from lightning_bnf.callbacks.displacement import evenly_spaced
from lightning_bnf.datamodules.preference import PreferenceData
from lightning_bnf.datamodules.reading.messages import Message, Messages
from lightning_bnf.datamodules.tokens.renderer import TokenizedRow
from lightning_bnf.evaluation.statistics.intervals import Interval, wilson
from lightning_bnf.evaluation.win_rates import Comparisons, controlled_win_rate
from lightning_bnf.generation.sampling import Generated, Sampling, generate_with_lengths
from lightning_bnf.judging.local_judges import TokenJudge
from lightning_bnf.judging.protocols import PROTOCOLS
from lightning_bnf.judging.templates import Template, read_template
from lightning_bnf.module import PreferenceModule
from lightning_bnf.preparation.scoring import Candidates, Scorer
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveInt, checked
from lightning_bnf.runtime.files import write_text
from lightning_bnf.runtime.refusal import Refusal
from lightning_bnf.training.strategies import refuse_sharded

RATE = "val/judged_win_rate"
_SURE = 1e-9


@checked
class JudgeAnswers(Callback):
    """Lets a judge compare greedy answers to a few validation prompts with those of the start of the run.

    The judge is a scorer (a reward model), or a causal language model whose log-odds of both orders are added up.
    `val/judged_win_rate` (a tie is half a win) is logged, with its 95 % interval `_low` and `_high`, so that
    ModelCheckpoint can keep the best and EarlyStopping end a run; with `stop` it ends where the whole interval is below
    1/2. `judged.json` in the run folder has every rate, also at equal lengths, and the answers of the last comparison.
    """

    def __init__(
        self,
        scorer: Scorer | None = None,
        source: str | None = None,
        prompts: PositiveInt = 20,
        every_n_steps: PositiveInt = 50,
        max_new_tokens: PositiveInt = 256,
        tie_margin: NonNegativeFloat = 0.0,
        batch_size: PositiveInt = 32,
        stop: bool = False,
    ):
        """
        Args:
            scorer: Reward model or ranker that judges, by class path; loaded anew for each comparison.
            source: Causal language model that judges; it stays in memory. One of both is given.
            prompts: Prompts of the validation data, evenly apart.
            every_n_steps: Optimizer steps between two comparisons.
            max_new_tokens: Tokens after which an answer is cut off.
            tie_margin: Difference of scores (log-odds of `source`) up to which it is a tie.
            batch_size: Answers generated together.
            stop: Whether the run ends where its answers are worse than those of its start.
        """
        if (scorer is None) == (source is None):
            given = "neither" if scorer is None else "both"
            raise Refusal(f"callback JudgeAnswers, scorer, source: one of them must be given, got {given}")
        self.scorer, self.source = scorer, source
        self.prompts, self.every_n_steps, self.max_new_tokens = prompts, every_n_steps, max_new_tokens
        self.tie_margin, self.batch_size, self.stop = tie_margin, batch_size, stop
        self.measured: list[dict[str, Any]] = []
        self._before: list[Generated] = []
        self._rows: list[TokenizedRow] = []
        self._judge: tuple[TokenJudge, Template] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        refuse_sharded(trainer.strategy, "callback JudgeAnswers")

    def state_dict(self) -> dict[str, Any]:
        """A resumed run compares with the policy as it was before the first step, not before its own."""
        return {"before": [asdict(one) for one in self._before], "measured": self.measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._before = [Generated(**one) for one in state_dict["before"]]
        self.measured = list(state_dict["measured"])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        data = trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, PreferenceData):
            raise Refusal("callback JudgeAnswers: the run's data must be PreferenceData, got others")
        self._rows = evenly_spaced(data.split("validation"), self.prompts)
        if not self._rows:
            raise Refusal("callback JudgeAnswers must be given validation data with answers, got none")
        if self.source is not None:
            template = read_template("own", PROTOCOLS["pairs"], "letters")
            assert template.tokens is not None
            self._judge = TokenJudge(self.source, template.tokens), template
        if not self._before and trainer.is_global_zero:
            policy = _module(pl_module).policy
            with policy.as_it_started() if policy.adapters else nullcontext():
                self._before = self._answers(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps:
            return
        compared = self._compare(trainer, pl_module) if trainer.is_global_zero else None
        rate = trainer.strategy.broadcast(compared)
        assert rate is not None  # the first rank's
        named = {RATE: rate.value, f"{RATE}_low": rate.low, f"{RATE}_high": rate.high}
        pl_module.log_dict(named, logger=False)  # for callbacks that watch it
        for logger in trainer.loggers:
            logger.log_metrics(named, step=trainer.global_step - 1)  # the step's number in the other rows
        if self.stop and rate.high < 0.5:
            rank_zero_warn(
                f"callback JudgeAnswers, step {trainer.global_step}: the answers win {rate.value:.2f} [{rate.low:.2f}, "
                f"{rate.high:.2f}] against those of the start, so they are worse; the run ends"
            )
            trainer.should_stop = True

    def _compare(self, trainer: Trainer, pl_module: LightningModule) -> Interval:
        """The win rate now; what was measured is in the run folder when it returns."""
        answers = self._answers(pl_module)
        won = self._won(answers, Path(trainer.default_root_dir))
        lengths = [np.array([one.length for one in side]) for side in (answers, self._before)]
        fought = Comparisons(np.arange(len(won)), won, *lengths)
        # of few answers: a bootstrap's interval is empty where all are won or lost
        rate = Interval(float(won.mean()), *wilson(float(won.sum()), len(won)))
        equal = controlled_win_rate(fought)
        self.measured.append(
            {
                "step": trainer.global_step,
                "n": len(won),
                "rate": asdict(rate),
                "at_equal_lengths": asdict(equal),
                "tokens": float(lengths[0].mean()),
            }
        )
        texts = [
            {"prompt": row.prompt, "before": old.text, "now": new.text, "won": float(outcome)}
            for row, old, new, outcome in zip(self._rows, self._before, answers, won, strict=True)
        ]
        judge = repr(self.scorer) if self.scorer is not None else self.source
        record = {"judge": judge, "tie_margin": self.tie_margin, "measured": self.measured, "answers": texts}
        write_text(Path(trainer.default_root_dir) / "judged.json", json.dumps(record, indent=1) + "\n")
        rank_zero_info(
            f"step {trainer.global_step}: {len(won)} answers win {rate.value:.2f} [{rate.low:.2f}, {rate.high:.2f}] "
            f"against those of the start, judged by {judge}"
        )
        return rate

    def _answers(self, pl_module: LightningModule) -> list[Generated]:
        policy, sampling = _module(pl_module).policy, Sampling(0.0, self.max_new_tokens, batch_size=self.batch_size)
        rows = generate_with_lengths(policy.loaded, policy.tokenizer, [row.prompt_ids for row in self._rows], sampling)
        return [row[0] for row in rows]

    def _won(self, answers: Sequence[Generated], root: Path) -> np.ndarray:
        """1, 1/2 or 0 of each answer; 1/2 of one that is too long for the judge."""
        pairs = [(_messages(row), new.text, old.text) for row, new, old in zip(self._rows, answers, self._before)]
        if self.scorer is not None:
            groups = [Candidates(prompt, (new, old)) for prompt, new, old in pairs]
            scores = self.scorer.score(groups, root / "judge_scores.jsonl")
            better = [0.0 if a is None or b is None else a - b for a, b in scores]
        else:
            better = [0.0 if new == old else self._log_odds(prompt, new, old) for prompt, new, old in pairs]
        return np.array([0.5 if abs(one) <= self.tie_margin else float(one > 0) for one in better])

    def _log_odds(self, prompt: Messages, new: str, old: str) -> float:
        """Of the new answer being the better one, both orders added up: what a judge adds to a place cancels."""
        assert self._judge is not None
        judge, template = self._judge
        question = "\n\n".join(one["content"] for one in prompt)
        total = 0.0
        for a, b, sign in ((new, old, 1), (old, new, -1)):
            p = judge.probability(template.messages({"question": question, "answer_a": a, "answer_b": b}))
            if p is None:
                return 0.0
            total += sign * float(logit(min(max(p, _SURE), 1 - _SURE)))
        return total


def _messages(row: TokenizedRow) -> Messages:
    prompt = row.prompt
    return (Message(role="user", content=prompt),) if isinstance(prompt, str) else tuple(prompt)


def _module(pl_module: LightningModule) -> PreferenceModule:
    assert isinstance(pl_module, PreferenceModule)
    return pl_module
