"""The cells of a pod, with its state in one word."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from cumulet.common import clock
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.duration import age, duration
from cumulet.kube.tables.common import Cell

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import ContainerStateTerminated, ContainerStatus, PodSpec, PodStatus

_NONE = "<none>"


def pod_cells(pod: Object, now: datetime) -> list[Cell]:
    """Return the cells of a pod."""
    spec: PodSpec = pod.get("spec") or {}
    status: PodStatus = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    sidecars = _sidecars(spec)
    inits = [item for item in status.get("initContainerStatuses") or [] if item["name"] in sidecars]
    ready = sum(bool(item.get("ready")) for item in [*containers, *inits])
    addresses = status.get("podIPs") or []
    gates = spec.get("readinessGates") or []
    conditions = {item["type"]: item["status"] for item in status.get("conditions") or ()}
    passed = sum(conditions.get(gate["conditionType"]) == "True" for gate in gates)
    return [
        pod["metadata"]["name"],
        f"{ready}/{len(spec.get('containers') or ()) + len(sidecars)}",
        _reason(pod, spec, status),
        _restarts(_counted(spec, status) or [*containers, *inits], now),
        age(pod["metadata"].get("creationTimestamp"), now),
        addresses[0]["ip"] if addresses else status.get("podIP") or _NONE,
        spec.get("nodeName") or _NONE,
        status.get("nominatedNodeName") or _NONE,
        f"{passed}/{len(gates)}" if gates else _NONE,
    ]


def _sidecars(spec: PodSpec) -> set[str]:
    return {item["name"] for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"}


def _counted(spec: PodSpec, status: PodStatus) -> list[ContainerStatus]:
    """Return the started init containers, while one of them is still running."""
    index = _init_index(spec, status)
    return [] if index is None else (status.get("initContainerStatuses") or [])[: index + 1]


def _restarts(containers: list[ContainerStatus], now: datetime) -> str:
    count = sum(item.get("restartCount") or 0 for item in containers)
    ends = [
        ended["finishedAt"]
        for item in containers
        if (ended := (item.get("lastState") or {}).get("terminated")) and ended.get("finishedAt")
    ]
    if not count or not ends:
        return str(count)
    return f"{count} ({duration((now - clock.parse(max(ends))).total_seconds())} ago)"


def _reason(pod: Object, spec: PodSpec, status: PodStatus) -> str:
    reason: str = status.get("reason") or status.get("phase") or ""
    for condition in status.get("conditions") or ():
        if condition["type"] == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    waiting = _init_reason(spec, status)
    if waiting is not None:
        reason = waiting
    else:
        reason = _container_reason(status, reason)
    if pod["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            return "Unknown"
        if status.get("phase") not in ("Failed", "Succeeded"):
            return "Terminating"
    return reason


def _init_index(spec: PodSpec, status: PodStatus) -> int | None:
    """Return the index of the first unfinished init container, or `None`.

    A pod that is initialized has none, also when a sidecar ends with an error at its end (upstream's `printPod`).
    """
    if any(item["type"] == "Initialized" and item["status"] == "True" for item in status.get("conditions") or ()):
        return None
    sidecars = _sidecars(spec)
    for index, item in enumerate(status.get("initContainerStatuses") or []):
        ended = (item.get("state") or {}).get("terminated")
        if not (ended and not ended.get("exitCode")) and not (item["name"] in sidecars and item.get("started")):
            return index
    return None


def _init_reason(spec: PodSpec, status: PodStatus) -> str | None:
    """Return the state of the init containers in one word, or `None` where they are done."""
    index = _init_index(spec, status)
    if index is None:
        return None
    state = status["initContainerStatuses"][index].get("state") or {}
    if ended := state.get("terminated"):
        return f"Init:{_ended(ended)}"
    waiting = (state.get("waiting") or {}).get("reason", "")
    if waiting and waiting != "PodInitializing":
        return f"Init:{waiting}"
    return f"Init:{index}/{len(spec.get('initContainers') or ())}"


def _container_reason(status: PodStatus, reason: str) -> str:
    running = False
    for item in reversed(status.get("containerStatuses") or []):
        state = item.get("state") or {}
        if waiting := (state.get("waiting") or {}).get("reason"):
            reason = waiting
        elif (ended := state.get("terminated")) is not None:
            reason = _ended(ended)
        elif item.get("ready") and "running" in state:
            running = True
    if reason == "Completed" and running:
        ready = any(item["type"] == "Ready" and item["status"] == "True" for item in status.get("conditions") or ())
        return "Running" if ready else "NotReady"
    return reason


def _ended(ended: ContainerStateTerminated) -> str:
    if ended.get("reason"):
        reason: str = ended["reason"]
        return reason
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"
