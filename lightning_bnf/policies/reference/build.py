"""From a reference's name to its provider."""

from lightning_bnf.policies.base import Policy, PolicyError
from lightning_bnf.policies.reference.cached import CachedReference, open_cache
from lightning_bnf.policies.reference.providers import AdapterOff, FrozenCopy, Reference, ReferenceKind


def reference_refusal(reference: str, policy: type[Policy]) -> str | None:
    """Why this kind of policy cannot have this reference, as a sentence; None where it can."""
    accepted = ("auto", *policy.references, "none")
    if reference in accepted:
        return None
    return f"reference must be {_any_of(accepted)} with {policy.__name__}, got {reference}"


def check_reference(kind: ReferenceKind, policy: Policy, needed: bool) -> str:
    """What `kind` comes to for this policy; raises `PolicyError` for what contradicts, before anything is loaded."""
    refusal = reference_refusal(kind, type(policy))
    if kind == "none" and needed:
        refusal = f"reference must be {_any_of(('auto', *policy.references))} with a loss that needs one, got none"
    if kind == "copy" and not policy.reference_is_start:
        refusal = "reference must be adapter_off or cache with reference_of: base, as a copy is of the start, got copy"
    if refusal:
        raise PolicyError(refusal)
    if not needed:
        return "none"
    return policy.references[0] if kind == "auto" else kind


def build_reference(
    kind: str, policy: Policy, folder: str | None = None, rank: int = 0, precision: str = "32-true"
) -> Reference | None:
    """The provider that `check_reference` named, for a loaded policy; `folder`, `rank` and the run's `precision` are of
    the cache. Raises `PolicyError` where it would be made of weights that a run has trained."""
    if policy.trained and (kind == "copy" or (kind == "cache" and not policy.adapters)):
        raise PolicyError(
            f"policy must be one that no run has trained with reference {kind}, got a {type(policy).__name__} that one "
            "has: what it was before is gone"
        )
    if kind == "none":
        return None
    if kind == "cache":
        return CachedReference(open_cache(policy, folder, rank, precision))
    return AdapterOff(policy) if kind == "adapter_off" else FrozenCopy(policy)


def _any_of(names: tuple[str, ...]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
