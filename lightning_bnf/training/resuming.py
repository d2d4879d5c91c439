"""What a checkpoint's run was made with, held against the run that goes on from it.

A step is a place in the plan of certain rows, under a loss, beside a base. Where one of these is another, the steps
that are counted on from the checkpoint mean something else: that is refused unless the user has said so. Settings of
the optimization may be changed on the way: the new ones count, and that is said.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_bnf.datamodules.contract import ScoredData
from lightning_bnf.losses.base import Loss
from lightning_bnf.policies.base import Policy
from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.training.checkpoints import CheckpointError, check_fits, rng_state, set_rng_state, shapes_of
from lightning_bnf.training.optimization import Optimization
from lightning_bnf.training.optimizers import name_of

_NAMES = ("policy", "source", "revision", "dtype", "adapter")  # of a description: names, and what may be chosen anew
_BASE = "model.policy.source"
_CLASS = "model.optimizer"


class Resuming:
    """What a run writes into its checkpoints beside Lightning's part, and how another goes on from it."""

    def __init__(self, changed: bool = False):
        """changed: whether the steps may mean something else than in the checkpoint's run."""
        self.changed = changed
        self._settings: dict[str, str] = {}
        self._groups: list[dict[str, Any]] = []
        self._held: dict[str, str] | None = None
        self._rng: dict[str, Tensor] | None = None

    def written(self, policy: Policy, loss: Loss, data: ScoredData | None) -> dict[str, Any]:
        """For a checkpoint, on all ranks."""
        return {
            "trainable": shapes_of(policy.trainable()),
            "rng": gather_objects(rng_state()),
            "meaning": meaning_of(policy, loss, data),
            "settings": self._settings,
        }

    def read(
        self,
        checkpoint: Mapping[str, Any],
        policy: Policy,
        loss: Loss,
        data: ScoredData | None,
        max_steps: int,
        rank: int,
        ranks: int,
    ) -> None:
        """Hold a checkpoint against this run of so many steps, of any where below 0; `data` are None where nothing is
        trained. Raises `CheckpointError`."""
        check_fits(checkpoint, policy.trainable(), policy.state_dict())
        if data is not None and 0 <= max_steps < checkpoint["global_step"]:
            raise CheckpointError(
                f"trainer.max_steps must be at least {checkpoint['global_step']}, the step of the checkpoint to go on "
                f"from, got {max_steps}"
            )
        check_meaning(checkpoint["meaning"], meaning_of(policy, loss, data), self.changed)
        if data is not None:
            self._held = checkpoint["settings"]
            self._check_class()
            if len(checkpoint["rng"]) == ranks:
                self._rng = checkpoint["rng"][rank]

    def keeping(self, made: dict[str, Any], optimization: Optimization, precision: str, steps: float) -> dict[str, Any]:
        """The new optimizer with its schedule over so many `steps`, whose settings are kept before a checkpoint's
        replace them. Raises `CheckpointError` where the checkpoint is of another class of optimizer."""
        groups = made["optimizer"].param_groups
        self._groups = [{name: value for name, value in group.items() if name != "params"} for group in groups]
        found = asdict(optimization) | {"steps": steps}
        first = {name: value for name, value in self._groups[0].items() if name not in ("lr", "initial_lr", "hidden")}
        named = {f"optimization.{name}": value for name, value in found.items()}
        named |= {f"optimizer.{name}": value for name, value in first.items()} | {"precision": precision}
        self._settings = {name: str(value) for name, value in named.items()}
        self._settings[_CLASS] = name_of(made["optimizer"])
        self._check_class()
        return made

    def begin(self, schedule: torch.optim.lr_scheduler.LambdaLR, device: torch.device) -> None:
        """When all is restored: go on with this run's settings, as torch has put back the checkpoint's learning rate,
        weight decay and betas with the moments; and draw on as if there had been no interruption."""
        if self._held is not None:
            schedule.base_lrs = [group["initial_lr"] for group in self._groups]
            rates = [rate * factor(schedule.last_epoch) for rate, factor in zip(schedule.base_lrs, schedule.lr_lambdas)]
            for group, new, rate in zip(schedule.optimizer.param_groups, self._groups, rates):
                group |= new | {"lr": rate}
            schedule._last_lr = list(rates)
            differing = [
                f"{name} is {value} and was {self._held.get(name)}"
                for name, value in self._settings.items()
                if value != self._held.get(name)
            ]
            if differing:
                rank_zero_info(f"This run's settings count, not the checkpoint's: {'; '.join(differing)}.")
        if self._rng is not None:
            set_rng_state(self._rng, device)
        self._held = self._rng = None

    def _check_class(self) -> None:
        held = self._held and self._held.get(_CLASS)
        if held and self._settings and held != self._settings[_CLASS]:
            raise CheckpointError(
                f"{_CLASS} must be {held}, whose state the checkpoint holds, got {self._settings[_CLASS]}"
            )


def meaning_of(policy: Policy, loss: Loss, data: ScoredData | None) -> dict[str, str]:
    """What the steps of a run are about, by the settings that say it. `data` are None where nothing is trained."""
    found = {f"model.policy.{name}": str(value) for name, value in policy.description().items() if name not in _NAMES}
    found[_BASE] = policy.source if policy.revision is None else f"{policy.source} at {policy.revision}"
    found[f"{_BASE} (weights of {policy.weights_of})"] = str(policy.base_fingerprint)
    routed = {"model.router_loss": str(policy.router is not None)}
    return found if data is None else found | {"model.loss": str(loss)} | routed | data.meaning()


def check_meaning(held: Mapping[str, str], now: Mapping[str, str], changed: bool) -> None:
    """Raises `CheckpointError` where steps mean something else than in the checkpoint's run, unless they may.

    Compared is what both know: what one of them has none of must be among it, as None. Weights that are loaded in
    another type have another fingerprint under another name: then, and only then, the base's own names are compared.
    """
    known = now.keys() & held.keys()
    if any(name.startswith(f"{_BASE} (weights") for name in known):
        known -= {_BASE}
    differing = [
        f"{name} is {now[name]} and was {held[name]}" for name in now if name in known and now[name] != held[name]
    ]
    if differing and not changed:
        raise CheckpointError(
            "ckpt_path must be a checkpoint of a run of the same rows, seed, loss and base, or model.resume_changed "
            f"true, got one whose steps meant something else: {'; '.join(differing)}"
        )
    if differing:
        rank_zero_info(f"The checkpoint's steps meant something else: {'; '.join(differing)}.")
