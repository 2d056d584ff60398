"""Plug-in VolumeBinding for nodes without disks: claims must be bound, and their volumes reachable.

A claim whose class binds after scheduling (`WaitForFirstConsumer`) does not delay the pod. An annotation on the claim names
the node for the provisioner.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from cumulet.common.kubernetes.objects import PersistentVolume, PersistentVolumeClaim, StorageClass
from cumulet.common.kubernetes.selection import term_selects
from cumulet.scheduler.framework import Judge, Refusal
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster, NodeState

NAME = "VolumeBinding"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
_BOUND = "pv.kubernetes.io/bind-completed"
_UNBOUND = Refusal(NAME, ("pod has unbound immediate PersistentVolumeClaims",))
_ELSEWHERE = Refusal(NAME, ("node(s) didn't match PersistentVolume's node affinity",))
_NO_VOLUME = Refusal(NAME, ("node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",))

_T = TypeVar("_T")
#: Finds an object by name and namespace.
Get = Callable[[str, str], _T | None]


class Volumes:
    """The claims, volumes and storage classes of a cluster."""

    def __init__(
        self, claim: Get[PersistentVolumeClaim], volume: Get[PersistentVolume], storage_class: Get[StorageClass]
    ) -> None:
        self._claim = claim
        self._volume = volume
        self._class = storage_class

    def filter(self, pod: PodInfo, _: Cluster) -> Judge | Refusal | None:
        """The refusal if no node can take the pod, or the judge by its bound volumes."""
        bound: list[PersistentVolume | None] = []
        unbound = False
        for name, ephemeral in claims_of(pod):
            claim = self._claim(name, pod.namespace)
            if claim is None:
                missing = f'persistentvolumeclaim "{name}" not found'
                waiting = f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
                return Refusal(NAME, (waiting if ephemeral else missing,))
            volume = claim["spec"].get("volumeName")
            if (claim.get("status") or {}).get("phase") == "Lost":
                lost = f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
                return Refusal(NAME, (lost,))
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

    def waits_for_pod(self, claim: PersistentVolumeClaim) -> bool:
        """Whether a claim is bound only after its pod has a node."""
        storage_class = self._class(claim["spec"].get("storageClassName") or "", "")
        return storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"

    def to_select(self, pod: PodInfo) -> list[PersistentVolumeClaim]:
        """The claims whose provisioner needs the name of the node."""
        claims = []
        for name, _ in claims_of(pod):
            claim = self._claim(name, pod.namespace)
            if claim is not None and not claim["spec"].get("volumeName") and self.waits_for_pod(claim):
                claims.append(claim)
        return claims


def _is_bound(claim: PersistentVolumeClaim) -> bool:
    """Whether the volume binder has completed the binding. A claim can name its volume before that."""
    return _BOUND in (claim["metadata"].get("annotations") or {})


def claims_of(pod: PodInfo) -> Iterable[tuple[str, bool]]:
    """The names of the claims of a pod, and whether they are ephemeral."""
    for volume in pod.spec.get("volumes") or ():
        if claim := volume.get("persistentVolumeClaim"):
            yield claim["claimName"], False
        elif volume.get("ephemeral"):
            yield f"{pod.name}-{volume['name']}", True


def _reach(volumes: list[PersistentVolume | None], node: NodeState) -> Refusal | None:
    for volume in volumes:
        if volume is None:
            return _NO_VOLUME
        required = (volume["spec"].get("nodeAffinity") or {}).get("required")
        if required is not None and not any(
            term_selects(term, node.labels, node.name) for term in required.get("nodeSelectorTerms") or ()
        ):
            return _ELSEWHERE
    return None
