"""Calibrated DPO."""

from torch import Tensor
from torch.nn.functional import logsigmoid

from lightning_bnf.losses.pairs import PairLoss, Pairs
from lightning_bnf.runtime.arguments import NonNegativeFloat, PositiveFloat


class CalDPO(PairLoss):
    """Calibrated DPO (Xiao et al. 2024, arXiv 2412.14516): implicit rewards are tied to +1/2 and -1/2 as well.

        L = E[ -log s(D) + c ((R_w - 1/(2 beta))^2 + (R_l + 1/(2 beta))^2) ],    D = R_w - R_l,  R = summed log-ratio

        symbol   argument      meaning
        beta     beta          sets the rewards' targets at +-1/(2 beta) nats, > 0
        c        calibration   weight of the calibration, >= 0

    Takes pairs (P), returns a value for each, (P,). Raises Refusal for arguments out of range.
    """

    needs_reference = True
    logratios_only = True

    def __init__(self, beta: PositiveFloat = 0.001, calibration: NonNegativeFloat = 0.5):
        """
        Args:
            beta: Sets the targets of the log-ratios at +-1/(2 beta) (> 0, 1/nats).
            calibration: Weight of the calibration (>= 0).
        """
        self.beta = beta
        self.calibration = calibration

    def pair_loss(self, pairs: Pairs) -> Tensor:
        target = 1 / (2 * self.beta)
        chosen, rejected = pairs.chosen.logratios, pairs.rejected.logratios
        return -logsigmoid(chosen - rejected) + self.calibration * ((chosen - target) ** 2 + (rejected + target) ** 2)
