"""The conditions of a pod that a kubelet owns, in its words. Conditions of others are left alone."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.common import clock
from cumulet.common.kubernetes.objects import ContainerStatus, Pod, PodCondition
from cumulet.node.phase import Phase, any_started, is_sidecar
from cumulet.node.resizes import plain
from cumulet.node.resource import GroupProperties

_COMPLETED, _FAILED = "PodCompleted", "PodFailed"


def conditions(pod: Pod, phase: Phase, statuses: Sequence[ContainerStatus], *, sandbox: bool) -> list[PodCondition]:
    """Return the kubelet's conditions. `statuses` include init containers; `sandbox` says that the pod has an address."""
    contained = _containers_ready(pod, phase, statuses)
    ready = contained
    if ready == ("True", "", "") and (message := _readiness_gates(pod)):
        ready = ("False", "ReadinessGatesNotReady", message)
    return [
        _condition(pod, "PodReadyToStartContainers", ("True" if sandbox else "False", "", "")),
        _condition(pod, "Initialized", _initialized(pod, phase, statuses)),
        _condition(pod, "Ready", ready),
        _condition(pod, "ContainersReady", contained),
        _condition(pod, "PodScheduled", ("True", "", "")),
    ]


def resize_conditions(pod: Pod, properties: GroupProperties, refusal: str) -> list[PodCondition]:
    """Return the conditions of a resize; `refusal` is why the group does not take the pod's resources."""
    found = []
    if refusal:
        found.append(_condition(pod, "PodResizePending", ("True", "Infeasible", refusal)))
    under_way, errors = False, []
    for item in [*properties["containers"], *(properties.get("initContainers") or ())]:
        view = item["properties"].get("instanceView") or {}
        wanted = item["properties"].get("resourceRequirements")
        if wanted is None or (view.get("currentState") or {}).get("state") != "Running":
            continue
        if plain(view.get("resources", {})) != plain(wanted):
            under_way = True
            errors += [text for text in (view.get("resizeError"),) if text]
    if under_way:
        value = ("True", "Error", "; ".join(errors)) if errors else ("True", "", "")
        found.append(_condition(pod, "PodResizeInProgress", value))
    return found


def disruption_target(pod: Pod, message: str) -> PodCondition:
    """Return the condition of a pod that the kubelet evicts."""
    return _condition(pod, "DisruptionTarget", ("True", "TerminationByKubelet", message))


#: Status, reason and message.
_Value = tuple[str, str, str]


def _initialized(pod: Pod, phase: Phase, statuses: Sequence[ContainerStatus]) -> _Value:
    by_name = {item["name"]: item for item in statuses}
    unknown, incomplete = [], []
    for container in pod["spec"].get("initContainers") or ():
        name = container["name"]
        status = by_name.get(name)
        if status is None:
            unknown.append(name)
        elif not (status.get("started") if is_sidecar(container) else status["ready"]):
            incomplete.append(name)
    if phase == "Succeeded" and not unknown:
        return "True", _COMPLETED, ""
    if any_started(pod, statuses):
        return "True", "", ""
    message = _message(unknown, incomplete, "incomplete")
    return ("False", "ContainersNotInitialized", message) if message else ("True", "", "")


def _containers_ready(pod: Pod, phase: Phase, statuses: Sequence[ContainerStatus]) -> _Value:
    by_name = {item["name"]: item for item in statuses}
    spec = pod["spec"]
    sidecars = [container for container in spec.get("initContainers") or () if is_sidecar(container)]
    unknown, unready = [], []
    for container in [*sidecars, *spec["containers"]]:
        status = by_name.get(container["name"])
        if status is None:
            unknown.append(container["name"])
        elif not status["ready"]:
            unready.append(container["name"])
    if phase == "Succeeded" and not unknown:
        return "False", _COMPLETED, ""
    if phase == "Failed":
        return "False", _FAILED, ""
    message = _message(unknown, unready, "unready")
    return ("False", "ContainersNotReady", message) if message else ("True", "", "")


def _readiness_gates(pod: Pod) -> str:
    """Return which conditions the pod's readiness gates wait for, or an empty text."""
    found = {item["type"]: item["status"] for item in (pod.get("status") or {}).get("conditions") or ()}
    told = []
    for gate in pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in found:
            told.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif found[kind] != "True":
            told.append(f'the status of pod readiness gate "{kind}" is not "True", but {found[kind]}')
    return ", ".join(told)


def _message(unknown: Sequence[str], others: Sequence[str], what: str) -> str:
    parts = [f"containers with unknown status: [{' '.join(unknown)}]"] if unknown else []
    if others:
        parts.append(f"containers with {what} status: [{' '.join(others)}]")
    return ", ".join(parts)


def _condition(pod: Pod, kind: str, value: _Value) -> PodCondition:
    """Return a condition, which keeps its time while its status is the same."""
    before = next((item for item in (pod.get("status") or {}).get("conditions") or () if item["type"] == kind), None)
    same = before is not None and before["status"] == value[0]
    condition: PodCondition = {
        "type": kind,
        "status": value[0],
        "lastProbeTime": None,  # type: ignore[typeddict-item]  # upstream writes null
        "lastTransitionTime": before["lastTransitionTime"] if same and before is not None else clock.rfc3339(),
    }
    if (generation := pod["metadata"].get("generation")) is not None:
        condition["observedGeneration"] = generation
    if value[1]:
        condition["reason"] = value[1]
    if value[2]:
        condition["message"] = value[2]
    return condition
