"""The losses, one file each; see `base` for the contract."""

from lightning_bnf.losses.base import Completions, Examples, Loss, LossOutput, StepFacts, TokenLoss, Tokens
from lightning_bnf.losses.bnf import BNF
from lightning_bnf.losses.dpo import DPO
from lightning_bnf.losses.nll_pll import NLLPLL
from lightning_bnf.losses.sft import SFT

__all__ = [
    "BNF",
    "DPO",
    "NLLPLL",
    "SFT",
    "Completions",
    "Examples",
    "Loss",
    "LossOutput",
    "StepFacts",
    "TokenLoss",
    "Tokens",
]
