"""Policies and references: models behind one interface, from micro-batch to token log-probabilities."""

from lightning_bnf.policies.base import Policy, PolicyError, PolicyOutput
from lightning_bnf.policies.full import FullPolicy
from lightning_bnf.policies.lora import LoRAPolicy
from lightning_bnf.policies.qlora import QLoRAPolicy

__all__ = ["FullPolicy", "LoRAPolicy", "Policy", "PolicyError", "PolicyOutput", "QLoRAPolicy"]
