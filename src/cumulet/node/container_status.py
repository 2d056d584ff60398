"""Derives the statuses of a pod's containers from the views of its container group."""

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
    ResourceRequirements,
    VolumeMountStatus,
)
from cumulet.node.phase import is_sidecar
from cumulet.node.resource import (
    ContainerView,
    GroupContainer,
    GroupContainerProperties,
    GroupContainerState,
    GroupProperties,
)

Kind = Literal["initContainers", "containers", "ephemeralContainers"]

#: Bytes of the last messages of all containers of a pod (`MaxPodTerminationMessageLogLength`).
_MESSAGES = 12 * 1024
#: Kubernetes' words for a container that has left no exit code.
_UNKNOWN: ContainerStateTerminated = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
}


def container_statuses(pod: Pod, properties: GroupProperties) -> tuple[list[ContainerStatus], list[ContainerStatus]]:
    """Return the statuses of the init containers and of the containers."""
    spec = pod["spec"]
    inits = _statuses(pod, spec.get("initContainers") or (), "initContainers", properties.get("initContainers"))
    return inits, _statuses(pod, spec["containers"], "containers", properties.get("containers"))


def ephemeral_statuses(pod: Pod, properties: GroupProperties | None, *, ended: bool) -> list[ContainerStatus]:
    """Return the statuses of ephemeral containers. As in a kubelet, they are never ready."""
    specs = pod["spec"]["ephemeralContainers"]
    old = {item["name"]: item for item in (pod.get("status") or {}).get("ephemeralContainerStatuses") or ()}
    items = (properties.get("ephemeralContainers") or []) if properties is not None else []
    there = {item["name"] for item in items}
    statuses: list[ContainerStatus] = []
    for container in specs:
        name = container["name"]
        common: Container = {"name": name, "image": container["image"]}
        if name in there:
            status = _statuses(pod, [common], "ephemeralContainers", items)[0]
        else:
            known = old.get(name)
            status = {**known} if known is not None else waiting_container(common, {"reason": "ContainerCreating"})
        if ended:
            _end_one(status)
        status["ready"] = False
        status.pop("started", None)
        statuses.append(status)
    return statuses


def known_statuses(specs: Sequence[Container], old: Sequence[ContainerStatus], pod: Pod) -> list[ContainerStatus]:
    """Return copies of the statuses that the pod has, or those of containers that have not started."""
    by_name = {item["name"]: item for item in old}
    reason = starting_reason(pod)
    found: list[ContainerStatus] = []
    for container in specs:
        known = by_name.get(container["name"])
        found.append({**known} if known is not None else waiting_container(container, {"reason": reason}))
    for status in found:
        status.setdefault("lastState", {})
        status.setdefault("state", {})
    return found


def starting_reason(pod: Pod) -> str:
    """Return the reason that a container without any other waits."""
    return "PodInitializing" if pod["spec"].get("initContainers") else "ContainerCreating"


def waiting_container(container: Container, waiting: ContainerStateWaiting) -> ContainerStatus:
    """Return the status of a container that has not started."""
    return {
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "ready": False,
        "started": False,
        "restartCount": 0,
        "state": {"waiting": waiting},
        "lastState": {},
    }


def shows_containers(properties: GroupProperties) -> bool:
    """Return whether the containers of a group have instance views; those of a group that is gone may have none."""
    return any(item["properties"].get("instanceView") for item in properties.get("containers") or ())


def end_containers(pod: Pod, inits: list[ContainerStatus], containers: list[ContainerStatus]) -> None:
    """Give every container that has got its turn an end."""
    turn = [item for item in inits if item["restartCount"] or item["state"].keys() & {"running", "terminated"}]
    for status in turn:
        _end_one(status)
    regular = {item["name"] for item in pod["spec"].get("initContainers") or () if not is_sidecar(item)}
    if all(item["ready"] for item in inits if item["name"] in regular):
        for status in containers:
            _end_one(status)
    for status in [*inits, *containers]:
        status["started"] = False
        if status["name"] not in regular:
            status["ready"] = False


def cut_messages(pod: Pod, statuses: Sequence[ContainerStatus]) -> None:
    """Give the last messages of all containers the same share of what a pod can have, as the kubelet does."""
    spec = pod["spec"]
    count = (
        len(spec["containers"]) + len(spec.get("initContainers") or ()) + len(spec.get("ephemeralContainers") or ())
    )
    share = _MESSAGES // count
    for status in statuses:
        for state in (status["state"], status["lastState"]):
            ended = state.get("terminated")
            if ended is not None and len(raw := ended.get("message", "").encode()) > share:
                ended["message"] = raw[:share].decode(errors="ignore")


