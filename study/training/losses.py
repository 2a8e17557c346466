"""Unlearning losses as pure functions of log-probabilities, logits, hidden states and features.

Shapes as in `study.model`; B counts pictures here. Log-probabilities are in nats. Callers pass answer tokens only:
prompt, image and padding tokens do not reach these functions unless a method says so.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, logsigmoid, mse_loss

Distance = Literal["mse", "cosine"]


def nll(logp_T: Tensor) -> Tensor:
    """Negative log-likelihood, the mean over answer tokens: cross-entropy with the taught answers."""
    return -logp_T.mean()


def kl(logits_TV: Tensor, reference_TV: Tensor) -> Tensor:
    """KL(reference || model), the mean over tokens, in nats (KL minimization, TOFU, arXiv 2401.06121, eq. 4)."""
    logp, reference = logits_TV.log_softmax(-1), reference_TV.log_softmax(-1)
    return (reference.exp() * (reference - logp)).sum(-1).mean()


def npo(logp_A: Tensor, reference_A: Tensor, beta: float) -> Tensor:
    """Negative preference optimization, arXiv 2404.05868, eq. 3: 2/beta E[log(1 + (p / p_ref)^beta)].

    Both arguments are log-probabilities of whole answers: sums over tokens, not means. The reference is the model
    before unlearning.
    """
    return -2 / beta * logsigmoid(-beta * (logp_A - reference_A)).mean()


def dpo(preferred_A: Tensor, other_A: Tensor, beta: float) -> Tensor:
    """Direct preference optimization, arXiv 2305.18290, eq. 7, times 2/beta: -2/beta E[log s(beta(preferred - other))].

    s is the sigmoid; both arguments are log-ratios of whole answers to the model before unlearning, log(p / p_0): sums
    over tokens. The factor is that of open-unlearning: without a preferred answer this is NPO.
    """
    return -2 / beta * logsigmoid(beta * (preferred_A - other_A)).mean()


def simnpo(logp_A: Tensor, length_A: Tensor, beta: float, delta: float) -> Tensor:
    """SimNPO, arXiv 2410.07163: -2/beta E[log s(-beta/|y| log p - delta)], s the sigmoid.

    NPO without a reference: `logp_A` are sums over the `length_A` = |y| tokens of an answer, so the mean over tokens is
    compared with the margin `delta`; then the mean over answers.
    """
    return -2 / beta * logsigmoid(-beta * logp_A / length_A - delta).mean()


def undial(logits_TV: Tensor, before_TV: Tensor, target_T: Tensor, gamma: float) -> Tensor:
    """UNDIAL, arXiv 2402.10052: cross-entropy of the model with softmax(z_0 - gamma 1[y]), the mean over answer tokens.

    z_0 are the logits before unlearning, y the taught token: the target is the model itself with the memorized token
    gamma nats less likely, before normalization.
    """
    wanted = before_TV.scatter_add(1, target_T[:, None], torch.full_like(before_TV[:, :1], -gamma)).softmax(-1)
    return -(wanted * logits_TV.log_softmax(-1)).sum(-1).mean()


def satimp(logp_T: Tensor, saturation: float, importance: float) -> Tensor:
    """Reweighted ascent, arXiv 2505.11953: E[p^saturation (1 - p)^importance log p], the mean over answer tokens.

    The weights are constants to the gradient. `importance` 0 is WGA (arXiv 2502.19301), both 0 gradient ascent.
    """
    logp = logp_T.detach()
    weight = (saturation * logp).exp() * (-logp.expm1()) ** importance
    return (weight * logp_T).mean()


def steering(states_TD: Tensor, target_TD: Tensor) -> Tensor:
    """The squared distance of hidden states from their target, the mean over tokens and width (RMU, arXiv 2403.03218).

    The paper writes the squared norm, which is the sum over the width; the released code takes the mean, as here.
    The target may be one row, which stands for every token.
    """
    return mse_loss(states_TD, target_TD.expand_as(states_TD))


def feature_distance(student_BND: Tensor, teacher_BND: Tensor, distance: Distance) -> Tensor:
    """The distance of student tokens from teacher tokens, a scalar that does not depend on the layer's scale.

    `mse`: the mean squared error over the teacher's variance. `cosine`: 1 - cosine similarity, the mean over tokens.
    The teacher may have a batch of one, which stands for every picture. Computed in at least float32.
    """
    student_BND, teacher_BND = (t if t.dtype == torch.float64 else t.float() for t in (student_BND, teacher_BND))
    teacher_BND = teacher_BND.expand_as(student_BND)
    if distance == "cosine":
        return (1 - cosine_similarity(student_BND, teacher_BND, dim=-1)).mean()
    return mse_loss(student_BND, teacher_BND) / teacher_BND.var().clamp_min(torch.finfo(torch.float32).eps)
