"""The events that can make a refused pod schedulable. Only they return it to the queue (upstream's queueing hints)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Node
from cumulet.scheduler.framework import Refusal
from cumulet.scheduler.plugins import affinity, nodes, resources, spread, volumes
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState


class NodeChanged(NamedTuple):
    """A node is new, or a relevant field of it changed."""

    node: NodeState
    old: Node | None


class NodeGone(NamedTuple):
    """A node was deleted."""

    node: Node


class PodPlaced(NamedTuple):
    """A pod was bound, or a bound pod changed."""

    pod: PodInfo


class PodGone(NamedTuple):
    """A bound pod has ended or is gone."""

    pod: PodInfo


class VolumeChanged(NamedTuple):
    """A claim, a volume or a storage class is new or changed. For a claim: its namespace and name."""

    claim: tuple[str, str] | None


Event = NodeChanged | NodeGone | PodPlaced | PodGone | VolumeChanged
Hint = Callable[[PodInfo, Event, Cluster], bool]


def could_help(pod: PodInfo, plugins: Iterable[str], event: Event, cluster: Cluster) -> bool:
    """Whether any of the plug-ins that refused a pod could accept it after the event."""
    return any(HINTS[name](pod, event, cluster) for name in plugins)


def _node(test: Callable[[PodInfo, NodeState], Refusal | None]) -> Hint:
    """The hint of a plug-in that depends on the node only: a node that it accepts helps."""

    def hint(pod: PodInfo, event: Event, _: Cluster) -> bool:
        return isinstance(event, NodeChanged) and test(pod, event.node) is None

    return hint


def _ports(pod: PodInfo, event: Event, _: Cluster) -> bool:
    if isinstance(event, PodGone):
        return nodes.clash(pod, event.pod)
    return isinstance(event, NodeChanged) and event.old is None


def _resources(pod: PodInfo, event: Event, _: Cluster) -> bool:
    if isinstance(event, PodGone):
        return any(value > 0 and name in pod.requests for name, value in event.pod.requests.items())
    return isinstance(event, NodeChanged) and resources.could_ever_fit(pod, event.node)


def _affinity(pod: PodInfo, event: Event, cluster: Cluster) -> bool:
    if isinstance(event, NodeChanged):
        return True
    if not isinstance(event, PodPlaced | PodGone):
        return False
    other = event.pod
    near = any(
        affinity.term_selects(term, pod, other.namespace, other.labels, cluster) for term in pod.required_affinity
    )
    if isinstance(event, PodPlaced):
        return near
    return any(
        affinity.term_selects(term, pod, other.namespace, other.labels, cluster)
        for term in pod.required_anti_affinity
    ) or any(
        affinity.term_selects(term, other, pod.namespace, pod.labels, cluster)
        for term in other.required_anti_affinity
    )


def _spread(pod: PodInfo, event: Event, _: Cluster) -> bool:
    if isinstance(event, PodPlaced | PodGone):
        return event.pod.namespace == pod.namespace
    return isinstance(event, NodeChanged | NodeGone)


def _volumes(pod: PodInfo, event: Event, _: Cluster) -> bool:
    if isinstance(event, VolumeChanged):
        if event.claim is None:
            return True
        namespace, name = event.claim
        return namespace == pod.namespace and any(name == claim for claim, _ in volumes.claims_of(pod))
    return isinstance(event, NodeChanged)


HINTS: dict[str, Hint] = {
    "NodeUnschedulable": _node(nodes.unschedulable),
    "NodeName": _node(nodes.node_name),
    "TaintToleration": _node(nodes.taints),
    "NodeAffinity": _node(nodes.node_affinity),
    "NodePorts": _ports,
    resources.NAME: _resources,
    affinity.NAME: _affinity,
    spread.NAME: _spread,
    volumes.NAME: _volumes,
}
