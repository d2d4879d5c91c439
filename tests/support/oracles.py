"""Slow, obviously right versions to compare with: full vocabulary, float64, written as in the paper."""

import torch
from torch import Tensor


def bnf_target(logits: Tensor, ref_logits: Tensor, y: Tensor) -> Tensor:
    """The dynamic target distribution f of Eq. 6: logits (N, V), token ids (N,) -> (N, V), detached."""
    pi, ref = logits.detach().softmax(-1), ref_logits.detach().softmax(-1)
    pi_y, ref_y = pi.gather(-1, y[:, None]), ref.gather(-1, y[:, None])  # (N, 1)
    f_y = (pi_y / ref_y).clamp(max=1)
    f = (1 - f_y) / (1 - pi_y) * pi
    return f.scatter(-1, y[:, None], f_y)


def bnf_eq4(logits: Tensor, ref_logits: Tensor, y: Tensor, row: Tensor, length: Tensor, label: Tensor) -> Tensor:
    """Eq. 4 for each completion, (B,): logits (N, V) of all tokens, row (N,), length and label (B,)."""
    f = bnf_target(logits, ref_logits, y)
    per_token = (f * logits.log_softmax(-1)).sum(-1)  # (N,)
    return -label.double() / length * per_token.new_zeros(len(length)).index_add(0, row, per_token)


def bnf_listing(logits: Tensor, ref_logits: Tensor, y: Tensor, length: Tensor, label: Tensor) -> Tensor:
    """Appendix B as printed: logits (B, T, V), tokens (B, T), length and label (B,) -> a sum, sign flipped."""
    policy_logp, ref_logp = logits.log_softmax(-1), ref_logits.log_softmax(-1)
    response = policy_logp.gather(-1, y[..., None]).squeeze(-1)
    response_ref = ref_logp.gather(-1, y[..., None]).squeeze(-1)
    others = (policy_logp.exp().detach() * policy_logp).sum(-1) - response.exp().detach() * response
    target = torch.clamp(response.exp() / response_ref.exp(), max=1).detach()
    others_target = (1 - target) / (1 - response.exp().detach())
    return ((target * response + others_target * others).sum(-1) * label / length).sum()


def full_token_logps(model: torch.nn.Module, ids: list[int], start: int) -> Tensor:
    """Log-probs of ids[start:] given all before, one sequence alone, from the model's own full logits."""
    logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    return logits.log_softmax(-1)[torch.arange(start - 1, len(ids) - 1), torch.tensor(ids[start:])]
