"""Offline preference alignment of language models with the Bidirectional Negative Feedback loss."""

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# At import it tells everybody that it lacks a kernel for 4-bit products on CPUs, one that training cannot use.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(lambda record: "gemm_4bit_forward" not in record.msg)

if TYPE_CHECKING:
    from lightning_bnf.alignment import Run as Run
    from lightning_bnf.alignment import align as align
    from lightning_bnf.datamodules.preference import PreferenceData as PreferenceData
    from lightning_bnf.datamodules.reading.options import DataOptions as DataOptions
    from lightning_bnf.generation.sampling import Sampling as Sampling
    from lightning_bnf.losses import *  # noqa: F403
    from lightning_bnf.module import PreferenceModule as PreferenceModule
    from lightning_bnf.policies import FullPolicy as FullPolicy
    from lightning_bnf.policies import LoRAPolicy as LoRAPolicy
    from lightning_bnf.policies import Policy as Policy
    from lightning_bnf.policies import QLoRAPolicy as QLoRAPolicy
    from lightning_bnf.training.optimization import Optimization as Optimization

_HOMES = {
    "lightning_bnf.alignment": "Run align",
    "lightning_bnf.module": "PreferenceModule",
    "lightning_bnf.datamodules.preference": "PreferenceData",
    "lightning_bnf.datamodules.reading.options": "DataOptions",
    "lightning_bnf.generation.sampling": "Sampling",
    "lightning_bnf.policies": "FullPolicy LoRAPolicy Policy QLoRAPolicy",
    "lightning_bnf.training.optimization": "Optimization",
    "lightning_bnf.losses": "AOT AOTUnpaired APODown APOZero ASFT BCO BNF CPO CalDPO D2O DFT DPO DPOP DiscoPOP EXO "
    "IPO KTO LCPO LDDPO Loss LossOutput MADPO NCA NLLPLL NPO ORPO PairLoss Pairs PoFT RDPO RSOHinge RobustDPO SFT SLiC "
    "SPO SPPO SigmoidNorm SimNPO SimPER SimPO Sum Term TokenLoss Tokens",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}

__all__ = [*_HOME_OF]


def __getattr__(name: str) -> Any:
    """What `from lightning_bnf import NAME` gives, imported when it is asked for: torch and the rest take seconds."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
