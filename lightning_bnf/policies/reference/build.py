"""From a reference's name to its provider."""

from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.lora import LoRAPolicy
from lightning_bnf.policies.reference.cached import CachedReference, open_cache
from lightning_bnf.policies.reference.providers import AdapterOff, FrozenCopy, Reference, ReferenceKind
from lightning_bnf.training.support import Combination


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
