"""A run that has ended, as notebooks use it."""

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_bnf.datamodules.reading.options import Rendering
from lightning_bnf.datamodules.tokens.renderer import Renderer
from lightning_bnf.generation.sampling import Sampling
from lightning_bnf.generation.sides import ALIGNED, BASE, Opened, Side, opened
from lightning_bnf.module import PreferenceModule
from lightning_bnf.pages.report import write_report
from lightning_bnf.pages.token_view import TokenView
from lightning_bnf.policies.base import Policy
from lightning_bnf.policies.reference.providers import FrozenCopy
from lightning_bnf.runtime.refusal import Refusal

if TYPE_CHECKING:  # half a second that no run has to wait for
    import pandas as pd
    from matplotlib.figure import Figure

DEFAULT_RENDERING = Rendering()


def _identity(folder: Path) -> tuple[int, int] | None:
    """What a folder keeps when it is renamed; None where there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


class Run:
    """What a run leaves: its folder, the policy, the metrics, and ways to look at them.

    `align` returns one. `Run("runs/latest")` opens any run folder again, of `fit` too; its exported policy and the base
    are loaded when something asks for them.
    """

    def __init__(
        self, folder: str | Path, module: PreferenceModule | None = None, rendering: Rendering = DEFAULT_RENDERING
    ):
        """
        Args:
            folder: The run folder, with config.yaml, metrics.csv, checkpoints, plots, report.html and policy/.
            module: The trained module, of `module.policy` and `module.loss`; None reads the folder.
            rendering: How the data were made token ids, which prompts to compare then are too; of a folder as its
                config.yaml says.

        Raises `Refusal` where there is no such folder.
        """
        self.module = module
        self.rendering = rendering
        self._opened: Opened | None = None
        self._named = Path(folder)
        if not self._named.is_dir():
            raise Refusal(f"folder must be a run folder, got {str(folder)!r}, which is none")
        self._absolute, self._identity = self._named.absolute(), _identity(self._named)

    @property
    def folder(self) -> Path:
        """Where the run folder lies: where it was, or beside that under a number, once another run has taken its place.
        Raises `Refusal` where it is gone."""
        aside = sorted(self._absolute.parent.glob(f"{glob.escape(self._absolute.name)}.*"))
        for place in (self._named, self._absolute, *aside):
            if _identity(place) == self._identity:
                return place
        raise Refusal(f"folder must stay where the run was, or beside it under a number, got none at {self._named}")

    def __repr__(self) -> str:
        if self.module is None:
            return f"Run({str(self._named)!r})"
        return f"Run({str(self._named)!r}: {type(self.module.loss).__name__} on {self.module.policy.source})"

    @property
    def policy(self) -> Any:
        """The aligned model, ready to generate: peft's PeftModel, or with all weights trained a transformers model."""
        model = self._of_folder.sides[1].model if self.module is None else self.module.policy.loaded
        return model.eval()

    @property
    def tokenizer(self) -> Any:
        """The policy's tokenizer."""
        return self._of_folder.sides[1].tokenizer if self.module is None else self.module.policy.tokenizer

    @property
    def _of_folder(self) -> Opened:
        """The two sides as the folder holds them. Raises `Refusal` where it holds no policy."""
        if self._opened is None:
            self._opened = opened(self.folder)
        return self._opened

    @property
    def metrics(self) -> "pd.DataFrame":
        """A row for each number logged: step (from 0), split (train or val), metric, value."""
        from lightning_bnf.results.tables import read_metrics

        return read_metrics(self.folder)

    def plot(self) -> "Figure":
        """Log-probabilities of chosen and rejected answers over the run, and their shifts from the reference."""
        from lightning_bnf.results.plots import plot_logps

        return plot_logps(self.metrics)

    def report(self, height: int = 800) -> TokenView:
        """Write report.html into the run folder, and show it where this is a notebook cell's last line.

        height: of the frame, in pixels
        """
        return TokenView(write_report(self.folder).read_text(encoding="utf-8"), height)

    def compare(
        self, prompts: str | Sequence[Any], max_new_tokens: int = 128, temperature: float = 0.0
    ) -> "pd.DataFrame":
        """Answers of the model before and after, side by side: columns prompt, before, after.

        Args:
            prompts: Strings, or lists of messages; made token ids as the data of the run were.
            max_new_tokens: Tokens after which an answer is cut off.
            temperature: Of the sampling; 0 is greedy.

        Raises `Refusal` where all weights were trained without a frozen copy beside them: what was before is gone; and
        where the adapters were taken out of the policy.
        """
        import pandas as pd

        from lightning_bnf.results.tables import side_by_side

        asked = [prompts] if isinstance(prompts, str) else list(prompts)
        sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
        said: dict[str, list[str]] = {
            "prompt": [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in asked]
        }
        for when, (side, renderer) in zip(("before", "after"), self._sides(), strict=True):
            ids = [renderer.prompt_ids(prompt if isinstance(prompt, str) else tuple(prompt)) for prompt in asked]
            said[when] = [answer.text for answer in side.answers(ids, sampling)]
        return side_by_side(pd.DataFrame(said))

    def _sides(self) -> list[tuple[Side, Renderer]]:
        """What was before and what is now, and how each is asked."""
        if self.module is None:
            return [(side, self._of_folder.renderers[side.name]) for side in self._of_folder.sides]
        renderer = Renderer(self.tokenizer, self.rendering, self.module.policy.end_ids)
        return [(self._base(self.module), renderer), (Side(ALIGNED, self.policy, self.tokenizer), renderer)]

    def _base(self, module: PreferenceModule) -> Side:
        policy: Policy = module.policy
        if policy.adapters and not any(hasattr(layer, "lora_A") for layer in policy.loaded.modules()):
            raise Refusal(
                "policy must still hold its adapters to compare with, got one whose adapters were taken out (unload or "
                "merge_and_unload); they are in the run's policy/ folder"
            )
        if policy.adapters:
            return Side(BASE, policy.loaded, self.tokenizer, policy.as_it_started)
        if isinstance(module.reference, FrozenCopy):
            return Side(BASE, module.reference.policy.loaded, self.tokenizer)
        raise Refusal(
            "reference must be copy to compare with, where all weights are trained, got "
            f"{module.reference_kind}: what the model was before is gone"
        )
