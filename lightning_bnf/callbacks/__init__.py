"""What happens beside the training steps: exports, plots, reports."""

from lightning_bnf.callbacks.export import ExportPolicy
from lightning_bnf.callbacks.run_plots import RunPlots

__all__ = ["ExportPolicy", "RunPlots"]
