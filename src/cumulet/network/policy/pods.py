"""What network policies match of a pod."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import NamedTuple

from cumulet.common.kubernetes.objects import Pod
from cumulet.network.policy.model import PROTOCOLS, Key, NamedPort


class Member(NamedTuple):
    """A pod with an address: its labels, and the numbers of its named ports."""

    key: Key
    address: ipaddress.IPv4Address
    labels: Mapping[str, str]
    ports: Mapping[NamedPort, int]


def member_of(pod: Pod) -> Member | None:
    """Return what policies match of a pod, or `None` while it has no address of its own.

    A pod that is over has given its address back, and one of the host's network never had one.
    """
    metadata, spec, status = pod["metadata"], pod.get("spec") or {}, pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed") or spec.get("hostNetwork"):
        return None
    texts = [status.get("podIP", ""), *(item.get("ip", "") for item in status.get("podIPs") or ())]
    addresses = [found for text in texts if (found := _address(text)) is not None]
    if not addresses:
        return None
    ports: dict[NamedPort, int] = {}
    sidecars = [item for item in spec.get("initContainers") or () if item.get("restartPolicy") == "Always"]
    for container in [*spec.get("containers", ()), *sidecars]:
        for port in container.get("ports") or ():
            protocol = PROTOCOLS.get(port.get("protocol", "TCP"))
            if port.get("name") and protocol is not None:
                ports.setdefault(NamedPort(protocol, port["name"]), port["containerPort"])
    return Member((metadata["namespace"], metadata["name"]), addresses[0], metadata.get("labels") or {}, ports)


def _address(text: str) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text)
    except ValueError:
        return None
