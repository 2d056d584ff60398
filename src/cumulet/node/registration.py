"""The Node object, its heartbeats and its lease (Kubernetes, "Node heartbeats"; labels and taint as AKS's)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes import Client, EventRecorder, KubernetesError
from cumulet.common.kubernetes.client import LEASES, NODES, STRATEGIC_MERGE_PATCH
from cumulet.common.kubernetes.objects import (
    Lease,
    LeaseSpec,
    Node,
    NodeCondition,
    NodeSpec,
    NodeStatus,
    ObjectMeta,
    ObjectReference,
    OwnerReference,
)
from cumulet.node.profile import Profile

log = logging.getLogger(__name__)

_LEASE_SECONDS = 40
_LEASE_EVERY = 10.0
_STATUS_EVERY = 6  # lease renewals: once a minute


class Registration:
    """Creates the node and sends its heartbeats."""

    def __init__(
        self, client: Client, profile: Profile, events: EventRecorder, disk_pressure: Callable[[], bool]
    ) -> None:
        self._client = client
        self._events = events
        self._disk_pressure = disk_pressure
        self._pressed = False
        self._profile = profile
        self._name = profile.name
        self._uid = ""

    async def register(self) -> None:
        """Create the node, or update the existing one. Raises `KubernetesError`, `aiohttp.ClientError`."""
        name, labels = self._name, {**self._profile.labels}
        spec: NodeSpec = {"taints": self._profile.taints} if self._profile.taints else {}
        if self._profile.provider_id is not None:
            spec["providerID"] = self._profile.provider_id
        node: Node = {"metadata": {"name": name, "labels": labels}, "spec": spec, "status": self._status({})}
        try:
            made = await self._client.create(NODES, node)
        except KubernetesError as error:
            if error.reason != "AlreadyExists":
                raise
            made = await self._client.patch(NODES, name, {"metadata": {"labels": labels}})
            await self._write_status()
        self._uid = made["metadata"]["uid"]
        await self._renew()

    async def run(self) -> None:
        """Renew the lease and the status until cancelled."""
        beats, registered = 0, True
        while True:
            await asyncio.sleep(_LEASE_EVERY)
            beats += 1
            try:
                if not registered and self._profile.leaves:
                    return  # it was drained and deleted
                if not registered:
                    # The node was deleted: register again, as a kubelet does.
                    await self.register()
                    registered = True
                await self._renew()
                if beats % _STATUS_EVERY == 0 or self._disk_pressure() is not self._pressed:
                    await self._write_status()
            except KubernetesError as error:
                registered = registered and error.code != 404
                log.warning("heartbeat: %s", error)
            except (aiohttp.ClientError, TimeoutError) as error:
                log.warning("heartbeat: %s", error)

    async def _write_status(self) -> None:
        pressed = self._disk_pressure()
        node = await self._client.get(NODES, self._name)
        conditions = {item["type"]: item for item in (node.get("status") or {}).get("conditions") or ()}
        # Conditions merge by their types, so that those of others stay.
        await self._client.patch(
            NODES,
            self._name,
            {"status": self._status(conditions)},
            subresource="status",
            content_type=STRATEGIC_MERGE_PATCH,
        )
        if pressed is not self._pressed:
            self._pressed = pressed
            reason = "NodeHasDiskPressure" if pressed else "NodeHasNoDiskPressure"
            # A kubelet's events about its node have the node's name as the uid.
            about: ObjectReference = {"kind": "Node", "name": self._name, "uid": self._name}
            self._events.event_about(about, "Normal", reason, f"Node {self._name} status is now: {reason}")

    def _status(self, before: dict[str, NodeCondition]) -> NodeStatus:
        address = self._profile.address
        return {
            "capacity": {**self._profile.capacity},
            "allocatable": {**self._profile.allocatable},
            "addresses": [
                {"type": "InternalIP", "address": address.host},
                {"type": "Hostname", "address": self._name},
            ],
            "features": {"supplementalGroupsPolicy": True},
            "daemonEndpoints": {"kubeletEndpoint": {"Port": address.port}},
            "nodeInfo": self._profile.info,
            "conditions": self._conditions(before),
        }

    def _conditions(self, before: dict[str, NodeCondition]) -> list[NodeCondition]:
        """Return the conditions: the connector's, or the kubelet's."""
        memory = (
            "MemoryPressure",
            "False",
            "KubeletHasSufficientMemory",
            "kubelet has sufficient memory available",
        )
        others: tuple[tuple[str, str, str, str], ...]
        if self._profile.is_virtual:
            disk = ("OutOfDisk", "False", "KubeletHasSufficientDisk", "kubelet has sufficient disk space available")
            network = ("NetworkUnavailable", "False", "RouteCreated", "RouteController created a route")
            others = (("Ready", "True", "KubeletReady", "kubelet is ready."), disk, memory, network)
        else:
            pids = ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available")
            others = (memory, pids, ("Ready", "True", "KubeletReady", "kubelet is posting ready status"))
        return [*(_condition(before, *each) for each in others), self._disk_condition(before)]

    def _disk_condition(self, before: dict[str, NodeCondition]) -> NodeCondition:
        if self._disk_pressure():
            return _condition(before, "DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure")
        return _condition(before, "DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure")

    async def _renew(self) -> None:
        now = clock.rfc3339_micro()
        spec: LeaseSpec = {"holderIdentity": self._name, "leaseDurationSeconds": _LEASE_SECONDS, "renewTime": now}
        # The lease goes with the node.
        owner: OwnerReference = {"apiVersion": "v1", "kind": "Node", "name": self._name, "uid": self._uid}
        metadata: ObjectMeta = {"ownerReferences": [owner]}
        try:
            await self._client.patch(LEASES, self._name, {"metadata": metadata, "spec": spec}, "kube-node-lease")
        except KubernetesError as error:
            if error.code != 404:
                raise
            await self._client.get(NODES, self._name)  # a node that is gone takes its lease along
            lease: Lease = {
                "metadata": {"name": self._name, "namespace": "kube-node-lease", **metadata},
                "spec": spec,
            }
            await self._client.create(LEASES, lease)


def _condition(before: dict[str, NodeCondition], kind: str, status: str, reason: str, message: str) -> NodeCondition:
    old = before.get(kind)
    now = clock.rfc3339()
    since = old.get("lastTransitionTime") if old is not None and old["status"] == status else now
    return {
        "type": kind,
        "status": status,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since or now,
        "reason": reason,
        "message": message,
    }
