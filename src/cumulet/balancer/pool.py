"""The EXTERNAL-IPs of one range: which Service has which. They are in the status of the Services, so that a restart keeps them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from cumulet.common.kubernetes.load_balancers import external_address
from cumulet.common.kubernetes.objects import Service

#: The namespace and the name of a Service.
Key = tuple[str, str]


class NoAddressError(Exception):
    """A Service gets no address; the message says why."""


class Pool:
    """The range and who has its addresses."""

    def __init__(self, cidr: str) -> None:
        self.range = ipaddress.IPv4Network(cidr)
        self._addresses: dict[Key, str] = {}

    def adopt(self, services: Iterable[Service]) -> None:
        """Keep the addresses that a previous process allocated.

        Of two Services with one address the older one keeps it, or the one that was not written last.
        """
        for service in sorted(services, key=_age):
            if service["spec"].get("type") == "LoadBalancer" and (address := self._valid_address(service)):
                self._addresses[key_of(service)] = address

    def release(self, key: Key) -> None:
        """Take the address of a Service back, if it has one."""
        self._addresses.pop(key, None)

    def address_of(self, service: Service) -> str:
        """Return the address of a Service, which stays the same. Raises `NoAddressError`."""
        key, current = key_of(service), external_address(service)
        address = self._addresses.get(key) or self._valid_address(service)
        if not address or (current and current != address):
            address = self._choose(service)
        self._addresses[key] = address
        return address

    def _valid_address(self, service: Service) -> str:
        """Return the address in a service's status if it is in the range and no other service has it, or an empty text.

        Any user that may write the status chooses it.
        """
        allocated = external_address(service)
        return allocated if self._holds(allocated) and allocated not in self._taken(service) else ""

    def _choose(self, service: Service) -> str:
        """Return the address that the Service requests, or the first free one. Raises `NoAddressError`."""
        taken = self._taken(service)
        if requested := service["spec"].get("loadBalancerIP"):
            if not self._holds(requested):
                raise NoAddressError(f"the requested address {requested} is not in the range {self.range}")
            if requested in taken:
                raise NoAddressError(f"the requested address {requested} is in use")
            return requested
        for host in self.range.hosts():
            if str(host) not in taken:
                return str(host)
        raise NoAddressError(f"no address is left in {self.range}")

    def _holds(self, address: str) -> bool:
        try:
            return ipaddress.ip_address(address) in self.range
        except ValueError:
            return False

    def _taken(self, service: Service) -> set[str]:
        return {address for key, address in self._addresses.items() if key != key_of(service)}


def key_of(service: Service) -> Key:
    """Return the namespace and the name of a Service."""
    return service["metadata"]["namespace"], service["metadata"]["name"]


def _age(service: Service) -> tuple[str, int]:
    metadata = service["metadata"]
    return metadata.get("creationTimestamp") or "", int(metadata.get("resourceVersion") or 0)
