"""The sysctls that a pod can set (Kubernetes 1.36, "Using sysctls in a Kubernetes Cluster": the safe set).

They are also those of the level `baseline` (Pod Security Standards, "Sysctls"), since version 1.32. Each belongs to the
namespaces of one pod, and harms no other.
"""

from __future__ import annotations

SAFE = frozenset(
    {
        "kernel.shm_rmid_forced",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_rmem",
        "net.ipv4.tcp_syncookies",
        "net.ipv4.tcp_wmem",
    }
)


def normal(name: str) -> str:
    """Return a name with dots; slashes are accepted too (sysctl(8))."""
    return name.replace("/", ".")
