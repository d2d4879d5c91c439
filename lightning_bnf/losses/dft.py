"""Dynamic fine-tuning."""

from torch import Tensor

from lightning_bnf.losses.base import StepContext
from lightning_bnf.losses.tokens import TokenLoss, Tokens


class DFT(TokenLoss):
    """Dynamic Fine-Tuning (Wu et al. 2025, arXiv 2508.05629): fine-tuning with each token weighed by its own
    probability.

        L = mean over the step's tokens of -sg[pi(y_t)] log pi(y_t)

    No arguments. Dispreferred completions are not used. Takes completions (B), returns a value for each, (B,), whose
    mean over the examples is the mean over all the step's tokens.
    """

    needs_reference = False
    labels = (1,)
    learning_rate = 2e-5
    adapter_learning_rate = 2e-4

    def token_weight(self, tokens: Tokens, step: StepContext) -> Tensor:
        preferred = (tokens.label > 0).to(tokens.policy.dtype)
        return preferred * tokens.policy.exp() * step.token_mean
