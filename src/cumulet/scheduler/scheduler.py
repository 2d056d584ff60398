"""Keeps the state of the cluster, decides on one pod after the other, and binds several pods concurrently."""

from __future__ import annotations

import asyncio
import logging

from cumulet.common.kubernetes import Client, EventRecorder, Informer, KubernetesError
from cumulet.common.kubernetes.client import (
    DISRUPTIONBUDGETS,
    NAMESPACES,
    NODES,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    PODS,
    STORAGECLASSES,
)
from cumulet.common.kubernetes.informer import AnyInformer
from cumulet.common.kubernetes.objects import (
    Namespace,
    Node,
    PartialObjectMetadata,
    Pod,
)
from cumulet.common.tasks import TaskSet
from cumulet.scheduler import words
from cumulet.scheduler.decide import Decider, Decision
from cumulet.scheduler.hints import Event, NodeChanged, NodeGone, PodGone, PodPlaced, VolumeChanged, could_help
from cumulet.scheduler.plugins import profiles
from cumulet.scheduler.plugins.volumes import Volumes
from cumulet.scheduler.preempt import Candidate, Preemption
from cumulet.scheduler.queue import Entry, SchedulingQueue
from cumulet.scheduler.requests import PodInfo
from cumulet.scheduler.state import Cluster
from cumulet.scheduler.writes import FAILURES, Writer, quietly

log = logging.getLogger(__name__)

NAME = "default-scheduler"
_BINDERS = 64
_FLUSH_EVERY = 30.0
#: Pods that have ended take no room and are not watched.
_LIVING = "status.phase!=Succeeded,status.phase!=Failed"


