"""The names of addresses: cluster IPs, and the endpoints of headless Services (PTR)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import dns.name
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdatatype import RdataType

from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import EndpointSlice, Service
from cumulet.network.dns.zone import (
    DOMAIN,
    FOREVER,
    NEGATIVE_TTL,
    TTL,
    ClusterZone,
    cluster_ips,
    host_of,
    is_headless,
    is_ready,
    service_of,
)

REVERSE = dns.name.from_text("in-addr.arpa")


class ReverseNames:
    """Answers for the addresses of a cluster. `ranges` are its own, whose other addresses have no name anywhere."""

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        zone: ClusterZone,
        ranges: list[ipaddress.IPv4Network],
    ) -> None:
        self._services, self._slices, self._zone, self._ranges = services, slices, zone, ranges
        services.add_index("dns address", cluster_ips)
        slices.add_index("dns address", _addresses)

    def find(self, name: Name, kind: RdataType) -> Answer | None:
        """Answer a question for a name below `in-addr.arpa`; `None` if it is not the cluster's to answer."""
        address = address_of(name)
        if address is None:
            return None
        records = list(self._names(str(address)))
        if records:
            found = records if kind == RdataType.PTR else []
            if found:
                return Answer(messages.rrset(name, TTL, found), lifetime=FOREVER)
            return self._nothing(address, Rcode.NOERROR)
        return self._nothing(address, Rcode.NXDOMAIN) if any(address in each for each in self._ranges) else None

    def _names(self, address: str) -> Iterator[Rdata]:
        services = self._services.indexed("dns address", address)
        for service in services:
            metadata = service["metadata"]
            yield _pointer(metadata["name"], metadata["namespace"])
        if services:
            return
        for item in self._slices.indexed("dns address", address):
            namespace, name = next(service_of(item), ("", ""))
            headless = self._services.get(name, namespace)
            if headless is None or not is_headless(headless):
                continue
            for endpoint in item.get("endpoints") or ():
                if address in endpoint["addresses"] and is_ready(endpoint):
                    yield _pointer(f"{host_of(endpoint)}.{name}", namespace)

    def _nothing(self, address: ipaddress.IPv4Address, rcode: Rcode) -> Answer:
        """Say that an address has no name. The zone is that of its network, in whole octets (RFC 6303)."""
        lengths = [each.prefixlen for each in self._ranges if address in each]
        octets = min((max(lengths, default=24) + 7) // 8, 3)
        parts = str(address).split(".")[:octets]
        zone = dns.name.from_text(".".join(reversed(parts)), REVERSE)
        authority = messages.rrset(zone, NEGATIVE_TTL, [self._zone.authority()])
        return Answer(authority=authority, rcode=rcode, lifetime=FOREVER)


def address_of(name: Name) -> ipaddress.IPv4Address | None:
    """Return the address that a name below `in-addr.arpa` stands for, `None` for a part of one or anything else."""
    parts = messages.labels(name)[: -len(REVERSE) + 1]
    if len(parts) != 4:
        return None
    try:
        return ipaddress.IPv4Address(".".join(reversed(parts)))
    except ValueError:
        return None


def _addresses(item: EndpointSlice) -> Iterator[str]:
    for endpoint in item.get("endpoints") or ():
        yield from endpoint["addresses"]


def _pointer(name: str, namespace: str) -> Rdata:
    target = dns.name.from_text(f"{name}.{namespace}.svc.{DOMAIN}")
    return messages.record(RdataType.PTR, target)
