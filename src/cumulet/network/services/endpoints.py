"""The end points of a port of a Service, as kube-proxy chooses them (KEP-1669, EndpointSlice v1).

Ready end points serve. If there are none, those that terminate and still serve do, so that a rollout loses no connection.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Callable, Iterable

from cumulet.common.egress import Egress, RefusedAddressError
from cumulet.common.kubernetes.objects import EndpointSlice, ServicePort
from cumulet.network.services.model import Backend

#: Whether packets may be sent to an end point.
Reachable = Callable[[str, int], bool]

_REMEMBERED = 65536


def backends(slices: Iterable[EndpointSlice], port: ServicePort, reachable: Reachable) -> tuple[Backend, ...]:
    """Return the end points of a port in order, without those that are not reachable.

    A slice counts with its ports of the same name and protocol. A port without a number, which means all ports, is of no
    use to a Service.
    """
    ready: set[Backend] = set()
    ending: set[Backend] = set()
    name, protocol = port.get("name") or "", port.get("protocol") or "TCP"
    for item in slices:
        if item.get("addressType") != "IPv4":
            continue
        numbers = [
            number
            for one in item.get("ports") or ()
            if (one.get("name") or "") == name and (one.get("protocol") or "TCP") == protocol
            if (number := one.get("port")) is not None and 0 < number < 65536
        ]
        for endpoint in item.get("endpoints") or () if numbers else ():
            conditions = endpoint.get("conditions") or {}
            # A condition that is not set counts as ready (EndpointConditions).
            is_ready = conditions.get("ready") is not False
            serves = conditions.get("serving") if conditions.get("serving") is not None else is_ready
            if is_ready:
                chosen = ready
            elif serves and conditions.get("terminating"):
                chosen = ending
            else:
                continue
            # Further addresses are other ways to the same end point.
            address = _canonical(endpoint["addresses"][0]) if endpoint["addresses"] else None
            if address is not None:
                chosen |= {Backend(address, number) for number in numbers if reachable(address, number)}
    return tuple(sorted(ready or ending))


def reachable_in(pods: str, egress: Egress) -> Reachable:
    """Return the check of end points, whose addresses users can write (`common.egress`).

    Pods may be reached, and the doors of the router, at whose address the rules of the router decide. The machine's own
    address in `pods` (CIDR), the second one, may not.
    """
    network = ipaddress.IPv4Network(pods)
    machine, broadcast = network.network_address + 2, network.broadcast_address

    @functools.lru_cache(_REMEMBERED)
    def check(address: str, port: int) -> bool:
        parsed = ipaddress.IPv4Address(address)
        if parsed in network:
            return parsed not in (machine, broadcast, network.network_address)
        try:
            egress.check(address, port)
        except RefusedAddressError:
            return False
        return True

    return check


def _canonical(text: str) -> str | None:
    """Return an IPv4 address in canonical form, or `None`. The text itself if it has that form, to share its memory."""
    try:
        found = str(ipaddress.IPv4Address(text))
    except ValueError:
        return None
    return text if text == found else found
