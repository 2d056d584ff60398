"""The limits of a container's processes in addition to its control group.

Resource limits (setrlimit(2)), and the score by which the kernel selects processes to kill when memory is short (proc(5),
oom_score_adj; the kubelet's `qos` policy).
"""

from __future__ import annotations

import os
import resource
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from cumulet.instances.model.amounts import CPU, MEMORY
from cumulet.instances.model.properties import Amount, Container, GroupProperties
from cumulet.instances.runtime.configuration import ResourceLimit

#: No limit, as the runtime reads it.
_INFINITY = 2**64 - 1
#: The largest (soft, hard) limits; those of this process bound them.
_LIMITS = {
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_NOFILE": (65_536, 1_048_576),
    "RLIMIT_NPROC": (32_768, 32_768),
}
_GUARANTEED, _LEAST, _MOST, _BEST_EFFORT = -997, 3, 999, 1000
_CAP_SYS_RESOURCE = 24


def resource_limits(capabilities: Collection[str] = ()) -> list[ResourceLimit]:
    """Return `process.rlimits`, none above the limit of this process unless it has the privilege to exceed that.

    A container with CAP_IPC_LOCK can lock all of its memory: in a user namespace the capability alone has no effect.
    """
    unbounded = _has_sys_resource()
    wanted = dict(_LIMITS)
    if "CAP_IPC_LOCK" in capabilities:
        wanted["RLIMIT_MEMLOCK"] = (_INFINITY, _INFINITY)
    limits: list[ResourceLimit] = []
    for name, (soft, hard) in wanted.items():
        _, most = resource.getrlimit(getattr(resource, name))
        bound = hard if unbounded or most == resource.RLIM_INFINITY else min(hard, most)
        limits.append({"type": name, "soft": min(soft, bound), "hard": bound})
    return limits


def oom_score(group: GroupProperties, container: Container) -> int:
    """Return the kubelet's score: -997 for a guaranteed group, 1000 for one without requests and limits, else 999 to 3.

    In between, the score is lower for a larger request of memory. If this process cannot lower its own score, no container
    gets a lower one.
    """
    match qos_class(group):
        case "Guaranteed":
            score = _GUARANTEED
        case "BestEffort":
            score = _BEST_EFFORT
        case _:
            score = _share(container)
    return max(score, lowest_oom_score())


def lowest_oom_score() -> int:
    """Return the lowest score that this process can set."""
    return -1000 if _has_sys_resource() else int(Path("/proc/self/oom_score_adj").read_text())


def qos_class(group: GroupProperties) -> Literal["Guaranteed", "Burstable", "BestEffort"]:
    """Return the quality of service of a group (Kubernetes, "Quality of Service for Pods")."""
    requests_and_limits = [_amounts(item) for item in group.all_containers]
    if not any(value for requests, limits in requests_and_limits for value in (*requests, *limits)):
        return "BestEffort"
    guaranteed = all(requests == limits and all(limits) for requests, limits in requests_and_limits)
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(container: Container) -> tuple[tuple[float | None, ...], tuple[float | None, ...]]:
    """Return the requests and the limits of a container, each of processors and memory."""
    properties = container.properties
    if (required := properties.resource_requirements) is not None:
        limits = (required.limits.millicores, required.limits.bytes)
        requests = (required.requests.millicores, required.requests.bytes)
        # What has a limit and no request requests its limit.
        return tuple(limits[i] if item is None else item for i, item in enumerate(requests)), limits
    resources = properties.resources
    limit = resources.limits or Amount()
    return (
        (resources.requests.cpu or CPU, resources.requests.memory_in_gb or MEMORY),
        (limit.cpu, limit.memory_in_gb),
    )


def _share(container: Container) -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if (required := container.properties.resource_requirements) is not None:
        found = required.limits.bytes if required.requests.bytes is None else required.requests.bytes
        requested: float = found or 0
    else:
        requested = (container.properties.resources.requests.memory_in_gb or MEMORY) * 1_000_000_000
    return max(_LEAST, min(_MOST, 1000 - int(1000 * requested / total)))


def _has_sys_resource() -> bool:
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(effective >> _CAP_SYS_RESOURCE & 1)
