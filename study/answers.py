"""How likely a model finds the answers of a packed batch. Shapes: T answer tokens, A answers; all in nats."""

from __future__ import annotations

from torch import Tensor

from study import losses
from study.packing import Batch, answer_sums, logits, token_logps
from study.vlm import VLM


def logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each answer token, (T,)."""
    return token_logps(logits(vlm, batch), batch)


def answer_logps(vlm: VLM, batch: Batch) -> Tensor:
    """The log-probability of each whole answer, (A,): a sum over its tokens, its end among them."""
    return answer_sums(logps(vlm, batch), batch)


def cross_entropy(vlm: VLM, batch: Batch) -> Tensor:
    """The mean negative log-likelihood of the answer tokens, a scalar."""
    return losses.nll(logps(vlm, batch))
