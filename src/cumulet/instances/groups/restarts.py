"""Whether a container that has ended is started again, and when, as the kubelet decides it."""

from __future__ import annotations

from datetime import timedelta

from cumulet.common import clock
from cumulet.instances.actions.result import duration
from cumulet.instances.model.lifecycle import RestartPolicy
from cumulet.instances.model.properties import ContainerProperties
from cumulet.instances.store.records import ContainerStatus, GroupRecord

#: Seconds of the first back-off, and of the longest (`MaxContainerBackOff`).
_FIRST, _LONGEST = 10, 300
#: A container that ends this long after its last start has the first back-off again.
_STABLE = timedelta(seconds=2 * _LONGEST)


def is_restarted(properties: ContainerProperties, policy: RestartPolicy, code: int) -> bool:
    """Return whether a container is started again; `policy` is the group's, which the container's has precedence over."""
    if any(rule.exit_codes.match(code) for rule in properties.restart_policy_rules):
        return True
    policy = properties.restart_policy or policy
    return policy == "Always" or (policy == "OnFailure" and code != 0)


def begin_back_off(status: ContainerStatus) -> float:
    """Return the seconds until the next start of a container that has ended, 0 if it is started at once.

    The first restart has no back-off. The periods are counted from the end, so that they survive a restart of the room.
    """
    end = status.last_end
    finished = clock.parse(end.finish_time) if end is not None and end.finish_time else clock.now()
    if not status.back_off or status.back_off_left is None:
        return 0.0
    if finished - clock.parse(status.back_off_left) > _STABLE:
        status.back_off = 0
        return 0.0
    return max((finished - clock.now()).total_seconds() + status.back_off, 0.0)


def leave_back_off(status: ContainerStatus) -> None:
    """Record that a container is started again: its next back-off is twice as long."""
    status.back_off = min(status.back_off * 2, _LONGEST) if status.back_off else _FIRST
    status.back_off_left = clock.rfc3339_micro()


def back_off_message(status: ContainerStatus, container: str, record: GroupRecord) -> str:
    """Return the kubelet's message about a container that waits."""
    return f"back-off {duration(status.back_off)} restarting failed container={container} pod={pod_of(record)}"


def pod_of(record: GroupRecord) -> str:
    """Return how the kubelet names the pod of a group: `name_namespace(uid)`; without a pod, the name of the group."""
    tags = record.tags
    if {"PodName", "Namespace", "UID"} <= tags.keys():
        return f"{tags['PodName']}_{tags['Namespace']}({tags['UID']})"
    return record.id.rsplit("/", 1)[-1]
