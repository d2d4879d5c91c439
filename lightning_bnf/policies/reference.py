"""The reference: a provider of one number for each completion token."""

import contextlib
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from tqdm import tqdm

from lightning_bnf.batch import MicroBatch
from lightning_bnf.datamodules.cache import LogpsCache
from lightning_bnf.datamodules.layout import PADDED, PlannedBatch
from lightning_bnf.distributed import gather_objects
from lightning_bnf.policies.base import Policy, PolicyError, evaluating
from lightning_bnf.policies.fingerprint import content_hash, tokenizer_fingerprints, weights_fingerprint
from lightning_bnf.policies.lora import LoRAPolicy
from lightning_bnf.strategies import Combination
from lightning_bnf.user_cache import cache_folder

LOCK_SECONDS = 30.0  # that rank 0 waits for a lock before it lets the others know

ReferenceKind = Literal["auto", "adapter_off", "copy", "cache", "none"]


class Reference(nn.Module, ABC):
    """Gives the reference's token log-probs (N,) of a micro-batch, without gradients and without dropout."""

    @abstractmethod
    def forward(self, batch: MicroBatch) -> Tensor: ...

    def state_dict(self, *args: Any, destination: Any = None, **kwargs: Any) -> Any:
        """Nothing: a reference is loaded, never restored."""
        return {} if destination is None else destination


class AdapterOff(Reference):
    """The policy with its adapters off, or with the adapter that it started from: no second model."""

    def __init__(self, policy: LoRAPolicy):
        super().__init__()
        self._policy = (policy,)  # in a tuple, so that the policy's weights are not counted twice

    def forward(self, batch: MicroBatch) -> Tensor:
        (policy,) = self._policy
        with evaluating(policy), policy.as_it_started():
            return policy(batch).token_logps


class AsItIs(Reference):
    """The policy itself, which is its own reference as long as it has not been trained."""

    def __init__(self, policy: Policy):
        super().__init__()
        self._policy = (policy,)

    def forward(self, batch: MicroBatch) -> Tensor:
        with evaluating(self._policy[0]):
            return self._policy[0](batch).token_logps


class FrozenCopy(Reference):
    """A frozen copy of the policy as it was loaded."""

    def __init__(self, policy: Policy):
        super().__init__()
        self.policy = copy.deepcopy(policy).requires_grad_(False).eval()

    def forward(self, batch: MicroBatch) -> Tensor:
        with evaluating(self.policy):
            return self.policy(batch).token_logps


class CachedReference(Reference):
    """Log-probs that were stored before: no second model, and no second forward pass."""

    def __init__(self, cache: LogpsCache):
        super().__init__()
        self.cache = cache

    def forward(self, batch: MicroBatch) -> Tensor:
        return self.cache.get(batch.keys, batch.row_ids).to(batch.target.device, non_blocking=True)

    def fill(
        self, reference: Callable[[MicroBatch], Tensor] | None, batches: Sequence[PlannedBatch], device: torch.device
    ) -> None:
        """Add what the cache lacks of some micro-batches, with a progress bar; killed, the next run goes on.

        Raises `PolicyError` where something is lacking and there is no `reference` to compute it.
        """
        counts = gather_objects(sum(len(batch.content_keys()) for batch in self._lacking(batches)))
        if any(counts) and reference is None:
            raise PolicyError(
                f"reference cache {self.cache.folder}: {sum(counts)} completions are lacking, and"
                " the policy is no longer its reference; accepted: a cache filled before training "
                "(python -m lightning_bnf cache --config FILE)"
            )
        if any(counts) and reference is not None:
            with self._alone():
                self._fill(reference, batches, device)
        self.cache.reload()

    def _fill(
        self, reference: Callable[[MicroBatch], Tensor], batches: Sequence[PlannedBatch], device: torch.device
    ) -> None:
        self.cache.reload(mend=True)
        lacking = self._lacking(batches)
        # Every rank runs equally many, some of them empty: under FSDP2 all take part in each other's forward passes.
        lacking += [PlannedBatch([], PADDED)] * (max(gather_objects(len(lacking))) - len(lacking))
        title = f"Reference log-probs into {self.cache.folder}"
        for planned in tqdm(lacking, desc=title, delay=3, unit=" batches", disable=self.cache.rank > 0):
            batch = planned.batch()
            self.cache.add(batch.keys, reference(batch.to(device)).split(batch.length.tolist()))
        gather_objects(None)  # until all have written

    def _lacking(self, batches: Sequence[PlannedBatch]) -> list[PlannedBatch]:
        return [batch for batch in batches if any(key not in self.cache for key in batch.content_keys())]

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One run at a time writes into the folder: another that does so is waited for, on all ranks."""
        lock = FileLock(self.cache.folder / "writing.lock")
        waited = 0.0
        while not any(gather_objects(self.cache.rank == 0 and _acquired(lock, waited))):  # in turns: ranks time out
            if not waited:
                rank_zero_info(f"reference cache {self.cache.folder}: another run is filling it, which is waited for")
            waited = LOCK_SECONDS
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


def open_cache(policy: Policy, folder: str | None, rank: int) -> LogpsCache:
    """The cache of the loaded policy's reference: its own folder below the user's cache, or `folder`."""
    reference = policy.causal_lm
    manifest = {
        "weights": weights_fingerprint(reference, frozen_only=isinstance(policy, LoRAPolicy)),
        "dtype": str(reference.dtype).removeprefix("torch."),
        **policy.reference_facts(),
        **tokenizer_fingerprints(policy.tokenizer),
    }
    chosen = Path(folder) if folder else cache_folder() / "reference" / content_hash(manifest)
    return LogpsCache(chosen, manifest, rank)


def check_reference(kind: ReferenceKind, policy: Policy, needed: bool) -> str:
    """What `kind` comes to for this policy; raises `PolicyError` for what contradicts, before anything is loaded."""
    if kind == "none" and needed:
        raise PolicyError(
            "reference 'none': the loss needs a reference; accepted are auto, adapter_off, copy and cache"
        )
    refusal = Combination(policy.kind, "one device", kind, "32-true", "cpu").refusal()
    if refusal:
        raise PolicyError(refusal)
    if not needed:
        return "none"
    return policy.default_reference if kind == "auto" else kind


def build_reference(kind: str, policy: Policy, folder: str | None = None, rank: int = 0) -> Reference | None:
    """The provider that `check_reference` named, for a loaded policy; `folder` and `rank` are of the cache."""
    if kind == "none":
        return None
    if kind == "cache":
        return CachedReference(open_cache(policy, folder, rank))
    return AdapterOff(policy) if isinstance(policy, LoRAPolicy) and kind == "adapter_off" else FrozenCopy(policy)
