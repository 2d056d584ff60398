"""The room's life: watch pods and nodes, place each pod that waits, try again when something changed."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp

from cumulet.common import clock
from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError, WorkQueue
from cumulet.common.kubernetes.client import NODES, PODS, STRATEGIC_MERGE_PATCH
from cumulet.common.kubernetes.component import client_of, health_app, run_informers
from cumulet.common.room import Room
from cumulet.common.tasks import task_set
from cumulet.scheduler.filters import explain, refusal
from cumulet.scheduler.scores import best
from cumulet.scheduler.state import Cluster

log = logging.getLogger(__name__)

Object = dict[str, Any]
Key = tuple[str, str]

NAME = "default-scheduler"
_BINDERS = 8

#: A pod that cannot be placed is looked at again when something that matters changed, and anyhow after five minutes.
_FLUSH = 300.0


async def serve(room: Room) -> None:
    """Schedule until told to stop."""
    async with client_of(room) as client, task_set() as tasks:
        scheduler = Scheduler(client)
        informers = [scheduler.nodes, scheduler.pods]
        async with room.serving(health_app(informers)):
            room.ready()
            tasks.start_essential(scheduler.events.run(), "events")
            await run_informers(informers, tasks)
            for _ in range(_BINDERS):
                tasks.start_essential(scheduler.queue.work(scheduler.schedule), "schedule")
            await room.stopping.wait()


class Scheduler:
    """Decides one pod after the other, at once and in memory; binds several at a time."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._cluster = Cluster()
        self._unplaced: set[Key] = set()
        self.events = EventRecorder(client, NAME)
        self.queue: WorkQueue[Key] = WorkQueue(first_delay=1.0, ceiling=10.0)
        self.nodes = Informer(client, NODES)
        self.pods = Informer(client, PODS)
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)

    def _node_changed(self, change: str, node: Object, old: Object | None) -> None:
        if change == "DELETED":
            self._cluster.remove_node(node["metadata"]["name"])
            return
        self._cluster.set_node(node)
        if change == "ADDED":
            for pod in self.pods:
                if pod["spec"].get("nodeName") == node["metadata"]["name"] and not _has_ended(pod):
                    self._cluster.place(pod, node["metadata"]["name"])
        if old is None or _matters(node) != _matters(old):
            self._retry()

    def _pod_changed(self, change: str, pod: Object, _: Object | None) -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        node = pod["spec"].get("nodeName")
        if change == "DELETED" or _has_ended(pod):
            self._unplaced.discard(key)
            self._cluster.forget(pod["metadata"]["uid"])
            self._retry()
        elif node:
            self._unplaced.discard(key)
            self._cluster.place(pod, node)
        elif key not in self._unplaced:
            self.queue.add(key)

    def _retry(self) -> None:
        for key in self._unplaced:
            self.queue.add(key)

    async def schedule(self, key: Key) -> None:
        """Place one pod, or say why it cannot be placed."""
        pod = self.pods.get(key[1], key[0])
        if (
            pod is None
            or pod["spec"].get("nodeName")
            or pod["metadata"].get("deletionTimestamp")
            or pod["spec"].get("schedulerName", NAME) != NAME
        ):
            self._unplaced.discard(key)
            return
        if pod["spec"].get("schedulingGates"):
            gates = ", ".join(gate["name"] for gate in pod["spec"]["schedulingGates"])
            message = f"Scheduling is blocked due to non-empty scheduling gates: {gates}"
            await self._unschedulable(key, pod, "SchedulingGated", message)
            return
        refusals = []
        possible = []
        for node in self._cluster:
            found = refusal(pod, node, self._cluster)
            if found is None:
                possible.append(node)
            else:
                refusals.append(found)
        if not possible:
            message = explain(refusals, len(refusals))
            self._unplaced.add(key)
            self.events.event(pod, "Warning", "FailedScheduling", message)
            await self._unschedulable(key, pod, "Unschedulable", message)
            self.queue.add_after(key, _FLUSH)
            return
        node = best(pod, possible)
        # From here on the room on the node is taken, also for the pods that are decided before this one is bound.
        self._cluster.place(pod, node.name)
        await self._bind(key, pod, node.name)

    async def _bind(self, key: Key, pod: Object, node: str) -> None:
        metadata = {"name": key[1], "namespace": key[0], "uid": pod["metadata"]["uid"]}
        target = {"apiVersion": "v1", "kind": "Node", "name": node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": metadata, "target": target}
        try:
            await self._client.request("POST", PODS.path(key[0], key[1], "binding"), body=binding)
        except KubernetesError as error:
            if error.code in (404, 409):
                # It went away, or was bound by another; the watch tells what is true.
                log.info("pod %s/%s was not bound: %s", *key, error)
                current = self.pods.get(key[1], key[0])
                if current is None or not current["spec"].get("nodeName"):
                    self._cluster.forget(pod["metadata"]["uid"])
                return
            self._cluster.forget(pod["metadata"]["uid"])
            raise
        except (aiohttp.ClientError, TimeoutError, asyncio.CancelledError):
            self._cluster.forget(pod["metadata"]["uid"])
            raise
        self._unplaced.discard(key)
        self.events.event(pod, "Normal", "Scheduled", f"Successfully assigned {key[0]}/{key[1]} to {node}")

    async def _unschedulable(self, key: Key, pod: Object, reason: str, message: str) -> None:
        conditions = (pod.get("status") or {}).get("conditions") or ()
        known: Object = next((item for item in conditions if item["type"] == "PodScheduled"), {})
        if (known.get("reason"), known.get("message")) == (reason, message):
            return
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": known.get("lastTransitionTime") or clock.rfc3339(),
            "reason": reason,
            "message": message,
        }
        try:
            await self._client.patch(
                PODS,
                key[1],
                {"status": {"conditions": [condition]}},
                key[0],
                subresource="status",
                content_type=STRATEGIC_MERGE_PATCH,
            )
        except KubernetesError as error:
            if error.code != 404:
                raise


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _matters(node: Object) -> tuple[Any, ...]:
    """What of a node can make a pod fit that did not."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    return spec.get("taints"), spec.get("unschedulable"), status.get("allocatable"), node["metadata"].get("labels")
