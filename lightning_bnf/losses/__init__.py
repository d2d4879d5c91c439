"""The losses, one file each; see `base` for the contract."""

from typing import Any

from lightning_bnf.losses.aot import AOT, AOTUnpaired
from lightning_bnf.losses.apo import APODown, APOZero
from lightning_bnf.losses.asft import ASFT
from lightning_bnf.losses.base import (
    Completions,
    Examples,
    Loss,
    LossOutput,
    StepContext,
    StepLogps,
)
from lightning_bnf.losses.bco import BCO
from lightning_bnf.losses.bnf import BNF
from lightning_bnf.losses.cal_dpo import CalDPO
from lightning_bnf.losses.cpo import CPO
from lightning_bnf.losses.d2o import D2O
from lightning_bnf.losses.dft import DFT
from lightning_bnf.losses.discopop import DiscoPOP
from lightning_bnf.losses.dpo import DPO
from lightning_bnf.losses.dpop import DPOP
from lightning_bnf.losses.exo import EXO
from lightning_bnf.losses.ipo import IPO
from lightning_bnf.losses.kto import KTO
from lightning_bnf.losses.lcpo import LCPO
from lightning_bnf.losses.ld_dpo import LDDPO
from lightning_bnf.losses.madpo import MADPO
from lightning_bnf.losses.nca import NCA
from lightning_bnf.losses.nll_pll import NLLPLL
from lightning_bnf.losses.npo import NPO
from lightning_bnf.losses.orpo import ORPO
from lightning_bnf.losses.pairs import PairLoss, Pairs, Side
from lightning_bnf.losses.poft import PoFT
from lightning_bnf.losses.rdpo import RDPO
from lightning_bnf.losses.robust_dpo import RobustDPO
from lightning_bnf.losses.rso import RSOHinge
from lightning_bnf.losses.sft import SFT
from lightning_bnf.losses.sigmoid_norm import SigmoidNorm
from lightning_bnf.losses.simnpo import SimNPO
from lightning_bnf.losses.simper import SimPER
from lightning_bnf.losses.simpo import SimPO
from lightning_bnf.losses.slic import SLiC
from lightning_bnf.losses.spo import SPO
from lightning_bnf.losses.sppo import SPPO
from lightning_bnf.losses.sum import Sum, Term
from lightning_bnf.losses.tokens import TokenLoss, Tokens

__all__ = [
    "AOT",
    "ASFT",
    "BCO",
    "BNF",
    "CPO",
    "D2O",
    "DFT",
    "DPO",
    "DPOP",
    "EXO",
    "IPO",
    "KTO",
    "LCPO",
    "LDDPO",
    "MADPO",
    "NCA",
    "NLLPLL",
    "NPO",
    "ORPO",
    "RDPO",
    "SFT",
    "SPO",
    "SPPO",
    "AOTUnpaired",
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
    "PoFT",
    "RSOHinge",
    "RobustDPO",
    "SLiC",
    "Side",
    "SigmoidNorm",
    "SimNPO",
    "SimPER",
    "SimPO",
    "StepContext",
    "StepLogps",
    "Sum",
    "Term",
    "TokenLoss",
    "Tokens",
]

_SUMS = {
    "DPONLL": "configs/loss/dpo_nll.yaml, where SFT's weight is alpha",
    "RPO": "configs/loss/rpo.yaml, where SFT's weight is eta x beta",
}
"""Former classes -> the sum of losses that each of them is."""


def __getattr__(name: str) -> Any:
    """Refuse (AttributeError) former classes, which saved configs may name, with the YAML that takes their place."""
    if name in _SUMS:
        raise AttributeError(f"{name} is the sum of DPO and SFT: use --model.loss {_SUMS[name]}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
