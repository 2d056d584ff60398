"""The forms of plug-ins, and the tables of those that there are.

A *local* filter or score looks at one pod and one node; what it says holds for every pod with the same signature until the
node changes. A *wide* one looks at all nodes: it prepares something for a pod and then judges nodes by that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

Object = dict[str, Any]


class Refusal(NamedTuple):
    """Why a node cannot take a pod; `resolvable` where evicting others could help."""

    plugin: str
    reasons: tuple[str, ...]
    resolvable: bool = False


#: Why not, or `None` where it can.
LocalFilter = Callable[[PodInfo, NodeState], Refusal | None]
#: The same, of what was prepared.
Judge = Callable[[NodeState], Refusal | None]
#: `None` where a plug-in has nothing to say about a pod; a refusal where no node can take it, whichever.
WideFilter = Callable[[PodInfo, Cluster], Judge | Refusal | None]
#: Any number, put on the scale from 0 to 100 later.
LocalScore = Callable[[PodInfo, NodeState], float]
#: Points for each of the nodes that can take the pod, already on the scale; `None` where it has no preference.
WideScore = Callable[[PodInfo, list[NodeState], Cluster], list[float] | None]


class Scoring(NamedTuple):
    """A local score, how it comes on the scale, and its weight."""

    score: LocalScore
    #: `as-is`; `most`, where the highest gets 100; `fewest`, where the highest gets 0.
    scale: str
    weight: float


class Profile(NamedTuple):
    """What the scheduler of one name asks, in the order in which the first refusal counts."""

    local_filters: dict[str, LocalFilter]
    wide_filters: dict[str, WideFilter]
    local_scores: dict[str, Scoring]
    wide_scores: dict[str, tuple[WideScore, float]]
