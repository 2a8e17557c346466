"""Processes of one world, for tests of what several do together."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

HEAVY = (
    "study.experiment.teach",
    "study.experiment.trial",
    "study.stages.pipeline",
    "study.benchmarks.synthetic",
    "transformers.models.llava.modeling_llava",
    "tests.helpers.frozen",
)
"""What every such process imports: once in a server that they are forked from, and last what spares the collector all
of it."""


def join(rank: int, port: int) -> None:
    """Make this process one of two."""
    torch.set_num_threads(1)
    at = f"tcp://127.0.0.1:{port}"
    dist.init_process_group("gloo", init_method=at, rank=rank, world_size=2, timeout=timedelta(minutes=5))


def forked() -> BaseContext:
    """How processes begin that share nothing with this one but need not import all of `HEAVY` again."""
    context = get_context("forkserver")
    context.set_forkserver_preload([*HEAVY])
    return context


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens to, for processes that cannot choose one themselves."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def spawn(work: Callable[..., None], root: Path, *arguments: Any) -> None:
    """Call `work(rank, root, port, *arguments)` in two processes; raises what one of them raises."""
    [port] = free_ports(1)
    forked()  # from now on the server of this method imports `HEAVY`
    torch.multiprocessing.start_processes(  # type: ignore[attr-defined, no-untyped-call]
        work, (root, port, *arguments), nprocs=2, start_method="forkserver"
    )


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> float:
    """How far two sets of weights lie apart, as a share of how far the first moved from the base."""
    drift, way = (torch.cat([(a[name] - b[name]).flatten() for name in base]) for a, b in [(one, other), (one, base)])
    return float(drift.norm() / way.norm())
