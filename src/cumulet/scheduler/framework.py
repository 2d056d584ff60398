"""The types of plug-ins, and the profile that lists them.

A *local* filter or score depends on one pod and one node. Its result is valid for every pod with the same signature until
the node changes. A *wide* one depends on all nodes: it prepares data for a pod and then judges each node by them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState


class Refusal(NamedTuple):
    """The reasons why a node cannot take a pod. `resolvable` if the eviction of other pods could help."""

    plugin: str
    reasons: tuple[str, ...]
    resolvable: bool = False


#: Returns the refusal, or `None` if the node can take the pod.
LocalFilter = Callable[[PodInfo, NodeState], Refusal | None]
#: The same, with the prepared data of a wide filter.
Judge = Callable[[NodeState], Refusal | None]
#: Returns `None` if the plug-in does not apply to the pod, and a refusal if no node can take it.
WideFilter = Callable[[PodInfo, Cluster], Judge | Refusal | None]
#: Returns any number, which is scaled to the range from 0 to 100 later.
LocalScore = Callable[[PodInfo, NodeState], float]
#: Returns points from 0 to 100 for each feasible node, or `None` if the pod has no preference.
WideScore = Callable[[PodInfo, list[NodeState], Cluster], list[float] | None]


class Scoring(NamedTuple):
    """A local score, its scale, and its weight."""

    score: LocalScore
    #: `as-is`; `most`: the highest gets 100; `fewest`: the highest gets 0.
    scale: str
    weight: float


class Profile(NamedTuple):
    """The plug-ins of one scheduler name. The first refusal in this order counts."""

    local_filters: dict[str, LocalFilter]
    wide_filters: dict[str, WideFilter]
    local_scores: dict[str, Scoring]
    wide_scores: dict[str, tuple[WideScore, float]]
