"""SimPER."""

from torch import Tensor

from lightning_bnf.losses.pairs import PairLoss, Pairs


class SimPER(PairLoss):
    """Simple alignment by inverse perplexity (Xiao et al. 2025, arXiv 2502.00883); no hyper-parameters, no reference.

        L = E[ -exp(A_w) + exp(A_l) ],    A = mean token log-prob of the completion

    Takes pairs (P), returns a value for each, (P,), in [-1, 1].
    """

    needs_reference = False

    def pair_loss(self, pairs: Pairs) -> Tensor:
        return pairs.rejected.mean_logps.exp() - pairs.chosen.mean_logps.exp()
