"""The addresses of a service's pods, from its endpoint slices (as upstream's service resolver and proxy)."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from cumulet.common.egress import Egress, RefusedAddressError
from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError, bad_request, not_found
from cumulet.kube.store import Store

if TYPE_CHECKING:
    from cumulet.common.kubernetes.objects import DiscoveryEndpointPort, Endpoint, ServicePort

_SLICES = "endpointslices.discovery.k8s.io"
_OF = "kubernetes.io/service-name"


def resolve(store: Store, namespace: str, name: str, port: str | int = "") -> tuple[str, int]:
    """Return address and port of one ready endpoint, chosen at random; `port` is the service's, by number or name.

    Raises `ApiError` 404 where the service does not exist, and 503 where it has no such port or no ready endpoint.
    """
    stored = store.get("services", namespace, name)
    if stored is None:
        raise not_found("", "services", name)
    ports: list[ServicePort] = (stored.load().get("spec") or {}).get("ports") or []
    if port not in ("", 0) or len(ports) != 1:
        wanted = str(port)
        ports = [item for item in ports if wanted in (str(item.get("port")), item.get("name") or None)]
        if not ports:
            raise ApiError(503, "ServiceUnavailable", f'no service port "{wanted}" found for service "{name}"', {})
    port_name = ports[0].get("name") or ""
    endpoints = [
        (address, number)
        for slice_ in store.list(_SLICES, namespace)
        if slice_.labels.get(_OF) == name
        for address, number in _ready(slice_.load(), port_name)
    ]
    if not endpoints:
        raise ApiError(503, "ServiceUnavailable", f'no endpoints available for service "{name}"', {})
    return random.choice(endpoints)


def _ready(slice_: Object, port_name: str) -> list[tuple[str, int]]:
    ports: list[DiscoveryEndpointPort] = slice_.get("ports") or []
    endpoints: list[Endpoint] = slice_.get("endpoints") or []
    numbers = [port["port"] for port in ports if (port.get("name") or "") == port_name]
    return [
        (address, number)
        for endpoint in endpoints
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or ()
        for number in numbers
        if number
    ]


def check_address(egress: Egress, address: str, port: int) -> None:
    """Refuse to connect to this machine, and to addresses that only this machine reaches: users choose the addresses.

    Raises `ApiError` 400 as upstream does.
    """
    try:
        egress.check(address, port)
    except RefusedAddressError:
        raise bad_request("address not allowed") from None
