"""What happens beside the training steps: exports, plots, reports."""

from typing import Any

from lightning_bnf.callbacks.displacement import DisplacementAlarm
from lightning_bnf.callbacks.even_validations import EvenValidations
from lightning_bnf.callbacks.export import ExportPolicy
from lightning_bnf.callbacks.fingerprints import Fingerprints
from lightning_bnf.callbacks.graceful_shutdown import GracefulShutdown
from lightning_bnf.callbacks.judge_answers import JudgeAnswers
from lightning_bnf.callbacks.last_checkpoints import LastCheckpoints
from lightning_bnf.callbacks.measure_likelihood import MeasureLikelihood
from lightning_bnf.callbacks.progress import RunProgress
from lightning_bnf.callbacks.run_logger import RunEvents, RunLogger
from lightning_bnf.callbacks.run_plots import RunPlots
from lightning_bnf.callbacks.run_report import RunReport
from lightning_bnf.callbacks.score_prompts import ScorePrompts
from lightning_bnf.callbacks.write_completions import WriteCompletions

__all__ = [
    "DisplacementAlarm",
    "EvenValidations",
    "ExportPolicy",
    "Fingerprints",
    "GracefulShutdown",
    "JudgeAnswers",
    "LastCheckpoints",
    "MeasureLikelihood",
    "RunEvents",
    "RunLogger",
    "RunPlots",
    "RunProgress",
    "RunReport",
    "ScorePrompts",
    "WriteCompletions",
]


def __getattr__(name: str) -> Any:
    """Refuse (AttributeError) a former class, which saved configs may name, with the YAML that takes its place."""
    if name == "BeforeAfter":
        raise AttributeError(
            "BeforeAfter is part of ScorePrompts: use {class_path: lightning_bnf.callbacks.ScorePrompts, init_args: "
            "{splits: [test], compare: true, temperature: 0.8}} with the other init_args as they were"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
