"""Policies and references: models behind one interface, from micro-batch to token log-probabilities."""

from lightning_bnf.policies.base import Policy, PolicyError, PolicyOutput
from lightning_bnf.policies.full import FullPolicy
from lightning_bnf.policies.lora import LoRAPolicy
from lightning_bnf.policies.qlora import QLoRAPolicy

POLICIES: tuple[type[Policy], ...] = (FullPolicy, LoRAPolicy, QLoRAPolicy)
"""Those that can be trained and that come with the package, for tables; any other is used by its class path."""

__all__ = ["POLICIES", "FullPolicy", "LoRAPolicy", "Policy", "PolicyError", "PolicyOutput", "QLoRAPolicy"]
