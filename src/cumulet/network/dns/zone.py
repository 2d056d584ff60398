"""The zone of a cluster: Services, their endpoints and pods by name, from the state of informers.

Source: Kubernetes DNS-Based Service Discovery, version 1.1.0. Where it is silent, the answers are those of CoreDNS with
the settings of AKS (`pods insecure`, `ttl 30`), except that a name with names below it exists (RFC 8020).
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import dns.exception
import dns.name
from dns.name import Name
from dns.rcode import Rcode
from dns.rdata import Rdata
from dns.rdatatype import RdataType
from dns.rrset import RRset

from cumulet.common.ascii import fold
from cumulet.common.dns import messages
from cumulet.common.dns.messages import Answer
from cumulet.common.kubernetes import Informer
from cumulet.common.kubernetes.objects import (
    DiscoveryEndpointPort,
    Endpoint,
    EndpointSlice,
    Namespace,
    Service,
    ServicePort,
)

DOMAIN = "cluster.local"
#: Where the cluster's name server is, for its own clients.
DNS_SERVICE = ("kube-system", "kube-dns")

#: Seconds for which clients may keep what exists, and what does not: a Service that is new has to be found soon.
TTL, NEGATIVE_TTL = 30, 5
_VERSION, _VERSION_TTL = b"1.1.0", 28800
_SERVICE_NAME = "kubernetes.io/service-name"
#: Seconds of a zone that nobody transfers.
_REFRESH, _RETRY, _EXPIRE = 7200, 1800, 86400
#: The bytes of an answer stay true until something changes.
FOREVER = float("inf")
_DASHED = re.compile(r"\d{1,3}(?:-\d{1,3}){3}", re.ASCII)
_PROTOCOLS = {"_tcp": "TCP", "_udp": "UDP", "_sctp": "SCTP"}


class _Found(NamedTuple):
    """The records of a name that exists, of the type that was asked for, and the addresses that belong to them."""

    records: Sequence[Rdata] = ()
    additional: Sequence[RRset] = ()
    ttl: int = TTL


class _Member(NamedTuple):
    """A ready endpoint: its name below the Service, and its addresses."""

    host: str
    addresses: list[str]


class _Target(NamedTuple):
    """A port and where it is: the name of an endpoint below the Service, empty for the Service itself."""

    host: str
    addresses: Sequence[str]
    port: int


class ClusterZone:
    """Answers from Services, EndpointSlices and namespaces; `gateway` is the name server where no Service leads to it."""

    def __init__(
        self,
        services: Informer[Service],
        slices: Informer[EndpointSlice],
        namespaces: Informer[Namespace],
        gateway: str,
    ) -> None:
        self.origin = dns.name.from_text(DOMAIN)
        self._services, self._slices, self._namespaces, self._gateway = services, slices, namespaces, gateway
        self._server = dns.name.from_text("ns.dns", self.origin)
        self._contact = dns.name.from_text("hostmaster", self.origin)
        self._started = int(time.time())
        slices.add_index("dns service", service_of)

    def find(self, name: Name, kind: RdataType) -> Answer:
        """Answer a question for a name in the zone. An alias is returned, and not followed."""
        found = self._at(messages.labels(name)[: -len(self.origin) + 1], name, kind)
        if found is None:
            return self._nothing(Rcode.NXDOMAIN)
        if not found.records:
            return self._nothing(Rcode.NOERROR)
        return Answer(messages.rrset(name, found.ttl, found.records), additional=found.additional, lifetime=FOREVER)

    def _at(self, below: tuple[str, ...], name: Name, kind: RdataType) -> _Found | None:
        """Return what is at a name, given by its labels below the zone; `None` if it does not exist."""
        match below:
            case ():
                return self._apex(kind)
            case ("dns-version",):
                text = messages.record(RdataType.TXT, (_VERSION,))
                return _Found(_of(kind, [text]), ttl=_VERSION_TTL)
            case ("dns",) | ("svc",) | ("pod",):
                return _Found()
            case ("ns", "dns"):
                return _Found(_of(kind, _records(self._servers())))
            case (*rest, namespace, "pod" | "svc" as what) if self._namespaces.get(namespace) is not None:
                if not rest:
                    return _Found()
                return self._pod(rest, kind) if what == "pod" else self._service(rest, namespace, name, kind)
        return None

    def _apex(self, kind: RdataType) -> _Found:
        if kind == RdataType.NS:
            glue = messages.rrset(self._server, TTL, _records(self._servers()))
            return _Found([messages.record(RdataType.NS, self._server)], glue)
        return _Found(_of(kind, [self.authority()]))

    def _pod(self, rest: list[str], kind: RdataType) -> _Found | None:
        """Answer `10-1-2-3.NAMESPACE.pod`: any address, as a pod asks for its own before the API server knows it."""
        if len(rest) != 1 or not _DASHED.fullmatch(rest[0]):
            return None
        try:
            found = ipaddress.IPv4Address(rest[0].replace("-", "."))
        except ValueError:
            return None
        return _Found(_of(kind, [messages.address(str(found))]))

    def _service(self, rest: list[str], namespace: str, name: Name, kind: RdataType) -> _Found | None:
        service = self._services.get(rest[-1], namespace)
        if service is None:
            return None
        spec = service["spec"]
        if spec.get("type") == "ExternalName":
            return _alias(spec.get("externalName") or "") if len(rest) == 1 else None
        match rest[:-1]:
            case []:
                return self._whole_service(service, name, kind)
            case [host] if host in _PROTOCOLS:
                # A name with names below it: whoever asks one label at a time (RFC 9156) has to get on.
                return _Found() if any(True for _ in self._targets(service, None, _PROTOCOLS[host])) else None
            case [host]:
                addresses = [
                    text for member in self._members(service) if member.host == host for text in member.addresses
                ]
                return _Found(_of(kind, _records(addresses))) if addresses else None
            case [port, protocol] if port[0] == "_" and port[1:] and protocol in _PROTOCOLS:
                owner = name.split(len(name) - 2)[1]
                targets = list(self._targets(service, port[1:], _PROTOCOLS[protocol]))
                return self._locations(owner, targets, kind) if targets else None
        return None

    def _whole_service(self, service: Service, name: Name, kind: RdataType) -> _Found | None:
        if is_headless(service):
            addresses = [text for member in self._members(service) for text in member.addresses]
            if not addresses:
                return None
        else:
            addresses = cluster_ips(service)
        if kind == RdataType.SRV:
            return self._locations(name, list(self._targets(service)), kind)
        return _Found(_of(kind, _records(dict.fromkeys(addresses))))

    def _locations(self, owner: Name, targets: Sequence[_Target], kind: RdataType) -> _Found:
        """Return SRV records (RFC 2782) of equal weight, with the addresses of their targets."""
        if kind != RdataType.SRV or not targets:
            return _Found()
        weight = 100 // len(targets) or 1
        records: dict[Rdata, None] = {}
        addresses: dict[Name, dict[str, None]] = {}
        for target in targets:
            where = dns.name.Name((target.host.encode(), *owner.labels)) if target.host else owner
            records[messages.record(RdataType.SRV, 0, weight, target.port, where)] = None
            addresses.setdefault(where, {}).update(dict.fromkeys(target.addresses))
        additional = [
            one
            for where, texts in addresses.items()
            for family in (RdataType.A, RdataType.AAAA)
            for one in messages.rrset(where, TTL, _of(family, _records(texts)))
        ]
        return _Found([*records], additional)

    def _targets(self, service: Service, port: str | None = None, protocol: str | None = None) -> Iterator[_Target]:
        """Yield the ports of a Service, or those of a name and protocol. A port without a name is found with neither."""
        if not is_headless(service):
            for each in service["spec"].get("ports") or ():
                if _is_wanted(each, port, protocol):
                    yield _Target("", cluster_ips(service), each["port"])
            return
        for item in self._slices_of(service):
            for given in item.get("ports") or ():
                number = given.get("port")
                if number is not None and _is_wanted(given, port, protocol):
                    for member in _members(item):
                        yield _Target(member.host, member.addresses, number)

    def _members(self, service: Service) -> Iterator[_Member]:
        for item in self._slices_of(service):
            yield from _members(item)

    def _slices_of(self, service: Service) -> list[EndpointSlice]:
        metadata = service["metadata"]
        return self._slices.indexed("dns service", (metadata["namespace"], metadata["name"]))

    def _servers(self) -> list[str]:
        namespace, name = DNS_SERVICE
        service = self._services.get(name, namespace)
        return (cluster_ips(service) if service is not None else []) or [self._gateway]

    def authority(self) -> Rdata:
        """Return the SOA record, whose last number is how long an absence may be kept (RFC 2308)."""
        return messages.record(
            RdataType.SOA,
            self._server,
            self._contact,
            self._started,
            _REFRESH,
            _RETRY,
            _EXPIRE,
            NEGATIVE_TTL,
        )

    def _nothing(self, rcode: Rcode) -> Answer:
        """Say that there is no such name, or no such record of it, and for how long that can be kept (RFC 2308)."""
        authority = messages.rrset(self.origin, NEGATIVE_TTL, [self.authority()])
        return Answer(authority=authority, rcode=rcode, lifetime=FOREVER)


def host_of(endpoint: Endpoint) -> str:
    """Return the label of an endpoint below its Service: its host name, or its address with dashes."""
    return endpoint.get("hostname") or re.sub(r"[.:]", "-", endpoint["addresses"][0])


def is_ready(endpoint: Endpoint) -> bool:
    """Return whether an endpoint has records. The controller sets it for those of `publishNotReadyAddresses` too."""
    return (endpoint.get("conditions") or {}).get("ready") is not False


def _members(item: EndpointSlice) -> Iterator[_Member]:
    if item["addressType"] not in ("IPv4", "IPv6"):
        return
    for endpoint in item.get("endpoints") or ():
        if is_ready(endpoint):
            yield _Member(fold(host_of(endpoint)), endpoint["addresses"])


def _is_wanted(port: ServicePort | DiscoveryEndpointPort, name: str | None, protocol: str | None) -> bool:
    return (name is None or (port.get("name") or "") == name) and (
        protocol is None or (port.get("protocol") or "TCP") == protocol
    )


def is_headless(service: Service) -> bool:
    """Return whether a Service has no address of its own."""
    return service["spec"].get("clusterIP") == "None"


def cluster_ips(service: Service) -> list[str]:
    """Return the addresses of a Service, none of a headless one."""
    spec = service["spec"]
    given = spec.get("clusterIPs") or [spec.get("clusterIP") or ""]
    return [text for text in given if text not in ("", "None")]


def _records(addresses: Iterable[str]) -> Iterator[Rdata]:
    """Yield the records of addresses. An endpoint may come from a client; what is no address has no record."""
    for text in addresses:
        try:
            yield messages.address(text)
        except ValueError:
            continue


def _of(kind: RdataType, records: Iterable[Rdata]) -> list[Rdata]:
    return [record for record in records if record.rdtype == kind]


def service_of(item: EndpointSlice) -> Iterator[tuple[str, str]]:
    """Yield the namespace and name of the Service of a slice, if it has one."""
    metadata = item["metadata"]
    if service := (metadata.get("labels") or {}).get(_SERVICE_NAME):
        yield metadata["namespace"], service


def _alias(target: str) -> _Found | None:
    try:
        name = dns.name.from_text(target)
    except dns.exception.DNSException:
        return None
    return _Found([messages.record(RdataType.CNAME, name)])
