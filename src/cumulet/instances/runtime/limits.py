"""The limits of a container's processes in addition to its control group.

Resource limits (setrlimit(2)), and the score by which the kernel selects processes to kill when memory is short (proc(5),
oom_score_adj; the kubelet's `qos` policy).
"""

from __future__ import annotations

import os
import resource
from pathlib import Path

from cumulet.instances.model.amounts import MEMORY
from cumulet.instances.model.properties import Container, GroupProperties
from cumulet.instances.runtime.configuration import ResourceLimit

#: The largest (soft, hard) limits; those of this process bound them.
_LIMITS = {
    "RLIMIT_CORE": (0, 0),
    "RLIMIT_NOFILE": (65_536, 1_048_576),
    "RLIMIT_NPROC": (32_768, 32_768),
}
_GUARANTEED, _LEAST, _MOST = -997, 3, 999
_CAP_SYS_RESOURCE = 24


def resource_limits() -> list[ResourceLimit]:
    """Return `process.rlimits`, none above the limit of this process, which would need a privilege."""
    limits: list[ResourceLimit] = []
    for name, (soft, hard) in _LIMITS.items():
        _, most = resource.getrlimit(getattr(resource, name))
        bound = hard if most == resource.RLIM_INFINITY else min(hard, most)
        limits.append({"type": name, "soft": min(soft, bound), "hard": bound})
    return limits


def oom_score(group: GroupProperties, container: Container) -> int:
    """Return -997 when every limit of the group equals its request, else 999 to 3: lower for a larger memory request.

    If this process cannot lower its own score, no container gets a lower one.
    """
    score = _GUARANTEED if _is_guaranteed(group) else _share(container)
    return max(score, lowest_oom_score())


def lowest_oom_score() -> int:
    """Return the lowest score that this process can set."""
    status = Path("/proc/self/status").read_text()
    effective = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapEff:"))
    if effective >> _CAP_SYS_RESOURCE & 1:
        return -1000
    return int(Path("/proc/self/oom_score_adj").read_text())


def _is_guaranteed(group: GroupProperties) -> bool:
    resources = [item.properties.resources for item in group.all_containers]
    return all(
        item.limits is not None
        and item.requests.cpu is not None
        and item.requests.memory_in_gb is not None
        and (item.limits.cpu, item.limits.memory_in_gb) == (item.requests.cpu, item.requests.memory_in_gb)
        for item in resources
    )


def _share(container: Container) -> int:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    requested = (container.properties.resources.requests.memory_in_gb or MEMORY) * 1_000_000_000
    return max(_LEAST, min(_MOST, 1000 - int(1000 * requested / total)))