def _end_one(status: ContainerStatus) -> None:
    if "terminated" in status["state"]:
        return
    if ended := status["lastState"].get("terminated"):
        # It was waiting for its next start.
        status["state"] = {"terminated": ended}
        return
    unknown: ContainerStateTerminated = {**_UNKNOWN}
    if identifier := status.get("containerID"):
        unknown["containerID"] = identifier
    status["state"] = {"terminated": unknown}


def _statuses(
    pod: Pod, specs: Sequence[Container], kind: Kind, items: Sequence[GroupContainer] | None
) -> list[ContainerStatus]:
    uid = pod["metadata"]["uid"]
    creating = starting_reason(pod)
    by_name = {item["name"]: item["properties"] for item in items or ()}
    statuses = []
    for container in specs:
        name = container["name"]
        view: ContainerView = by_name[name].get("instanceView") or {} if name in by_name else {}
        current: GroupContainerState = view.get("currentState") or {}
        running = current.get("state") == "Running"
        # Azure's view has no readiness: there, a running container is ready.
        ready = running and bool(view.get("ready", True))
        if kind == "initContainers" and not is_sidecar(container):
            ready = current.get("state") == "Terminated" and current.get("exitCode") == 0
        # As in a kubelet, a container has an id, an image and a user once it was created.
        created = running or bool(current.get("startTime") or view.get("previousState"))
        attempt = view.get("attempt", 0) if created or current.get("state") == "Terminated" else 0
        identifier = _identifier(uid, name, attempt)
        status: ContainerStatus = {
            "name": name,
            "image": container["image"],
            "imageID": view.get("imageId", "") if attempt else "",
            "ready": ready,
            "started": running and bool(view.get("started", True)),
            "restartCount": view.get("restartCount", 0),
            "state": _current(current, view, creating),
            "lastState": _terminated(view.get("previousState")),
        }
        if ended := status["lastState"].get("terminated"):
            # A container that waits for its next start has the number of the one that has ended.
            ended["containerID"] = _identifier(uid, name, attempt if "waiting" in status["state"] else attempt - 1)
        if identifier:
            status["containerID"] = identifier
            if ended := status["state"].get("terminated"):
                ended["containerID"] = identifier
            _show_resources(container, view, by_name[name], status)
            if user := view.get("user"):
                status["user"] = user
        if mounts := _mount_statuses(container):
            status["volumeMounts"] = mounts
        statuses.append(status)
    return statuses


def _identifier(uid: str, name: str, attempt: int) -> str:
    """Return the id of an attempt of a container, or an empty text when it has none."""
    return f"aci://{uid}/{name}/{attempt}" if attempt > 0 else ""


def _mount_statuses(container: Container) -> list[VolumeMountStatus]:
    """Return the mounts of a container as its status shows them."""
    found: list[VolumeMountStatus] = []
    for mount in container.get("volumeMounts") or ():
        status: VolumeMountStatus = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            status |= {"readOnly": True, "recursiveReadOnly": "Disabled"}
        found.append(status)
    return found


def _show_resources(
    container: Container, view: ContainerView, properties: GroupContainerProperties, status: ContainerStatus
) -> None:
    """Show the resources that a container has. A provider without resizes has given it those of the pod."""
    if "resourceRequirements" not in properties:
        if resources := container.get("resources"):
            status["resources"] = resources
        return
    found = view.get("resources") or {}
    shown: ResourceRequirements = {}
    if requests := found.get("requests"):
        shown["requests"] = requests
    if limits := found.get("limits"):
        shown["limits"] = limits
    status["resources"] = shown
    if allocated := properties["resourceRequirements"].get("requests"):
        status["allocatedResources"] = allocated


def _current(current: GroupContainerState, view: ContainerView, creating: str) -> ContainerState:
    match current.get("state"):
        case "Running":
            return {"running": {"startedAt": _seconds(current["startTime"])}}
        case "Terminated":
            return _terminated(current)
    detail = current.get("detailStatus") or creating
    waiting: ContainerStateWaiting = {"reason": detail}
    if message := current.get("message"):
        waiting["message"] = message
    elif detail in ("ErrImagePull", "ImagePullBackOff", "CrashLoopBackOff"):
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
    if message := state.get("message"):
        terminated["message"] = message
    if started := state.get("startTime"):
        terminated["startedAt"] = _seconds(started)
    if finished := state.get("finishTime"):
        terminated["finishedAt"] = _seconds(finished)
    return {"terminated": terminated}


def _seconds(moment: str) -> str:
    """Return an RFC 3339 time without fractions of a second."""
    return clock.rfc3339(clock.parse(moment))
