"""From a container group back to a pod's status."""

from __future__ import annotations

from typing import Any

from cumulet.common import clock

Object = dict[str, Any]

#: Container groups have the containers that they were made with.
NO_EPHEMERAL = "a container group takes no ephemeral containers; use exec, or kubectl debug with --copy-to"

_PHASES = {
    "Running": "Running",
    "Succeeded": "Succeeded",
    "Failed": "Failed",
    "Stopped": "Succeeded",
    "Canceled": "Failed",
}


def pod_status(pod: Object, group: Object, host: str) -> Object:
    """The status of a pod whose group is that."""
    properties = group["properties"]
    view = properties.get("instanceView") or {}
    old = pod.get("status") or {}
    inits = _statuses(pod, "initContainers", properties.get("initContainers"), old.get("initContainerStatuses"))
    containers = _statuses(pod, "containers", properties.get("containers"), old.get("containerStatuses"))
    phase = _PHASES.get(view.get("state", ""), "Pending")
    if phase == "Running" and not any("running" in item["state"] or item["restartCount"] for item in containers):
        phase = "Pending"
    initialized = all((item["state"].get("terminated") or {}).get("exitCode") == 0 for item in inits)
    ready = phase == "Running" and all(item["ready"] for item in containers)
    status: Object = {
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


def waiting_status(pod: Object, host: str, reason: str, message: str) -> Object:
    """The status of a pod that has no group yet, and why."""
    old = pod.get("status") or {}
    waiting = {"reason": reason, **({"message": message} if message else {})}
    containers = [
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
    return {
        **{key: value for key, value in old.items() if key not in ("reason", "message")},
        "phase": "Pending",
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": old.get("startTime") or clock.rfc3339(),
        "containerStatuses": containers,
    }


def has_failed(group: Object) -> bool:
    """Whether a container group has ended otherwise than well."""
    return _PHASES.get((group["properties"].get("instanceView") or {}).get("state", "")) == "Failed"


def is_restarted(pod: Object) -> bool:
    """Whether the containers of a pod are restarted when they fail."""
    return bool(pod["spec"].get("restartPolicy", "Always") != "Never")


def pending_status(pod: Object, reason: str, message: str) -> Object:
    """The status of a pod that the provider refuses for now."""
    return {**(pod.get("status") or {}), "phase": "Pending", "reason": reason, "message": message}


def failed_status(pod: Object, reason: str, message: str) -> Object:
    """The status of a pod that cannot run here, or whose group is gone."""
    old = pod.get("status") or {}
    return {
        **old,
        "phase": "Failed",
        "reason": reason,
        "message": message,
        "startTime": old.get("startTime") or clock.rfc3339(),
    }


def _never_run(pod: Object, old: list[Object]) -> list[Object]:
    """Ephemeral containers, which whoever waits for them is told of at once."""
    known = {item["name"]: item for item in old}
    now = clock.rfc3339()
    ended = {
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


def _statuses(pod: Object, kind: str, items: list[Object] | None, old: list[Object] | None) -> list[Object]:
    views = {item["name"]: item["properties"].get("instanceView") or {} for item in items or ()}
    found = []
    for container in pod["spec"].get(kind) or ():
        name = container["name"]
        view = views.get(name) or {}
        current = view.get("currentState") or {}
        running = current.get("state") == "Running"
        # A real ACI says nothing of readiness: there, what runs is ready.
        ready = running and bool(view.get("ready", True))
        status: Object = {
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
            status["containerID"] = f"aci://{pod['metadata']['uid']}/{name}/{view['attempt']}"
        found.append(status)
    return found


def _state(current: Object, view: Object, kind: str) -> Object:
    match current.get("state"):
        case "Running":
            return {"running": {"startedAt": _seconds(current.get("startTime"))}}
        case "Terminated":
            return _terminated(current)
    detail = current.get("detailStatus") or ("PodInitializing" if kind == "initContainers" else "ContainerCreating")
    waiting: Object = {"reason": detail}
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


def _terminated(state: Object | None) -> Object:
    if not state or state.get("state") != "Terminated":
        return {}
    code = state.get("exitCode")
    found: Object = {"exitCode": code if code is not None else 0, "reason": state.get("detailStatus") or "Completed"}
    for name, source in (("startedAt", "startTime"), ("finishedAt", "finishTime")):
        if state.get(source):
            found[name] = _seconds(state[source])
    return {"terminated": found}


def _seconds(moment: str | None) -> str | None:
    return clock.rfc3339(clock.parse(moment)) if moment else None


def _condition(old: Object, kind: str, true: bool, reason: str, message: str) -> Object:
    status = "True" if true else "False"
    before = next((item for item in old.get("conditions") or () if item["type"] == kind), None)
    same = before is not None and before["status"] == status
    found: Object = {
        "type": kind,
        "status": status,
        "lastProbeTime": None,
        "lastTransitionTime": before["lastTransitionTime"] if same and before is not None else clock.rfc3339(),
    }
    if reason:
        found["reason"] = reason
    if message:
        found["message"] = message
    return found
