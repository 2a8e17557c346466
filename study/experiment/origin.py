"""What this process computes with."""

from __future__ import annotations

import torch

from study.core.hashing import canonical
from study.core.provenance import Origin, code_of, cpu, revision, versions
from study.experiment.context import StudyContext


def origin_of(context: StudyContext, plugin: object = None) -> Origin:
    """The origin of a result that this process computes, by this method or attack if it is one of theirs."""
    gpu = torch.cuda.get_device_name() if context.device == "cuda" else ""
    code = code_of(canonical(plugin))
    return Origin(revision(), versions(), cpu(), gpu, context.loading.dtype, torch.get_num_threads(), code)
