"""The limits of a container's control group (OCI Runtime Specification 1.0, `linux.resources`).

The numbers are the kubelet's (`pkg/kubelet/cm/helpers_linux.go`): exact to the byte and to the thousandth of a processor.
The runtime translates them for control groups of version 2.
"""

from __future__ import annotations

from cumulet.instances.model import amounts
from cumulet.instances.model.pod import ResourceRequirements
from cumulet.instances.model.properties import Amount, Container, GroupProperties
from cumulet.instances.runtime.configuration import Resources

#: Microseconds.
_PERIOD, _LEAST_QUOTA = 100_000, 1000
_LEAST_SHARES, _MOST_SHARES = 2, 262_144
_PROCESSES = 4096


def control_group_limits(group: GroupProperties, container: Container) -> Resources:
    """Return the limits of a container.

    With `resourceRequirements` it has exactly those. Without its own, it shares the requests of the whole group, as in ACI.
    """
    required = container.properties.resource_requirements
    cpu, memory = _of_pod(required) if required is not None else _of_aci(group, container)
    return {
        "cpu": cpu,
        "memory": memory,
        "pids": {"limit": _PROCESSES},
        "devices": [{"allow": False, "access": "rwm"}],
    }


def _of_pod(required: ResourceRequirements) -> tuple[dict[str, int], dict[str, int]]:
    limit, memory = required.limits.millicores, required.limits.bytes
    requested = required.requests.millicores
    cpu = {"period": _PERIOD, "shares": _shares(requested if requested is not None else limit or 0)}
    if limit:
        cpu["quota"] = _quota(limit)
    return cpu, {"limit": memory, "swap": memory} if memory else {}


def _of_aci(group: GroupProperties, container: Container) -> tuple[dict[str, int], dict[str, int]]:
    resources = container.properties.resources
    limits = resources.limits or Amount()
    whole_cpu, whole_memory = amounts.total(group)
    cpu = whole_cpu if limits.cpu is None else limits.cpu
    memory = whole_memory if limits.memory_in_gb is None else limits.memory_in_gb
    requested = amounts.CPU if resources.requests.cpu is None else resources.requests.cpu
    total = round(memory * 1_000_000_000)
    return (
        {"period": _PERIOD, "quota": _quota(round(cpu * 1000)), "shares": _shares(round(requested * 1000))},
        {"limit": total, "swap": total},
    )


def _quota(millicores: int) -> int:
    return max(millicores * _PERIOD // 1000, _LEAST_QUOTA)


def _shares(millicores: int) -> int:
    return min(max(millicores * 1024 // 1000, _LEAST_SHARES), _MOST_SHARES)
