"""The losses, one file each; see `base` for the contract."""

from lightning_bnf.losses.apo import APODown, APOZero
from lightning_bnf.losses.asft import ASFT
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
from lightning_bnf.losses.cal_dpo import CalDPO
from lightning_bnf.losses.cpo import CPO
from lightning_bnf.losses.dft import DFT
from lightning_bnf.losses.discopop import DiscoPOP
from lightning_bnf.losses.dpo import DPO
from lightning_bnf.losses.dpo_nll import DPONLL
from lightning_bnf.losses.dpop import DPOP
from lightning_bnf.losses.exo import EXO
from lightning_bnf.losses.ipo import IPO
from lightning_bnf.losses.nca import NCA
from lightning_bnf.losses.nll_pll import NLLPLL
from lightning_bnf.losses.npo import NPO
from lightning_bnf.losses.orpo import ORPO
from lightning_bnf.losses.rdpo import RDPO
from lightning_bnf.losses.robust_dpo import RobustDPO
from lightning_bnf.losses.rpo import RPO
from lightning_bnf.losses.rso import RSOHinge
from lightning_bnf.losses.sft import SFT
from lightning_bnf.losses.sigmoid_norm import SigmoidNorm
from lightning_bnf.losses.simnpo import SimNPO
from lightning_bnf.losses.simper import SimPER
from lightning_bnf.losses.simpo import SimPO
from lightning_bnf.losses.slic import SLiC

__all__ = [
    "ASFT",
    "BNF",
    "CPO",
    "DFT",
    "DPO",
    "DPONLL",
    "DPOP",
    "EXO",
    "IPO",
    "NCA",
    "NLLPLL",
    "NPO",
    "ORPO",
    "RDPO",
    "RPO",
    "SFT",
    "APODown",
    "APOZero",
    "CalDPO",
    "Completions",
    "DiscoPOP",
    "Examples",
    "Loss",
    "LossOutput",
    "PairLoss",
    "Pairs",
    "RSOHinge",
    "RobustDPO",
    "SLiC",
    "SigmoidNorm",
    "SimNPO",
    "SimPER",
    "SimPO",
    "StepFacts",
    "TokenLoss",
    "Tokens",
]
