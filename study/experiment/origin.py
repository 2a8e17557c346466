"""What this process computes with."""

from __future__ import annotations

import torch

from study.core.provenance import Origin, cpu, revision, versions
from study.experiment.context import StudyContext


def origin_of(context: StudyContext) -> Origin:
    """The origin of a result that this process computes."""
    gpu = torch.cuda.get_device_name() if context.device == "cuda" else ""
    return Origin(revision(), versions(), cpu(), gpu, context.loading.dtype, torch.get_num_threads())
