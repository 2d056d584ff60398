"""The settings of the kernel that a group can have (Kubernetes, "Using sysctls in a Kubernetes Cluster").

They are the kubelet's safe set. They are set in the namespaces of the group when a container starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from cumulet.common.kubernetes.sysctls import SAFE, normal

#: As in containerd: every process may bind low ports and ping, without a capability.
_DEFAULTS = {"net.ipv4.ip_unprivileged_port_start": "0", "net.ipv4.ping_group_range": "0 65535"}
#: Numbers, ranges of them, and the separators of lists.
_VALUE = re.compile(r"[0-9][0-9 \t,-]{0,255}")


class SysctlError(ValueError):
    """A setting is not one that a group can have; the message has its name."""


def check_sysctl(name: str, value: str) -> None:
    """Raise `SysctlError` for a name that is not in the safe set, or a value that no such setting has."""
    if normal(name) not in SAFE:
        raise SysctlError(f'forbidden sysctl: "{name[:100]}" not allowlisted')
    if not _VALUE.fullmatch(value):
        raise SysctlError(f'the value of sysctl "{name[:100]}" is not a list of numbers')


def of_group(sysctls: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return the settings of a group, by name, with the defaults of those that it does not set."""
    return {**_DEFAULTS, **{normal(name): value for name, value in sysctls}}
