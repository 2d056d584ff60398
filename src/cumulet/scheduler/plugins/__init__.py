"""The plug-ins by name, and the profiles that they form.

Order and weights are upstream's defaults (`pkg/scheduler/apis/config/v1/default_plugins.go`).
"""

from __future__ import annotations

from cumulet.scheduler.framework import Profile, Scoring
from cumulet.scheduler.plugins import affinity, nodes, resources, spread, volumes
from cumulet.scheduler.plugins.volumes import Volumes


def profiles(claims: Volumes) -> dict[str, Profile]:
    """The profiles by the name in `spec.schedulerName`."""
    default = Profile(
        local_filters={
            "NodeAffinityNames": nodes.named_nodes,
            "NodeUnschedulable": nodes.unschedulable,
            "NodeName": nodes.node_name,
            "TaintToleration": nodes.taints,
            "NodeAffinity": nodes.node_affinity,
            "NodePorts": nodes.ports,
            "NodeResourcesFit": resources.fits,
            "DynamicResources": nodes.claims,
        },
        wide_filters={
            volumes.NAME: claims.filter,
            "PodTopologySpread": spread.constraints,
            "InterPodAffinity": affinity.rules,
        },
        local_scores={
            "TaintToleration": Scoring(nodes.preferred_taints, "fewest", 3),
            "NodeAffinity": Scoring(nodes.preferred_affinity, "most", 2),
            "NodeResourcesFit": Scoring(resources.least_allocated, "as-is", 1),
            "NodeResourcesBalancedAllocation": Scoring(resources.balanced, "as-is", 1),
            "ImageLocality": Scoring(nodes.image_locality, "as-is", 1),
            "SelectorSpread": Scoring(nodes.siblings, "fewest", 2),
        },
        wide_scores={
            "PodTopologySpread": (spread.preferences, 2),
            "InterPodAffinity": (affinity.preferences, 2),
        },
    )
    return {"default-scheduler": default}
