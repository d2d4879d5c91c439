"""The losses, one file each; see `base` for the contract."""

from lightning_bnf.losses.base import (
    Completions,
    Examples,
    Loss,
    LossOutput,
    PairLoss,
    Pairs,
    StepFacts,
    TokenLoss,
    Tokens,
)
from lightning_bnf.losses.bnf import BNF
from lightning_bnf.losses.dpo import DPO
from lightning_bnf.losses.ipo import IPO
from lightning_bnf.losses.nll_pll import NLLPLL
from lightning_bnf.losses.orpo import ORPO
from lightning_bnf.losses.rdpo import RDPO
from lightning_bnf.losses.sft import SFT
from lightning_bnf.losses.simpo import SimPO
from lightning_bnf.losses.slic import SLiC

__all__ = [
    "BNF",
    "DPO",
    "IPO",
    "NLLPLL",
    "ORPO",
    "RDPO",
    "SFT",
    "Completions",
    "Examples",
    "Loss",
    "LossOutput",
    "PairLoss",
    "Pairs",
    "SLiC",
    "SimPO",
    "StepFacts",
    "TokenLoss",
    "Tokens",
]
