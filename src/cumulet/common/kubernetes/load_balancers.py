"""Settings of Services that a load balancer reads, in fields and in annotations of Azure and of Kubernetes."""

from __future__ import annotations

import contextlib
import ipaddress

from cumulet.common.ascii import whole_number
from cumulet.common.kubernetes.objects import Service

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: The annotation of the idle timeout in minutes, and Azure's bounds.
_IDLE = "service.beta.kubernetes.io/azure-load-balancer-tcp-idle-timeout"
_LEAST_IDLE, _MOST_IDLE = 4, 100
#: The annotation that came before `loadBalancerSourceRanges`.
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def idle_minutes(service: Service) -> int:
    """Return the idle timeout of TCP connections. A value that is not a number within Azure's bounds is ignored."""
    text = (service["metadata"].get("annotations") or {}).get(_IDLE, "")
    minutes = whole_number(text, 3) or 0
    return minutes if _LEAST_IDLE <= minutes <= _MOST_IDLE else _LEAST_IDLE


def source_ranges(service: Service) -> list[Network] | None:
    """Return the ranges of the clients of an external address, or `None` for everybody; a text that is no range allows nobody.

    The annotation is the older form of the field and is read without it.
    """
    ranges = service["spec"].get("loadBalancerSourceRanges") or []
    annotation = (service["metadata"].get("annotations") or {}).get(_RANGES, "")
    if not ranges and annotation.strip():
        ranges = annotation.split(",")
    if not ranges:
        return None
    networks = []
    for text in ranges:
        with contextlib.suppress(ValueError):
            networks.append(ipaddress.ip_network(text.strip(), strict=False))
    return networks


def external_address(service: Service) -> str:
    """Return the first IP address in a Service's status as it is written there, or an empty text."""
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    address: str = ingress[0].get("ip", "") if ingress else ""
    return address
