"""When the start of a group has come to its end, and with which error.

Groups of a virtual node are not looked at: their pulls and starts are repeated, as in a kubelet.
"""

from __future__ import annotations

from typing import NamedTuple

from cumulet.instances.model.properties import Container
from cumulet.instances.store.records import ContainerStatus, GroupRecord

_PULLING = ("ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName")
_NOT_STARTED = ("StartError", "CreateContainerError", "RunContainerError", "CreateContainerConfigError")
_CRASHING = "CrashLoopBackOff"
#: The event of a sandbox that was not made, for example because a volume cannot be, and the number of tries.
_SANDBOX, _SANDBOXES = "FailedCreatePodSandBox", 3


class Failure(NamedTuple):
    """Why a start failed, in ARM's form; `ends` is whether it ends the group."""

    code: str
    message: str
    ends: bool = False


def is_provisioned(record: GroupRecord) -> bool:
    """Return whether every container has started, or the group has ended by its containers."""
    status = record.status
    if status.is_over:
        return True
    containers = [status.containers.get(item.name) for item in record.properties.containers]
    return all(
        item is not None and (item.current_state.state != "Waiting" or item.previous_state is not None)
        for item in containers
    )


def failure(record: GroupRecord) -> Failure | None:
    """Return why the start of a group has failed, if it has."""
    group = record.id.rsplit("/", 1)[-1]
    for container in record.properties.all_containers:
        status = record.status.containers.get(container.name)
        if status is None:
            continue
        if status.current_state.state == "Waiting" and status.current_state.detail_status in _PULLING:
            return inaccessible(group, container.properties.image, _last_event(status))
        details = [
            state.detail_status for state in (status.current_state, status.previous_state) if state is not None
        ]
        if any(detail in _NOT_STARTED for detail in details):
            return Failure(
                "ContainerStartFailed",
                f"The container '{container.name}' in container group '{group}' cannot be started. {_last_event(status)}",
            )
        if container in record.properties.init_containers and _has_failed(container, status, record):
            return Failure(
                "InitContainerFailed",
                f"The init container '{container.name}' in container group '{group}' failed. {_last_event(status)}",
            )
    failures = [event for event in record.status.events if event.name == _SANDBOX]
    if sum(event.count for event in failures) >= _SANDBOXES:
        return Failure("ContainerGroupFailed", failures[-1].message, ends=True)
    if record.status.provisioning_state == "Failed":
        events = record.status.events
        return Failure(
            "ContainerGroupFailed", events[-1].message if events else f"The container group '{group}' failed."
        )
    return None


def inaccessible(group: str, image: str, reason: str) -> Failure:
    """Return the failure for an image that cannot be pulled, in ACI's words, with the registry's reason."""
    return Failure(
        "InaccessibleImage",
        f"The image '{image}' in container group '{group}' is not accessible. Please check the image and registry "
        f"credential. {reason}",
        ends=True,
    )


def _has_failed(container: Container, status: ContainerStatus, record: GroupRecord) -> bool:
    """Return whether an init container has failed, and is not run again at once."""
    state = status.current_state
    if state.state == "Waiting":
        return state.detail_status == _CRASHING
    return state.state == "Terminated" and state.exit_code != 0 and record.properties.restart_policy == "Never"


def _last_event(status: ContainerStatus) -> str:
    """Return the newest reason in the events of a container."""
    reasons = [event.message for event in status.events if event.name == "Failed" and ": " in event.message]
    reasons = [reason for reason in reasons if not reason.startswith(("Error: ErrImage", "Error: ImagePull"))]
    return reasons[-1] if reasons else ""
