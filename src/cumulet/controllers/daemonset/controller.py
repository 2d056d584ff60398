"""Creates and deletes the pods of daemon sets as nodes come and go, and updates them to a new template."""

from __future__ import annotations

import asyncio
import math

from cumulet.common.kubernetes import WorkQueue, suppress_stale
from cumulet.common.kubernetes.client import DAEMONSETS, NODES
from cumulet.common.kubernetes.objects import DaemonSet, DaemonSetStatus, Node, Pod, RollingUpdateDaemonSet
from cumulet.controllers.controller import Context, Key, key_of
from cumulet.controllers.daemonset.placing import judge, make_pod, node_of
from cumulet.controllers.owned import selector_of
from cumulet.controllers.pods import OwnedPods, available_in, in_batches, is_ready, is_terminating, phase_of
from cumulet.controllers.revisions import HASH_LABEL, Revisions

_COMPONENT = "daemonset-controller"
_GENERATION_LABEL = "pod-template-generation"
_GENERATION = "deprecated.daemonset.template.generation"
#: The seconds before a failed pod is replaced: the first time, and at most.
_FIRST_WAIT, _LONGEST_WAIT = 1.0, 900.0


class DaemonSetController:
    """The controller of daemon sets."""

    def __init__(self, context: Context) -> None:
        self.queue: WorkQueue[Key] = WorkQueue()
        self._client = context.client
        self._events = context.events(_COMPONENT)
        self._sets = context.informer(DAEMONSETS)
        self._nodes = context.informer(NODES)
        self._pods = OwnedPods(context, DAEMONSETS, _COMPONENT)
        self._revisions = Revisions(context, DAEMONSETS)
        # By set and node: the number of failures of pods there, and the earliest time of the next pod.
        self._failures: dict[tuple[str, str], tuple[int, float]] = {}
        self._sets.add_handler(self._set_changed)
        self._nodes.add_handler(self._node_changed)
        self._pods.notify(self.queue, selector_of)
        self._revisions.owned.notify(self.queue, selector_of)

    def _set_changed(self, change: str, daemonset: DaemonSet, old: DaemonSet | None) -> None:
        if change == "DELETED":
            uid = daemonset["metadata"]["uid"]
            self._failures = {key: value for key, value in self._failures.items() if key[0] != uid}
        self.queue.add(key_of(daemonset))

    def _node_changed(self, change: str, node: Node, old: Node | None) -> None:
        if change == "MODIFIED" and old is not None and old is not node:
            if _matters(old) == _matters(node):
                return
            for item in self._sets:
                if judge(item, old) != judge(item, node):
                    self.queue.add(key_of(item))
            return
        for item in self._sets:
            self.queue.add(key_of(item))

    async def reconcile(self, key: Key) -> None:
        """Create missing pods, and delete surplus and outdated ones."""
        daemonset = self._sets.get(key[1], key[0])
        if daemonset is None:
            return
        selector = daemonset["spec"]["selector"]
        if not selector.get("matchLabels") and not selector.get("matchExpressions"):
            message = "This daemon set is selecting all pods. A non-empty selector is required."
            self._events.event(daemonset, "Warning", "SelectingAll", message)
            return
        await self._pods.claim(daemonset, selector_of(daemonset))
        revisions = await self._revisions.of(daemonset)
        if daemonset["metadata"].get("deletionTimestamp"):
            return
        current, collisions = await self._revisions.current(daemonset, revisions)
        label = (current["metadata"].get("labels") or {})[HASH_LABEL]
        try:
            await self._place(daemonset, label)
            if (daemonset["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate":
                await self._roll(daemonset, label)
        finally:
            await self._write_status(daemonset, label, collisions)
        used = {current["metadata"]["name"]}
        hashes = {(pod["metadata"].get("labels") or {}).get(HASH_LABEL) for pod in self._pods.of(daemonset)}
        used |= {
            item["metadata"]["name"]
            for item in revisions
            if (item["metadata"].get("labels") or {}).get(HASH_LABEL) in hashes
        }
        await self._revisions.delete_old(daemonset, revisions, used)

    def _by_node(self, daemonset: DaemonSet) -> dict[str, list[Pod]]:
        by_node: dict[str, list[Pod]] = {}
        for pod in self._pods.of(daemonset):
            by_node.setdefault(node_of(pod), []).append(pod)
        return by_node

    async def _place(self, daemonset: DaemonSet, label: str) -> None:
        by_node = self._by_node(daemonset)
        missing: list[str] = []
        going: list[Pod] = []
        for node in self._nodes:
            name = node["metadata"]["name"]
            should_run, may_stay = judge(daemonset, node)
            pods = by_node.pop(name, [])
            if not may_stay:
                going += pods
                continue
            alive = []
            for pod in pods:
                if is_terminating(pod):
                    continue
                if phase_of(pod) == "Failed":
                    if self._may_replace(daemonset, name):
                        message = (
                            f"Found failed daemon pod {'/'.join(key_of(pod))} on node {name}, will try to kill it"
                        )
                        self._events.event(daemonset, "Warning", "FailedDaemonPod", message)
                        going.append(pod)
                    else:
                        alive.append(pod)
                else:
                    alive.append(pod)
            if should_run and not alive:
                if not any(is_terminating(pod) for pod in pods):
                    missing.append(name)
            elif len(alive) > (1 + bool(_surge(daemonset, len(self._nodes.items)))):
                alive.sort(key=lambda pod: (not is_ready(pod), pod["metadata"].get("creationTimestamp", "")))
                going += alive[1:]
        # Pods whose node is gone before they were bound have no other controller to delete them.
        going += [pod for pods in by_node.values() for pod in pods if not pod["spec"].get("nodeName")]
        await asyncio.gather(*(self._pods.delete(daemonset, pod) for pod in going if not is_terminating(pod)))
        await self._create(daemonset, missing, label)

    def _may_replace(self, daemonset: DaemonSet, node: str) -> bool:
        """Whether the back-off of a node with failing pods is over. If not, queues the set again for its end."""
        key = daemonset["metadata"]["uid"], node
        failures, until = self._failures.get(key, (0, 0.0))
        now = asyncio.get_running_loop().time()
        if now < until:
            self.queue.add_after(key_of(daemonset), until - now)
            return False
        self._failures[key] = failures + 1, now + min(_FIRST_WAIT * 2.0 ** min(failures, 30), _LONGEST_WAIT)
        return True

    async def _create(self, daemonset: DaemonSet, nodes: list[str], label: str) -> None:
        labels = {HASH_LABEL: label}
        if generation := (daemonset["metadata"].get("annotations") or {}).get(_GENERATION):
            labels[_GENERATION_LABEL] = generation
        await in_batches(
            len(nodes), lambda number: self._pods.create(daemonset, make_pod(daemonset, nodes[number], labels))
        )

    async def _roll(self, daemonset: DaemonSet, label: str) -> None:
        """Replace pods of older templates, within `maxUnavailable` or `maxSurge`."""
        by_node = {
            name: [pod for pod in pods if not is_terminating(pod)] for name, pods in self._by_node(daemonset).items()
        }
        nodes = [node["metadata"]["name"] for node in self._nodes if judge(daemonset, node)[0]]
        surge = _surge(daemonset, len(nodes))
        old_pods: list[Pod] = []
        outdated: list[str] = []
        unavailable = surging = 0
        for name in nodes:
            new, old = None, None
            for pod in by_node.get(name, ()):
                if _label(pod) == label:
                    new = pod
                else:
                    old = pod
            available = {id(pod) for pod in (new, old) if pod is not None and self._available(daemonset, pod)}
            if surge:
                if old is not None and new is not None:
                    surging += 1
                    if id(new) in available:
                        old_pods.append(old)
                elif old is not None:
                    outdated.append(name)
            else:
                if not available:
                    unavailable += 1
                    if old is not None and new is None:
                        old_pods.append(old)  # it is unavailable and can be deleted at once
                elif old is not None and new is None:
                    outdated.append(name)
        if surge:
            await asyncio.gather(*(self._pods.delete(daemonset, pod) for pod in old_pods))
            await self._create(daemonset, outdated[: max(surge - surging, 0)], label)
            return
        room = max(_unavailable(daemonset, len(nodes)) - unavailable, 0)
        healthy = [pod for name in outdated for pod in by_node[name] if _label(pod) != label]
        await asyncio.gather(*(self._pods.delete(daemonset, pod) for pod in [*old_pods, *healthy[:room]]))

    def _available(self, daemonset: DaemonSet, pod: Pod) -> bool:
        wait = available_in(pod, daemonset["spec"].get("minReadySeconds", 0))
        if wait:
            self.queue.add_after(key_of(daemonset), wait)
        return wait == 0

    async def _write_status(self, daemonset: DaemonSet, label: str, collisions: int) -> None:
        by_node = self._by_node(daemonset)
        current = desired = misscheduled = ready = available = updated = 0
        for node in self._nodes:
            pods = [pod for pod in by_node.get(node["metadata"]["name"], ()) if not is_terminating(pod)]
            if not judge(daemonset, node)[0]:
                misscheduled += bool(pods)
                continue
            desired += 1
            if not pods:
                continue
            current += 1
            oldest = min(pods, key=_age)
            ready += is_ready(oldest)
            available += is_ready(oldest) and self._available(daemonset, oldest)
            updated += _label(oldest) == label
        old = daemonset.get("status") or {}
        status: DaemonSetStatus = {
            "currentNumberScheduled": current,
            "numberMisscheduled": misscheduled,
            "desiredNumberScheduled": desired,
            "numberReady": ready,
            "observedGeneration": daemonset["metadata"].get("generation", 0),
        }
        if updated:
            status["updatedNumberScheduled"] = updated
        if available:
            status["numberAvailable"] = available
        if desired != available:
            status["numberUnavailable"] = desired - available
        if collisions:
            status["collisionCount"] = collisions
        if "conditions" in old:
            status["conditions"] = old["conditions"]
        if status == old:
            return
        with suppress_stale():
            await self._client.update_status(DAEMONSETS, daemonset, status)


def _age(pod: Pod) -> tuple[bool, str, str]:
    """The sort key of pods on one node, of which the first counts (`podByCreationTimestampAndPhase`)."""
    metadata = pod["metadata"]
    return not pod["spec"].get("nodeName"), metadata.get("creationTimestamp", ""), metadata["name"]


def _label(pod: Pod) -> str:
    return (pod["metadata"].get("labels") or {}).get(HASH_LABEL, "")


def _matters(node: Node) -> tuple[object, object]:
    return node["metadata"].get("labels"), (node.get("spec") or {}).get("taints")


def _rolling(daemonset: DaemonSet) -> RollingUpdateDaemonSet:
    return (daemonset["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}


def _share(value: int | str, nodes: int) -> int:
    return math.ceil(int(value.rstrip("%")) * nodes / 100) if isinstance(value, str) else value


def _surge(daemonset: DaemonSet, nodes: int) -> int:
    return _share(_rolling(daemonset).get("maxSurge", 0), nodes)


def _unavailable(daemonset: DaemonSet, nodes: int) -> int:
    # If both are 0 the update cannot proceed, so one pod can be unavailable.
    share = _share(_rolling(daemonset).get("maxUnavailable", 1), nodes)
    return share if share or _surge(daemonset, nodes) else 1
