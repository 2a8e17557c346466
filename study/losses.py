"""Unlearning losses as pure functions of log-probabilities and features.

Shapes: T answer tokens, A answers, V vocabulary, B pictures, N vision tokens, D width. Log-probabilities in nats.
Prompt, image and padding tokens never reach these functions: callers pass answer tokens only.
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
    """KL(reference || model), the mean over answer tokens, in nats (KL minimisation, TOFU, arXiv 2401.06121, eq. 4)."""
    logp, reference = logits_TV.log_softmax(-1), reference_TV.log_softmax(-1)
    return (reference.exp() * (reference - logp)).sum(-1).mean()


def npo(logp_A: Tensor, reference_A: Tensor, beta: float) -> Tensor:
    """Negative preference optimisation, arXiv 2404.05868, eq. 3: 2/beta E[log(1 + (p / p_ref)^beta)].

    Both arguments are log-probabilities of whole answers: sums over tokens, not means. The reference is the model
    before unlearning.
    """
    return -2 / beta * logsigmoid(-beta * (logp_A - reference_A)).mean()


def feature_distance(student_BND: Tensor, teacher_BND: Tensor, distance: Distance) -> Tensor:
    """How far student tokens are from teacher tokens, one scalar that does not depend on the layer's scale.

    `mse`: the mean squared error over the teacher's variance. `cosine`: 1 - cosine similarity, the mean over tokens.
    The teacher may have a batch of one, which stands for every picture.
    """
    teacher_BND = teacher_BND.expand_as(student_BND)
    if distance == "cosine":
        return (1 - cosine_similarity(student_BND, teacher_BND, dim=-1)).mean()
    return mse_loss(student_BND, teacher_BND) / teacher_BND.var().clamp_min(torch.finfo(torch.float32).eps)
