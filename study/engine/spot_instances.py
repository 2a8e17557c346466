"""Spot machines on AWS, and on-demand ones in their place when there are none: the node provider of cluster.yaml.

Ray 2.60 asks again and again for the spot machine that AWS does not have: what it has for such cases lowers a node
type's rank after machines that never came up (pods), not after requests that were turned down.
"""

from __future__ import annotations

from typing import Any

from ray.autoscaler._private.aws.node_provider import AWSNodeProvider  # private, so the pin of Ray guards it
from ray.autoscaler.node_launch_exception import NodeLaunchException

NO_SPOT = ("InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow")
"""What AWS answers where an on-demand machine may still be had."""


class SpotFirst(AWSNodeProvider):
    """Ray's own provider for AWS but for what happens when there is no spot capacity in any zone."""

    def create_node(self, node_config: dict[str, Any], tags: dict[str, str], count: int) -> dict[str, Any]:
        """Start up to `count` machines; returns them by id. Raises what Ray's own does if on-demand fails too."""
        try:
            made: dict[str, Any] = super().create_node(node_config, tags, count)
        except NodeLaunchException as error:
            if error.category not in NO_SPOT or "InstanceMarketOptions" not in node_config:
                raise
            on_demand = {name: value for name, value in node_config.items() if name != "InstanceMarketOptions"}
            made = super().create_node(on_demand, tags, count)
        return made
