"""From a Service and its EndpointSlices to its front ends: the cluster IP, the node ports and the EXTERNAL-IP."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cumulet.common import router
from cumulet.common.config import Config
from cumulet.common.conntrack import tracks_sctp
from cumulet.common.kubernetes.load_balancers import external_address, idle_minutes, source_ranges
from cumulet.common.kubernetes.objects import EndpointSlice, Service
from cumulet.network.services.endpoints import Reachable, backends, reachable_in
from cumulet.network.services.model import NOTHING, PROTOCOLS, Backend, Frontend, Served, Target

#: The default and the bounds of `sessionAffinityConfig.clientIP.timeoutSeconds`.
_AFFINITY, _LONGEST_AFFINITY = 10_800, 86_400
_LOOPBACK = ipaddress.IPv4Address("127.0.0.1")


class Site(NamedTuple):
    """The addresses of an installation that front ends depend on.

    Node ports are at `gateway`. `machine` is the source address of the machine's own clients.
    """

    pods: ipaddress.IPv4Network
    external: ipaddress.IPv4Network
    gateway: str
    machine: ipaddress.IPv4Address
    reachable: Reachable

    @classmethod
    def of(cls, config: Config) -> Site:
        """Return the addresses of an installation."""
        return cls(
            ipaddress.IPv4Network(config.pod_cidr),
            ipaddress.IPv4Network(config.external_cidr),
            str(router.gateway(config)),
            router.machine_address(config),
            reachable_in(config.pod_cidr, config.egress(reach_pods=True)),
        )

    def is_external(self, address: str) -> bool:
        """Return whether an address is one of the EXTERNAL-IPs."""
        return ipaddress.IPv4Address(address) in self.external

    def admits_machine(self, target: Target | None) -> bool:
        """Return whether this machine's own clients may connect to a front end."""
        if target is None or target.sources is None:
            return target is not None
        return any(self.machine in ipaddress.IPv4Network(source) for source in target.sources)


def served(service: Service, slices: Sequence[EndpointSlice], site: Site) -> Served:
    """Return the front ends of a Service; none if it is headless, an ExternalName, or being deleted.

    `internalTrafficPolicy: Local` and `externalTrafficPolicy: Local` leave the end points on this machine, which are those
    with an address of a pod here. If only others are ready, packets are dropped, as by kube-proxy.
    """
    spec = service["spec"]
    cluster_ip = _address(spec.get("clusterIP"))
    if spec.get("type") == "ExternalName" or cluster_ip is None or cluster_ip in site.pods or _is_special(cluster_ip):
        return NOTHING
    kind = spec.get("type") or "ClusterIP"
    external = _address(external_address(service)) if kind == "LoadBalancer" else None
    if external is not None and (external not in site.external or spec.get("loadBalancerClass")):
        external = None
    affinity = _affinity(service)
    limits = _sources(service, site) if external is not None else None
    found: dict[Frontend, Target] = {}
    for port in spec.get("ports") or ():
        protocol = PROTOCOLS.get(port.get("protocol") or "TCP")
        if protocol is None or (protocol == "sctp" and not tracks_sctp()) or not 0 < port["port"] < 65536:
            continue
        everywhere = backends(slices, port, site.reachable)
        inside = _target(everywhere, spec.get("internalTrafficPolicy"), site.pods, affinity)
        outside = _target(everywhere, spec.get("externalTrafficPolicy"), site.pods, affinity)
        found[Frontend(str(cluster_ip), protocol, port["port"])] = inside
        number = port.get("nodePort") or 0
        if kind in ("NodePort", "LoadBalancer") and 0 < number < 65536:
            found[Frontend(site.gateway, protocol, number)] = outside
        if external is not None:
            idle = idle_minutes(service) if protocol == "tcp" else None
            found[Frontend(str(external), protocol, port["port"])] = outside._replace(sources=limits, idle=idle)
    return Served(str(cluster_ip), found)


def _target(
    everywhere: tuple[Backend, ...], policy: str | None, pods: ipaddress.IPv4Network, affinity: int | None
) -> Target:
    if policy != "Local":
        return Target(everywhere, affinity=affinity)
    here = tuple(backend for backend in everywhere if ipaddress.IPv4Address(backend.address) in pods)
    return Target(here, dropped=bool(everywhere) and not here, affinity=affinity)


def _affinity(service: Service) -> int | None:
    spec = service["spec"]
    if spec.get("sessionAffinity") != "ClientIP":
        return None
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds") or _AFFINITY
    return min(max(seconds, 1), _LONGEST_AFFINITY)


def _sources(service: Service, site: Site) -> tuple[str, ...] | None:
    """Return the allowed ranges. Who allows 127.0.0.1 allows this machine, whose packets have another source address."""
    ranges = source_ranges(service)
    if ranges is None:
        return None
    networks = [one for one in ranges if isinstance(one, ipaddress.IPv4Network)]
    if any(_LOOPBACK in one for one in networks):
        networks.append(ipaddress.IPv4Network(site.machine))
    return _texts(ipaddress.collapse_addresses(networks))


def _texts(networks: Iterable[ipaddress.IPv4Network]) -> tuple[str, ...]:
    return tuple(str(network) for network in networks)


def _is_special(address: ipaddress.IPv4Address) -> bool:
    """Return whether no Service can have an address, such as the metadata service's, whatever the API server says."""
    return address.is_loopback or address.is_link_local or address.is_multicast or address.is_reserved


def _address(text: str | None) -> ipaddress.IPv4Address | None:
    try:
        return ipaddress.IPv4Address(text or "")
    except ValueError:  # headless, IPv6, or not allocated yet
        return None
