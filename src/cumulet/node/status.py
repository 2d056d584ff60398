"""Derives the status of a pod from its container group, as a kubelet derives it from its containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from cumulet.common import clock
from cumulet.common.kubernetes.objects import (
    Container,
    ContainerState,
    ContainerStateTerminated,
    ContainerStateWaiting,
    ContainerStatus,
    Pod,
    PodStatus,
    ResourceRequirements,
    VolumeMountStatus,
)
from cumulet.node.conditions import conditions, disruption_target, resize_conditions
from cumulet.node.phase import ENDED, Phase, is_sidecar, phase_of
from cumulet.node.resource import (
    ContainerGroup,
    ContainerView,
    GroupContainer,
    GroupContainerProperties,
    GroupContainerState,
    GroupProperties,
)

Kind = Literal["initContainers", "containers", "ephemeralContainers"]

_CREATING, _INITIALIZING = "ContainerCreating", "PodInitializing"
#: The state of a group that was stopped through Azure Resource Manager, and the provisioning states of failed groups.
_STOPPED, _FAILED = "Stopped", ("Failed", "Canceled")
#: Bytes of the last messages of all containers of a pod (`MaxPodTerminationMessageLogLength`).
_MESSAGES = 12 * 1024
#: Kubernetes' words for a container that has left no exit code.
_UNKNOWN: ContainerStateTerminated = {
    "exitCode": 137,
    "reason": "ContainerStatusUnknown",
    "message": "The container could not be located when the pod was terminated",
}


def pod_status(pod: Pod, group: ContainerGroup, host: str, refusal: str = "") -> PodStatus:
    """Return the status of a pod that has that group; `refusal` is why its containers cannot be resized."""
    properties = group["properties"]
    inits, containers = _all_statuses(pod, properties)
    view = properties.get("instanceView") or {}
    # A container can have a restart policy of its own, so that the pod's does not say whether it is over.
    over = is_over(group)
    reason = view.get("reason", "")
    phase: Phase = "Failed" if reason and over else phase_of(pod, [*inits, *containers], over=over)
    if phase in ENDED and not over and any(item.get("restartPolicyRules") for item in pod["spec"]["containers"]):
        phase = "Running"  # the provider says when none of these is started again
    status = _status(pod, _kept(pod, phase), inits, containers, host, _address(properties), properties)
    if phase not in ENDED:
        status["conditions"] += resize_conditions(pod, properties, refusal)
    if reason:
        status["reason"], status["message"] = reason, view.get("message", "")
    if reason == "Evicted":
        status["conditions"].append(disruption_target(pod, view.get("message", "")))
    return status


def ended_status(pod: Pod, properties: GroupProperties | None, host: str) -> PodStatus:
    """Return the last status of a pod whose containers are gone for good: Succeeded or Failed, by their exit codes.

    `properties` are the last ones of its group, if there was one. As in the kubelet (`TerminatePod`), a container without
    an exit code has failed, unless the pod has not got that far.
    """
    if properties is not None and _shows_containers(properties):
        inits, containers = _all_statuses(pod, properties)
    else:
        old = pod.get("status") or {}
        inits = _known(pod["spec"].get("initContainers") or (), old.get("initContainerStatuses") or (), pod)
        containers = _known(pod["spec"]["containers"], old.get("containerStatuses") or (), pod)
    _end(pod, inits, containers)
    phase = phase_of(pod, [*inits, *containers], over=True)
    return _status(pod, _kept(pod, phase if phase in ENDED else "Failed"), inits, containers, host, "", properties)


def lost_status(pod: Pod, host: str) -> PodStatus:
    """Return the status of a pod whose group was deleted by someone else."""
    status = ended_status(pod, None, host)
    status["phase"] = "Failed"
    status["reason"] = "NotFound"
    status["message"] = "The pod status was not found and may have been deleted from the provider"
    return status


def waiting_status(pod: Pod, host: str, reason: str, message: str | Mapping[str, str]) -> PodStatus:
    """Return the status of a pod that has no group yet, with the reason.

    The message is of all containers, or of some by their names. The others wait for these.
    """
    spec = pod["spec"]
    all_inits = spec.get("initContainers") or ()

    def waiting(container: Container, *, is_init: bool) -> ContainerStatus:
        text = message.get(container["name"]) if isinstance(message, Mapping) else "" if is_init else message
        if text is None or (is_init and not text):
            return _waiting(container, {"reason": _INITIALIZING if all_inits else _CREATING})
        return _waiting(container, {"reason": reason, "message": text} if text else {"reason": reason})

    inits = [waiting(item, is_init=True) for item in all_inits]
    containers = [waiting(item, is_init=False) for item in spec["containers"]]
    return _status(pod, "Pending", inits, containers, host, "")


def is_over(group: ContainerGroup) -> bool:
    """Return whether nothing of a container group is started again."""
    return _state(group["properties"]) in (_STOPPED, *ENDED)


def has_failed(group: ContainerGroup) -> bool:
    """Return whether a container group has failed for a reason that is not one of its containers."""
    return group["properties"].get("provisioningState") in _FAILED


def is_restarted(pod: Pod) -> bool:
    """Return whether the containers of a pod are restarted when they fail."""
    return bool(pod["spec"].get("restartPolicy", "Always") != "Never")


def pending_status(pod: Pod, reason: str, message: str) -> PodStatus:
    """The status of a pod that the provider refuses for now."""
    return _reasoned(pod, "Pending", reason, message)


def failed_status(pod: Pod, reason: str, message: str) -> PodStatus:
    """The status of a pod that cannot run here."""
    status = _reasoned(pod, "Failed", reason, message)
    status.setdefault("startTime", clock.rfc3339())
    return status


# Parts of a status.


def _reasoned(pod: Pod, phase: Phase, reason: str, message: str) -> PodStatus:
    """Return the status of a pod with another phase and its reason."""
    status: PodStatus = {**(pod.get("status") or {}), "phase": phase, "reason": reason, "message": message}
    if (generation := pod["metadata"].get("generation")) is not None:
        status["observedGeneration"] = generation
    return status


def _status(
    pod: Pod,
    phase: Phase,
    inits: list[ContainerStatus],
    containers: list[ContainerStatus],
    host: str,
    address: str,
    properties: GroupProperties | None = None,
) -> PodStatus:
    """Return a whole status. A pod keeps its start time and, without a new one, its address."""
    old = pod.get("status") or {}
    status: PodStatus = {
        "phase": phase,
        "hostIP": host,
        "hostIPs": [{"ip": host}],
        "startTime": old.get("startTime") or clock.rfc3339(),
        "containerStatuses": containers,
        "conditions": conditions(pod, phase, [*inits, *containers], sandbox=bool(address) and phase not in ENDED),
    }
    _cut_messages(pod, [*inits, *containers])
    if inits:
        status["initContainerStatuses"] = inits
    if (generation := pod["metadata"].get("generation")) is not None:
        status["observedGeneration"] = generation
    if pod["spec"].get("ephemeralContainers"):
        status["ephemeralContainerStatuses"] = _ephemeral_statuses(pod, properties, ended=phase in ENDED)
    if address := address or old.get("podIP", ""):
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if phase in ENDED and phase == old.get("phase"):
        for name in ("reason", "message"):
            if name in old:
                status[name] = old[name]
    return status


def _cut_messages(pod: Pod, statuses: Sequence[ContainerStatus]) -> None:
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


def _kept(pod: Pod, phase: Phase) -> Phase:
    """Return the phase, or the one that the pod has ended with: it has no other one after that."""
    old = (pod.get("status") or {}).get("phase")
    return next((ended for ended in ENDED if ended == old), phase)


def _state(properties: GroupProperties) -> str:
    return (properties.get("instanceView") or {}).get("state", "")


def _address(properties: GroupProperties) -> str:
    return (properties.get("ipAddress") or {}).get("ip", "")


def _shows_containers(properties: GroupProperties) -> bool:
    """Return whether the containers of a group have instance views; those of a group that is gone may have none."""
    return any(item["properties"].get("instanceView") for item in properties.get("containers") or ())


def _all_statuses(pod: Pod, properties: GroupProperties) -> tuple[list[ContainerStatus], list[ContainerStatus]]:
    """Return the statuses of the init containers and of the containers."""
    spec = pod["spec"]
    inits = _statuses(pod, spec.get("initContainers") or (), "initContainers", properties.get("initContainers"))
    return inits, _statuses(pod, spec["containers"], "containers", properties.get("containers"))


def _end(pod: Pod, inits: list[ContainerStatus], containers: list[ContainerStatus]) -> None:
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


def _known(specs: Sequence[Container], old: Sequence[ContainerStatus], pod: Pod) -> list[ContainerStatus]:
    """Return copies of the statuses that the pod has, or those of containers that have not started."""
    by_name = {item["name"]: item for item in old}
    reason = _INITIALIZING if pod["spec"].get("initContainers") else _CREATING
    found: list[ContainerStatus] = []
    for container in specs:
        known = by_name.get(container["name"])
        found.append({**known} if known is not None else _waiting(container, {"reason": reason}))
    for status in found:
        status.setdefault("lastState", {})
        status.setdefault("state", {})
    return found


def _waiting(container: Container, waiting: ContainerStateWaiting) -> ContainerStatus:
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


def _ephemeral_statuses(pod: Pod, properties: GroupProperties | None, *, ended: bool) -> list[ContainerStatus]:
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
            status = {**known} if known is not None else _waiting(common, {"reason": _CREATING})
        if ended:
            _end_one(status)
        status["ready"] = False
        status.pop("started", None)
        statuses.append(status)
    return statuses


def _statuses(
    pod: Pod, specs: Sequence[Container], kind: Kind, items: Sequence[GroupContainer] | None
) -> list[ContainerStatus]:
    uid = pod["metadata"]["uid"]
    creating = _INITIALIZING if pod["spec"].get("initContainers") else _CREATING
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
        attempt = view.get("attempt", 0)
        identifier = _identifier(uid, name, attempt)
        status: ContainerStatus = {
            "name": name,
            "image": container["image"],
            "imageID": view.get("imageId", ""),
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
