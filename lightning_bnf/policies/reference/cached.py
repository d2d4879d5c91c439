"""The reference as numbers that were stored before."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.steps.layout import PADDED, PlannedBatch, ToScore
from lightning_bnf.datamodules.tokens.columns import key_numbers
from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.reference.providers import Reference
from lightning_bnf.policies.reference.store import LogpsCache
from lightning_bnf.runtime.distributed import gather_objects
from lightning_bnf.runtime.files import cache_folder
from lightning_bnf.runtime.fingerprints import (
    config_entries,
    content_hash,
    tokenizer_fingerprints,
    weights_fingerprint,
)
from lightning_bnf.runtime.progress import Progress

LOCK_SECONDS = 30.0  # that rank 0 waits for a lock before it lets the others know
LONG_TURNS = 20  # of these: where a disk has no locks of its own, one of a killed run stays


class CachedReference(Reference):
    """Log-probs that were stored before: no second model, and no second forward pass."""

    def __init__(self, cache: LogpsCache):
        super().__init__()
        self.cache = cache

    def forward(self, batch: MicroBatch) -> Tensor:
        return self.cache.get(batch.keys, batch.row_ids).to(batch.target.device, non_blocking=True)

    def fill(self, reference: Callable[[MicroBatch], Tensor] | None, asked: ToScore, device: torch.device) -> None:
        """Add what the cache lacks of what is asked for, with a progress bar; killed, the next run goes on.

        Raises `PolicyError` where something is lacking and there is no `reference` to compute it.
        """
        lacking = max(gather_objects(int((~self.cache.holds(asked.keys)).sum())))
        if lacking and reference is None:
            raise PolicyError(
                f"reference cache {self.cache.folder}: must be filled before training (python -m lightning_bnf cache "
                f"--config FILE; in Python a fit with max_steps=0, or a test, of a new policy): {lacking} completions "
                "are lacking, and the policy is no longer its reference"
            )
        if lacking and reference is not None:
            with self._alone():
                self._fill(reference, asked.batches(), device)
        self.cache.reload()

    def _fill(
        self, reference: Callable[[MicroBatch], Tensor], batches: Sequence[PlannedBatch], device: torch.device
    ) -> None:
        self.cache.reload(mend=True)
        lacking = [batch for batch in batches if not self.cache.holds(key_numbers(batch.content_keys())).all()]
        # Every rank runs equally many, some of them empty: under FSDP2 all take part in each other's forward passes.
        lacking += [PlannedBatch([], PADDED)] * (max(gather_objects(len(lacking))) - len(lacking))
        title = f"Reference log-probs into {self.cache.folder}"
        with Progress(len(lacking), title, "batch", plural="batches", delay=3, shown=self.cache.rank == 0) as bar:
            for planned in lacking:
                batch = planned.batch()
                self.cache.add(batch.keys, reference(batch.to(device)).split(batch.length.tolist()))
                bar.update()
        for sizes in gather_objects(self.cache.written()):  # when all have written
            self.cache.await_files(sizes)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time writes into the folder: another that does so is waited for, on all ranks."""
        lock = FileLock(self.cache.folder / "writing.lock")
        turns = 0  # in turns: ranks time out
        while not any(gather_objects(self.cache.rank == 0 and _acquired(lock, LOCK_SECONDS if turns else 0.0))):
            if not turns:
                rank_zero_info(f"reference cache {self.cache.folder}: another run is filling it, which is waited for")
            turns += 1
            if turns == LONG_TURNS:
                rank_zero_info(
                    f"{lock.lock_file} has been held for {LONG_TURNS * LOCK_SECONDS / 60:.0f} minutes; if no run fills "
                    "this cache, one was killed on a disk without locks: remove that file, and this run goes on"
                )
        try:
            yield
        finally:
            lock.release()


def _acquired(lock: FileLock, seconds: float) -> bool:
    try:
        lock.acquire(timeout=seconds)
    except Timeout:
        return False
    return True


def untrained(policy: Policy, cache: LogpsCache) -> bool:
    """Whether the policy's weights are still those that the cache is of. Every rank has to call this."""
    return weights_fingerprint(policy.causal_lm) == cache.manifest["weights"]


def open_cache(policy: Policy, folder: str | None, rank: int, precision: str = "32-true") -> LogpsCache:
    """The cache of the loaded policy's reference: its own folder below the user's cache, or `folder`.

    precision: the Trainer's. Other than 32-true, it is said beside the type that the weights were loaded in, which then
    is not what is computed in. Under bf16-true the weights count as they are converted, whether they are yet or not.
    """
    reference, converted = policy.causal_lm, torch.bfloat16 if precision == "bf16-true" else None
    manifest = {
        "weights": weights_fingerprint(reference, policy.adapters, converted),
        "dtype": str(policy.dtype).removeprefix("torch."),
        **{f"config.{name}": value for name, value in config_entries(reference.config).items()},
        **({"precision": precision} if precision not in ("", "32-true") else {}),
        **policy.reference_description(),
        **tokenizer_fingerprints(policy.tokenizer),
    }
    chosen = Path(folder) if folder else cache_folder() / "reference" / content_hash(manifest)
    return LogpsCache(chosen, manifest, rank)
