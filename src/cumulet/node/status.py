"""Derives the status of a pod from its container group, as a kubelet derives it from its containers."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.common import clock
from cumulet.common.kubernetes.objects import (
    Container,
    ContainerStatus,
    Pod,
    PodStatus,
)
from cumulet.node.conditions import conditions, disruption_target, resize_conditions
from cumulet.node.container_status import (
    container_statuses,
    cut_messages,
    end_containers,
    ephemeral_statuses,
    known_statuses,
    shows_containers,
    starting_reason,
    waiting_container,
)
from cumulet.node.phase import ENDED, Phase, phase_of
from cumulet.node.resource import (
    ContainerGroup,
    GroupProperties,
)

#: The state of a group that was stopped through Azure Resource Manager, and the provisioning states of failed groups.
_STOPPED, _FAILED = "Stopped", ("Failed", "Canceled")


def pod_status(pod: Pod, group: ContainerGroup, host: str, refusal: str = "") -> PodStatus:
    """Return the status of a pod that has that group; `refusal` is why its containers cannot be resized."""
    properties = group["properties"]
    inits, containers = container_statuses(pod, properties)
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
    if properties is not None and shows_containers(properties):
        inits, containers = container_statuses(pod, properties)
    else:
        old = pod.get("status") or {}
        inits = known_statuses(pod["spec"].get("initContainers") or (), old.get("initContainerStatuses") or (), pod)
        containers = known_statuses(pod["spec"]["containers"], old.get("containerStatuses") or (), pod)
    end_containers(pod, inits, containers)
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
            return waiting_container(container, {"reason": starting_reason(pod)})
        return waiting_container(container, {"reason": reason, "message": text} if text else {"reason": reason})

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
    cut_messages(pod, [*inits, *containers])
    if inits:
        status["initContainerStatuses"] = inits
    if (generation := pod["metadata"].get("generation")) is not None:
        status["observedGeneration"] = generation
    if pod["spec"].get("ephemeralContainers"):
        status["ephemeralContainerStatuses"] = ephemeral_statuses(pod, properties, ended=phase in ENDED)
    if address := address or old.get("podIP", ""):
        status |= {"podIP": address, "podIPs": [{"ip": address}]}
    if phase in ENDED and phase == old.get("phase"):
        for name in ("reason", "message"):
            if name in old:
                status[name] = old[name]
    return status


def _kept(pod: Pod, phase: Phase) -> Phase:
    """Return the phase, or the one that the pod has ended with: it has no other one after that."""
    old = (pod.get("status") or {}).get("phase")
    return next((ended for ended in ENDED if ended == old), phase)


def _state(properties: GroupProperties) -> str:
    return (properties.get("instanceView") or {}).get("state", "")


def _address(properties: GroupProperties) -> str:
    return (properties.get("ipAddress") or {}).get("ip", "")
