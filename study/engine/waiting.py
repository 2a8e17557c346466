"""What a study waits for on a Ray that has nothing for it: told once a minute instead of waiting in silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from study.core.repeating import repeated

EVERY = 60.0
"""Seconds between two lines: often enough to be seen, seldom enough to be read."""
KINDS = ("CPU", "GPU")


@contextmanager
def told_while_waiting(gcs: str, tell: Callable[[str], None], every: float = EVERY) -> Iterator[None]:
    """Within the block, tell what is wanted of the Ray whose control store is at `gcs` as long as it has none of it.

    While something of what is there is used, jobs are running: then the same is told once and not again.
    """
    last = ""

    def look() -> None:
        nonlocal last
        status = _status(gcs)
        line = waiting_for(status) if status is not None else ""
        if line and (line != last or not _used(status)):
            tell(line)
        last = line

    with repeated(look, every, patience=every):
        yield


def waiting_for(status: Any) -> str:
    """What is wanted, there and pending, in a sentence; empty if nothing waits. `status` is Ray's `ClusterStatus`."""
    demands = status.resource_demands
    wanted: dict[str, int] = {}
    for demand in (*demands.ray_task_actor_demand, *demands.placement_group_demand):
        for request in demand.bundles_by_count:
            named = _named({kind: request.bundle.get(kind, 0.0) for kind in KINDS})
            wanted[named] = wanted.get(named, 0) + request.count
    if not wanted:
        return ""
    usage = {one.resource_name: one for one in status.cluster_resource_usage}
    there = ", ".join(
        f"{usage[kind].total - usage[kind].used:g} of {usage[kind].total:g} {kind}s are free"
        if kind in usage
        else f"there is no {kind}"
        for kind in KINDS
    )
    coming = sum(launch.count for launch in status.pending_launches) + len(status.pending_nodes)
    asked = " and ".join(f"{count} with {named}" for named, count in wanted.items())
    return f"waiting for processes: {asked}; on the cluster {there}, and {coming} machines are being started"


def _named(bundle: dict[str, float]) -> str:
    parts = [f"{amount:g} {kind}{'s' if amount > 1 else ''}" for kind, amount in bundle.items() if amount]
    return " + ".join(parts) or "nothing but a place"


def _used(status: Any) -> bool:
    return any(one.used > 0 for one in status.cluster_resource_usage if one.resource_name in KINDS)


def _status(gcs: str) -> Any:
    """Ray's own summary, as `ray status` shows it; None while it cannot be had."""
    from ray.autoscaler.v2.sdk import get_cluster_status

    try:
        return get_cluster_status(gcs)
    except Exception:  # a line that is not told must not end a study
        return None