class Scheduler:
    """One scheduler. Its informers keep its state current also while another copy leads."""

    def __init__(self, client: Client) -> None:
        # As upstream's scheduler, whose newer events API does not combine events.
        self.events = EventRecorder(client, NAME, correlated=False)
        self.nodes = Informer(client, NODES)
        self.pods = Informer(client, PODS, field_selector=_LIVING)
        self._budgets = Informer(client, DISRUPTIONBUDGETS)
        self._namespaces = Informer(client, NAMESPACES)
        self._claims = Informer(client, PERSISTENTVOLUMECLAIMS)
        self._volumes = Informer(client, PERSISTENTVOLUMES)
        self._classes = Informer(client, STORAGECLASSES)
        self._cluster = Cluster()
        self._queue = SchedulingQueue()
        self._writer = Writer(client, self.events)
        self._binding = Volumes(self._claims.get, self._volumes.get, self._classes.get)
        self._deciders = {name: Decider(self._cluster, profile) for name, profile in profiles(self._binding).items()}
        self._preemption = Preemption(self._cluster, lambda: self._budgets)
        self._binders = asyncio.Semaphore(_BINDERS)
        self._handle()

    @property
    def informers(self) -> list[AnyInformer]:
        """All informers. Each needs its first list before the first decision."""
        return [
            self.nodes,
            self.pods,
            self._budgets,
            self._namespaces,
            self._claims,
            self._volumes,
            self._classes,
        ]

    # Changes of the cluster.

    def _handle(self) -> None:
        self.nodes.add_handler(self._node_changed)
        self.pods.add_handler(self._pod_changed)
        self._namespaces.add_handler(self._namespace_changed)
        self._claims.add_handler(self._volume_changed)
        self._volumes.add_handler(self._volume_changed)
        self._classes.add_handler(self._volume_changed)

    def _help(self, event: Event) -> None:
        self._queue.help(lambda entry: could_help(entry.info, entry.plugins, event, self._cluster))

    def _node_changed(self, change: str, node: Node, old: Node | None) -> None:
        name = node["metadata"]["name"]
        if change == "DELETED":
            self._cluster.remove_node(name)
            self._help(NodeGone(node))
            return
        if old is not None and _matters(node) == _matters(old):
            return  # a heartbeat
        self._cluster.set_node(node)
        self._help(NodeChanged(self._cluster.nodes[name], old))

    def _pod_changed(self, change: str, pod: Pod, old: Pod | None) -> None:
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName")
        if change == "DELETED" or (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            self._queue.discard(uid)
            self._cluster.nominate(PodInfo(pod), None)
            placed = self._cluster.node_of(uid) is not None
            self._cluster.forget(uid)
            if placed:
                self._help(PodGone(PodInfo(pod)))
            return
        info = PodInfo(pod)
        if node:
            self._queue.discard(uid)
            self._cluster.nominate(info, None)
            fresh = old is None or not old["spec"].get("nodeName")
            self._cluster.place(info, node)
            if fresh or (old is not None and old["metadata"].get("labels") != pod["metadata"].get("labels")):
                self._help(PodPlaced(info))
        elif pod["spec"].get("schedulerName", NAME) in self._deciders:
            self._cluster.nominate(info, (pod.get("status") or {}).get("nominatedNodeName"))
            if pod["metadata"].get("deletionTimestamp"):
                self._queue.discard(uid)
            elif self._cluster.node_of(uid) is None:
                self._queue.add(info)

    def _namespace_changed(self, change: str, namespace: Namespace, old: Namespace | None) -> None:
        metadata = namespace["metadata"]
        if change == "DELETED":
            self._cluster.namespaces.pop(metadata["name"], None)
        else:
            self._cluster.namespaces[metadata["name"]] = metadata.get("labels") or {}

    def _volume_changed(self, change: str, obj: PartialObjectMetadata, old: PartialObjectMetadata | None) -> None:
        metadata = obj["metadata"]
        claim = (metadata["namespace"], metadata["name"]) if obj["kind"] == PERSISTENTVOLUMECLAIMS.kind else None
        if change != "DELETED":
            self._help(VolumeChanged(claim))

    # Decisions.

    def work(self, tasks: TaskSet) -> None:
        """Start to schedule."""
        tasks.start_essential(self._run(tasks), "schedule")
        tasks.start_essential(self._flush(), "flush")

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_EVERY)
            self._queue.flush()

    async def _run(self, tasks: TaskSet) -> None:
        while True:
            entry = await self._queue.pop()
            await self._binders.acquire()
            # Another client can have bound or deleted it in the meantime.
            node = self._decide(entry, tasks) if self._is_waiting(entry) else None
            if node is None:
                self._binders.release()
                await asyncio.sleep(0)  # let the informers in
            else:
                tasks.start(self._bind(entry, node), "bind")

    def _is_waiting(self, entry: Entry) -> bool:
        pod = self.pods.get(entry.info.name, entry.info.namespace)
        return pod is not None and pod["metadata"]["uid"] == entry.info.uid and not pod["spec"].get("nodeName")

    def _decide(self, entry: Entry, tasks: TaskSet) -> str | None:
        """Select the node of a pod. If there is none, report it and keep the pod waiting."""
        info = entry.info
        decider = self._deciders[info.spec.get("schedulerName", NAME)]
        decision = decider.decide(info)
        if decision.node is not None:
            # The pod takes its room on the node now, before it is bound, so that later decisions see it.
            self._cluster.place(info, decision.node.name)
            return decision.node.name
        nominated: str | None = None
        if decision.refused is not None:
            message = words.refused(len(self._cluster), decision.refused)
            plugins = {decision.refused.plugin}
        elif not len(self._cluster):
            message, plugins = words.NO_NODES, {"NodeName"}
        else:
            message, nominated = self._preempt(info, decision, decider, tasks)
            plugins = {refusal.plugin for refusal in decision.refusals.values()}
        self._queue.reject(entry, plugins)
        self.events.event(info.pod, "Warning", "FailedScheduling", message)
        condition = self._writer.report(info, "Unschedulable", message, nominated)
        tasks.start(quietly(condition, "condition"), "report")
        return None

    def _preempt(self, info: PodInfo, decision: Decision, decider: Decider, tasks: TaskSet) -> tuple[str, str | None]:
        """Try preemption. Returns the message for the pod, and its nominated node: empty for none, `None` for no change."""
        refusals = decision.refusals
        outcome = self._preemption.attempt(info, refusals, decider)
        reason = outcome if isinstance(outcome, str) else None
        message = words.unplaced(len(self._cluster), refusals.values(), reason)
        if isinstance(outcome, str):
            if outcome == words.STILL_GOING:
                return message, None
            self._cluster.nominate(info, None)
            return message, ""
        self._cluster.nominate(info, outcome.node.name)
        tasks.start(self._evict(info, outcome), "evict")
        return message, outcome.node.name

    async def _evict(self, info: PodInfo, candidate: Candidate) -> None:
        node = candidate.node.name
        lower = [other for other in self._cluster.nominated.get(node, {}).values() if other.priority < info.priority]
        for other in lower:
            # The room that it waits for now belongs to the preemptor.
            self._cluster.nominate(other, None)
            reason, message = "Unschedulable", _message(other)
            await quietly(self._writer.report(other, reason, message, ""), "nomination")
        evictions = (self._writer.evict(victim, info, node) for victim in candidate.victims)
        await asyncio.gather(*(quietly(eviction, "eviction") for eviction in evictions))

    async def _bind(self, entry: Entry, node: str) -> None:
        info = entry.info
        try:
            await self._writer.bind(info, node, self._binding.to_select(info))
        except FAILURES as error:
            log.info("pod %s/%s was not bound: %s: %s", info.namespace, info.name, type(error).__name__, error)
            if self._is_waiting(entry):
                self._cluster.forget(info.uid)
                self._help(PodGone(info))
            if not isinstance(error, KubernetesError) or error.code != 404:
                self._queue.fail(entry)
        except asyncio.CancelledError:
            self._cluster.forget(info.uid)
            raise
        else:
            self._queue.discard(info.uid)
            self._cluster.nominate(info, None)
        finally:
            self._binders.release()


def _matters(node: Node) -> tuple[object, ...]:
    """The fields of a node that decide which pods it can take."""
    spec, status = node.get("spec") or {}, node.get("status") or {}
    return (
        spec.get("taints"),
        spec.get("unschedulable"),
        status.get("allocatable"),
        status.get("images"),
        node["metadata"].get("labels"),
    )


def _message(pod: PodInfo) -> str:
    for condition in (pod.pod.get("status") or {}).get("conditions") or ():
        if condition["type"] == "PodScheduled":
            return condition.get("message", "")
    return ""
