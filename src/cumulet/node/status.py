"""Derives the status of a pod from its container group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from cumulet.common import clock
from cumulet.common.kubernetes.objects import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodCondition,
    PodStatus,
)
from cumulet.node.resource import ContainerGroup, ContainerView, GroupContainer, GroupContainerState

#: The containers of a container group cannot change.
NO_EPHEMERAL = "a container group takes no ephemeral containers; use exec, or kubectl debug with --copy-to"

Kind = Literal["initContainers", "containers"]

_PHASES = {
    "Running": "Running",
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Stopped": "Succeeded",
    "Canceled": "Failed",
}


def pod_status(pod: Pod, group: ContainerGroup, host: str) -> PodStatus:
    """Return the status of a pod that has that group."""
    properties = group["properties"]
    view = properties.get("instanceView") or {}
    old = pod.get("status") or {}
    uid, spec = pod["metadata"]["uid"], pod["spec"]
    inits = _statuses(spec.get("initContainers") or (), "initContainers", properties.get("initContainers"), uid)
    containers = _statuses(spec["containers"], "containers", properties.get("containers"), uid)
    phase = _PHASES.get(view.get("state", ""), "Pending")
    if phase == "Running" and not any("running" in item["state"] or item["restartCount"] for item in containers):
        phase = "Pending"
    initialized = all((item["state"].get("terminated") or {}).get("exitCode") == 0 for item in inits)
    ready = phase == "Running" and all(item["ready"] for item in containers)
    status: PodStatus = {
        "phase": phase,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": old.get("startTime") or clock.rfc3339(),
        "containerStatuses": containers,
        "qosClass": old.get("qosClass", "BestEffort"),
    }
    if inits:
        status["initContainerStatuses"] = inits
    if pod["spec"].get("ephemeralContainers"):
        status["ephemeralContainerStatuses"] = _never_run(pod, old.get("ephemeralContainerStatuses") or [])
    address = (properties.get("ipAddress") or {}).get("ip")
    if address and phase in ("Running", "Succeeded", "Failed"):
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    done = phase == "Succeeded"
    waiting = "PodCompleted" if done else "ContainersNotReady"
    names = " ".join(item["name"] for item in containers if not item["ready"])
    message = "" if done else f"containers with unready status: [{names}]"
    status["conditions"] = [
        _condition(old, "PodReadyToStartContainers", bool(address) and not done, "", ""),
        _condition(old, "Initialized", initialized, "" if initialized else "ContainersNotInitialized", ""),
        _condition(old, "Ready", ready, "" if ready else waiting, "" if ready else message),
        _condition(old, "ContainersReady", ready, "" if ready else waiting, "" if ready else message),
        *[item for item in old.get("conditions") or () if item["type"] == "PodScheduled"],
    ]
    return status


def waiting_status(pod: Pod, host: str, reason: str, message: str) -> PodStatus:
    """Return the status of a pod that has no group yet, with the reason."""
    old = pod.get("status") or {}
    waiting: ContainerStateWaiting = {"reason": reason}
    if message:
        waiting["message"] = message
    containers: list[ContainerStatus] = [
        {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "started": False,
            "restartCount": 0,
            "state": {"waiting": waiting},
            "lastState": {},
        }
        for container in pod["spec"]["containers"]
    ]
    status: PodStatus = {
        **old,
        "phase": "Pending",
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": old.get("startTime") or clock.rfc3339(),
        "containerStatuses": containers,
    }
    status.pop("reason", None)
    status.pop("message", None)
    return status


def has_failed(group: ContainerGroup) -> bool:
    """Return whether a container group has failed."""
    return _PHASES.get((group["properties"].get("instanceView") or {}).get("state", "")) == "Failed"


def is_restarted(pod: Pod) -> bool:
    """Return whether the containers of a pod are restarted when they fail."""
    return bool(pod["spec"].get("restartPolicy", "Always") != "Never")


def pending_status(pod: Pod, reason: str, message: str) -> PodStatus:
    """The status of a pod that the provider refuses for now."""
    return {**(pod.get("status") or {}), "phase": "Pending", "reason": reason, "message": message}


def failed_status(pod: Pod, reason: str, message: str) -> PodStatus:
    """The status of a pod that cannot run here, or whose group is gone."""
    old = pod.get("status") or {}
    return {
        **old,
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "startTime": old.get("startTime") or clock.rfc3339(),
    }


def _never_run(pod: Pod, old: Sequence[ContainerStatus]) -> list[ContainerStatus]:
    """Return the statuses of ephemeral containers: terminated, so that clients do not wait for them."""
    known = {item["name"]: item for item in old}
    now = clock.rfc3339()
    ended: ContainerStateTerminated = {
        "exitCode": 128,
        "reason": "ContainerCannotRun",
        "message": NO_EPHEMERAL,
        "startedAt": now,
        "finishedAt": now,
    }
    return [
        known.get(container["name"])
        or {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
            "lastState": {},
        }
        for container in pod["spec"]["ephemeralContainers"]
    ]


def _statuses(
    specs: Sequence[Container], kind: Kind, items: Sequence[GroupContainer] | None, uid: str
) -> list[ContainerStatus]:
    views = {item["name"]: item["properties"].get("instanceView") for item in items or ()}
    statuses = []
    for container in specs:
        name = container["name"]
        view: ContainerView = views.get(name) or {}
        current: GroupContainerState = view.get("currentState") or {}
        running = current.get("state") == "Running"
        # Azure's view has no readiness: there, a running container is ready.
        ready = running and bool(view.get("ready", True))
        status: ContainerStatus = {
            "name": name,
            "image": container["image"],
            "imageID": view.get("imageId", ""),
            "ready": ready if kind == "containers" else (current.get("exitCode") == 0),
            "started": running,
            "restartCount": view.get("restartCount", 0),
            "state": _state(current, view, kind),
            "lastState": _terminated(view.get("previousState")),
        }
        if view.get("attempt"):
            status["containerID"] = f"aci://{uid}/{name}/{view['attempt']}"
        statuses.append(status)
    return statuses


def _state(current: GroupContainerState, view: ContainerView, kind: Kind) -> ContainerState:
    match current.get("state"):
        case "Running":
            return {"running": {"startedAt": _seconds(current["startTime"])}}
        case "Terminated":
            return _terminated(current)
    detail = current.get("detailStatus") or ("PodInitializing" if kind == "initContainers" else "ContainerCreating")
    waiting: ContainerStateWaiting = {"reason": detail}
    if detail in ("ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff"):
        messages = [event["message"] for event in view.get("events") or () if event["name"] in ("Failed", "BackOff")]
        long = [message for message in messages if not message.startswith("Error: ")]
        if long:
            waiting["message"] = long[-1]
    elif detail == "CreateContainerConfigError":
        failed = [event["message"] for event in view.get("events") or () if event["name"] == "Failed"]
        if failed:
            waiting["message"] = failed[-1].removeprefix("Error: ")
    return {"waiting": waiting}


def _terminated(state: GroupContainerState | None) -> ContainerState:
    if not state or state.get("state") != "Terminated":
        return {}
    code = state.get("exitCode")
    terminated: ContainerStateTerminated = {
        "exitCode": code if code is not None else 0,
        "reason": state.get("detailStatus") or "Completed",
    }
    if started := state.get("startTime"):
        terminated["startedAt"] = _seconds(started)
    if finished := state.get("finishTime"):
        terminated["finishedAt"] = _seconds(finished)
    return {"terminated": terminated}


def _seconds(moment: str) -> str:
    """Return an RFC 3339 time without fractions of a second."""
    return clock.rfc3339(clock.parse(moment))


def _condition(old: PodStatus, kind: str, true: bool, reason: str, message: str) -> PodCondition:
    status = "True" if true else "False"
    before = next((item for item in old.get("conditions") or () if item["type"] == kind), None)
    same = before is not None and before["status"] == status
    condition: PodCondition = {
        "type": kind,
        "status": status,
        "lastProbeTime": None,  # type: ignore[typeddict-item]  # upstream writes null
        "lastTransitionTime": before["lastTransitionTime"] if same and before is not None else clock.rfc3339(),
    }
    if reason:
        condition["reason"] = reason
    if message:
        condition["message"] = message
    return condition
