"""Draws a run's figures when it ends."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lightning_bnf.module import PreferenceModule
from lightning_bnf.runtime.arguments import PositiveInt, checked


@checked
class RunPlots(Callback):
    """Writes `plots/*.png` in the run folder: loss, chosen and rejected log-probs, the distribution of BNF's weight."""

    def __init__(self, window: PositiveInt = 5):
        """
        Args:
            window: Steps at the start and at the end of training whose token weights are drawn.
        """
        self.window = window
        self._first: list[torch.Tensor] = []
        self._last: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        weights = (outputs or {}).get("bnf/weight")
        if weights is None:
            return
        weights = weights.float().cpu()
        if len(self._first) < self.window:
            self._first.append(weights)
        self._last = [*self._last, weights][-self.window :]

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        run = Path(trainer.default_root_dir)
        if not trainer.is_global_zero or not (run / "metrics.csv").is_file():
            return
        # pandas and matplotlib: half a second that nobody is to wait for before the run
        from lightning_bnf.results.plots import plot_logps, plot_loss, plot_weights
        from lightning_bnf.results.style import save_figure
        from lightning_bnf.results.tables import read_metrics

        assert isinstance(pl_module, PreferenceModule)
        metrics = read_metrics(run)
        figures = {"loss": plot_loss(metrics, type(pl_module.loss).__name__), "logps": plot_logps(metrics)}
        if self._first:
            first, last = torch.cat(self._first).tolist(), torch.cat(self._last).tolist()
            figures["bnf_weight"] = plot_weights(
                {f"first {len(self._first)} steps": first, f"last {len(self._last)} steps": last}
            )
        for name, figure in figures.items():
            save_figure(figure, run / "plots" / f"{name}.png")
