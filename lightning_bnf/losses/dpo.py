"""Direct Preference Optimization."""

from torch.nn.functional import logsigmoid

from lightning_bnf.logps import Completions
from lightning_bnf.losses.base import Examples, Loss, LossOutput, StepFacts


class DPO(Loss):
    """Direct Preference Optimization (Rafailov et al. 2023, Eq. 7), with the label smoothing of conservative DPO.

        L = -E[ (1 - e) log s(beta D) + e log s(-beta D) ]
        D = R_w - R_l,    R = log pi(y) - log ref(y)   (summed over the completion's tokens)

        symbol   argument          meaning
        beta     beta              strength of the tie to the reference, > 0
        e        label_smoothing   assumed share of swapped labels, in [0, 0.5)

    Takes pairs (P) of completions, returns a value for each pair, (P,). Raises ValueError for arguments out of range.
    """

    needs_reference = True
    needs_pairs = True

    def __init__(self, beta: float = 0.1, label_smoothing: float = 0.0):
        """
        Args:
            beta: Strength of the tie to the reference (> 0, no unit).
            label_smoothing: Assumed share of swapped labels (at least 0, below 0.5).
        """
        if not beta > 0:
            raise ValueError(f"beta {beta}: accepted are numbers > 0")
        if not 0 <= label_smoothing < 0.5:
            raise ValueError(f"label_smoothing {label_smoothing}: accepted are numbers from 0 to below 0.5")
        self.beta = beta
        self.label_smoothing = label_smoothing

    @property
    def reward_scale(self) -> float:
        return self.beta

    def __call__(
        self, policy: Completions, reference: Completions | None, examples: Examples, step: StepFacts
    ) -> LossOutput:
        assert reference is not None
        logratios = policy.sum() - reference.sum()  # (B,)
        margin = self.beta * examples.chosen_minus_rejected(logratios)  # (P,)
        e = self.label_smoothing
        return LossOutput(-(1 - e) * logsigmoid(margin) - e * logsigmoid(-margin))
