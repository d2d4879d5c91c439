"""What happens beside the training steps: exports, plots, reports."""

from lightning_bnf.callbacks.before_after import BeforeAfter
from lightning_bnf.callbacks.displacement import DisplacementAlarm
from lightning_bnf.callbacks.export import ExportPolicy
from lightning_bnf.callbacks.fingerprints import Fingerprints
from lightning_bnf.callbacks.graceful_shutdown import GracefulShutdown
from lightning_bnf.callbacks.run_logger import RunLogger
from lightning_bnf.callbacks.run_plots import RunPlots
from lightning_bnf.callbacks.score_prompts import ScorePrompts
from lightning_bnf.callbacks.write_completions import WriteCompletions

__all__ = [
    "BeforeAfter",
    "DisplacementAlarm",
    "ExportPolicy",
    "Fingerprints",
    "GracefulShutdown",
    "RunLogger",
    "RunPlots",
    "ScorePrompts",
    "WriteCompletions",
]
