"""The phase of a pod, from the statuses of its containers, as in the kubelet (`getPhase`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from cumulet.common.kubernetes.objects import Container, ContainerStatus, Pod

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]

ENDED: tuple[Phase, ...] = ("Succeeded", "Failed")


def is_sidecar(container: Container) -> bool:
    """Return whether an init container runs beside the others (`restartPolicy: Always`)."""
    return container.get("restartPolicy") == "Always"


def any_started(pod: Pod, containers: Iterable[ContainerStatus]) -> bool:
    """Return whether a container that is no init container runs or has ended."""
    names = {container["name"] for container in pod["spec"]["containers"]}
    return any(
        item["name"] in names and bool(item["state"].keys() & {"running", "terminated"}) for item in containers
    )


def phase_of(pod: Pod, statuses: Iterable[ContainerStatus], *, over: bool) -> Phase:
    """Return the phase of a pod with these container statuses, of init containers too.

    `over` says that no container is started again, whatever the restart policy.
    """
    spec = pod["spec"]
    by_name = {item["name"]: item for item in statuses}
    policy = spec.get("restartPolicy", "Always")
    pending, failed, starting = _init_containers(spec.get("initContainers") or (), by_name)
    if failed and policy == "Never":
        return "Failed"
    count = _count(spec.get("initContainers") or (), spec["containers"], by_name)
    if pending or (starting and not any_started(pod, by_name.values())) or count.waiting:
        return "Pending"
    if count.unknown:
        return "Pending"
    if count.running:
        return "Running"
    if not count.stopped:
        return "Pending"
    ended: Phase = "Succeeded" if count.stopped == count.succeeded else "Failed"
    if over:
        return ended
    if policy == "Always" or (policy == "OnFailure" and ended == "Failed"):
        return "Running"
    return ended


@dataclass
class _Count:
    """How many containers there are in each state; `stopped` includes those that wait for another start."""

    running: int = 0
    waiting: int = 0
    stopped: int = 0
    succeeded: int = 0
    unknown: int = 0


def _init_containers(
    containers: Iterable[Container], by_name: Mapping[str, ContainerStatus]
) -> tuple[bool, bool, bool]:
    """Return whether an init container is pending, whether one has failed, and whether a sidecar is still starting."""
    pending = failed = starting = False
    for container in containers:
        status = by_name.get(container["name"])
        state = status["state"] if status is not None else {}
        last = _exit_code(status["lastState"]) if status is not None else None
        if is_sidecar(container):
            if status is None or "terminated" in state:
                continue
            starting |= not status.get("started") if "running" in state else last is None
        elif "terminated" in state:
            failed |= _exit_code(state) != 0
        elif "waiting" in state and last is not None:
            failed |= last != 0
        else:
            pending = True
    return pending, failed, starting


def _count(
    inits: Iterable[Container], containers: Iterable[Container], by_name: Mapping[str, ContainerStatus]
) -> _Count:
    """Count the states of containers and sidecars. A sidecar that has ended does not count."""
    count = _Count()
    sidecars = [container for container in inits if is_sidecar(container)]
    for container in [*sidecars, *containers]:
        beside = is_sidecar(container) and container in sidecars
        status = by_name.get(container["name"])
        if status is None or not status["state"]:
            count.unknown += 1
        elif "running" in status["state"]:
            count.running += 1
        elif "terminated" in status["state"]:
            if not beside:
                count.stopped += 1
                count.succeeded += _exit_code(status["state"]) == 0
        elif "terminated" not in status["lastState"]:
            count.waiting += 1
        elif not beside:
            count.stopped += 1
    return count


def _exit_code(state: Mapping[str, object]) -> int | None:
    ended = state.get("terminated")
    return ended.get("exitCode", 0) if isinstance(ended, dict) else None
