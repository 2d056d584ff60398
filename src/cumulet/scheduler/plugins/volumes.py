"""Plug-in VolumeBinding, as far as nodes need it that have no disks: claims are bound, and their volumes reachable.

A claim whose class binds only once its pod has a node (`WaitForFirstConsumer`) does not hold the pod back: the provisioner
is told of the node by the claim's annotation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cumulet.common.kubernetes.selection import term_selects
from cumulet.scheduler.framework import Judge, Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

Object = dict[str, Any]

NAME = "VolumeBinding"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_BOUND = "pv.kubernetes.io/bind-completed"
_UNBOUND = Refusal(NAME, ("pod has unbound immediate PersistentVolumeClaims",))
_ELSEWHERE = Refusal(NAME, ("node(s) didn't match PersistentVolume's node affinity",))
_NO_VOLUME = Refusal(NAME, ("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",))

#: Finds an object by name and namespace.
Get = Callable[[str, str], Object | None]


class Volumes:
    """The claims, volumes and storage classes of a cluster."""

    def __init__(self, claim: Get, volume: Get, storage_class: Get) -> None:
        self._claim = claim
        self._volume = volume
        self._class = storage_class

    def filter(self, pod: PodInfo, _: Cluster) -> Judge | Refusal | None:
        """Why no node can take the pod, or which can by its volumes."""
        bound: list[Object | None] = []
        unbound = False
        for name, ephemeral in claims_of(pod):
            claim = self._claim(name, pod.namespace)
            if claim is None:
                what = f'persistentvolumeclaim "{name}" not found'
                waiting = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return Refusal(NAME, (waiting if ephemeral else what,))
            volume = claim["spec"].get("volumeName")
            if (claim.get("status") or {}).get("phase") == "Lost":
                what = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
                return Refusal(NAME, (what,))
            if claim["metadata"].get("deletionTimestamp"):
                return Refusal(NAME, (f'persistentvolumeclaim "{name}" is being deleted',))
            if volume and _is_bound(claim):
                bound.append(self._volume(volume, ""))
            elif volume or not self.waits_for_pod(claim):
                unbound = True
        if unbound:
            return _UNBOUND
        if not bound:
            return None
        return lambda node: _reach(bound, node)

    def waits_for_pod(self, claim: Object) -> bool:
        """Whether a claim is bound only once its pod has a node."""
        found = self._class(claim["spec"].get("storageClassName") or "", "")
        return found is not None and found.get("volumeBindingMode") == "WaitForFirstConsumer"

    def to_select(self, pod: PodInfo) -> list[Object]:
        """The claims whose provisioner must be told of the node."""
        found = []
        for name, _ in claims_of(pod):
            claim = self._claim(name, pod.namespace)
            if claim is not None and not claim["spec"].get("volumeName") and self.waits_for_pod(claim):
                found.append(claim)
        return found


def _is_bound(claim: Object) -> bool:
    """A claim that names its volume is bound only once the binder of volumes has said so."""
    return _BOUND in (claim["metadata"].get("annotations") or {})


def claims_of(pod: PodInfo) -> Iterable[tuple[str, bool]]:
    """The names of a pod's claims, and whether they are the pod's own."""
    for volume in pod.spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"], False
        elif volume.get("ephemeral"):
            yield f"{pod.name}-{volume['name']}", True


def _reach(volumes: list[Object | None], node: NodeState) -> Refusal | None:
    for volume in volumes:
        if volume is None:
            return _NO_VOLUME
        required = (volume["spec"].get("nodeAffinity") or {}).get("required")
        if required is not None and not any(
            term_selects(term, node.labels, node.name) for term in required.get("nodeSelectorTerms") or ()
        ):
            return _ELSEWHERE
    return None
