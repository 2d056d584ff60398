"""The rules of the table: those that are always there, and those of one policy.

Who opened a connection is `ct original ip saddr`. Where it ended up, after translation, are `ct reply ip saddr` and `ct reply
proto-src`. A packet of either direction has the same.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cumulet.common.router import BRIDGE, GROUP_RECEIVES, GROUP_SENDS
from cumulet.network.policy.model import NamedPort, PodPeer, Ports, Protocol, Rule
from cumulet.network.policy.ranges import EVERYWHERE, Range, common
from cumulet.network.policy.ruleset import ADDRESSES, PAIRS, VERDICTS, NftSet, Rules, Ruleset, name_of

#: All pods whose address is known; each with itself; and the chain of each pod that policies isolate.
PODS, SELF, SENDERS, RECEIVERS = "pods", "self", "senders", "receivers"
#: Where a connection continues that its sender may open, and where every packet begins if there is a policy.
_ARRIVING, CONNECTIONS = "arriving", "connections"

#: The names of sets that are remembered.
_NAMES = 8192

_SENDER, _RECEIVER, _PORT = "ct original ip saddr", "ct reply ip saddr", "ct reply proto-src"

#: The name server stands for these pods, which run CoreDNS in a cluster of AKS.
DNS_NAMESPACE, DNS_LABELS = "kube-system", {"k8s-app": "kube-dns"}
_DNS_PORTS: Mapping[Protocol, tuple[Range, ...]] = {"tcp": (Range(53, 53),), "udp": (Range(53, 53),)}
_DNS_NAMES = {NamedPort("udp", "dns"), NamedPort("tcp", "dns-tcp")}


class Places(NamedTuple):
    """The addresses of the router, with its doors, and of the machine, which is the node; the range of pods has both."""

    gateway: ipaddress.IPv4Address
    machine: ipaddress.IPv4Address
    pods: ipaddress.IPv4Network

    @property
    def groups(self) -> str:
        """The addresses that container groups can have, as nft(8) writes a range."""
        return f"{self.machine + 1}-{self.pods.broadcast_address}"


def empty_ruleset() -> Ruleset:
    """Return the table without pods and policies, where nothing is refused."""
    chains: dict[str, Rules] = {
        CONNECTIONS: (),
        "errors": (
            f"ip saddr . {_RECEIVER} @{SELF} return",
            f"ip saddr . {_SENDER} @{SELF} return",
            f"ip saddr @{PODS} counter drop",
        ),
        _ARRIVING: (f"{_RECEIVER} vmap @{RECEIVERS}", "accept"),
        "forwarded": ("type filter hook forward priority filter; policy accept;", f"jump {CONNECTIONS}"),
        "doors": ("type filter hook input priority filter; policy accept;", f"jump {CONNECTIONS}"),
    }
    sets = {PODS: NftSet(ADDRESSES), SELF: NftSet(PAIRS), SENDERS: NftSet(VERDICTS), RECEIVERS: NftSet(VERDICTS)}
    return Ruleset(sets, chains)


def connection_rules(places: Places) -> Rules:
    """Return the rules that every packet meets, once there is a policy.

    The order matters. An error message of ICMP has the connection of the packet that it quotes, so its own sender is checked
    first. The machine reaches its pods, as a node does. A pod has a network before it has a status: until its address is known,
    it reaches nobody, and nobody but the machine reaches it. Container groups that are no pods are marked.
    """
    unknown = f"{{address}} {places.groups} {{address}} != @{PODS} meta mark & {{mark:#x}} == 0 counter drop"
    return (
        "ct state { invalid, untracked } counter drop",
        f'iifname "{BRIDGE}" ct state related jump errors',
        f"{_SENDER} {places.machine} accept",
        unknown.format(address="ip saddr", mark=GROUP_SENDS),
        unknown.format(address="ip daddr", mark=GROUP_RECEIVES),
        f"{_SENDER} . {_RECEIVER} @{SELF} accept",
        f"{_SENDER} vmap @{SENDERS}",
        f"goto {_ARRIVING}",
    )


@functools.lru_cache(maxsize=_NAMES)
def peers_set(peer: PodPeer) -> str:
    """Return the name of the set of addresses of the pods that a peer selects."""
    return name_of("peers", [peer.namespace, *(item and item.text.decode() for item in (peer.namespaces, peer.pods))])


@functools.lru_cache(maxsize=_NAMES)
def ports_set(ranges: tuple[Range, ...]) -> str:
    """Return the name of the set of these ports."""
    return name_of("ports", list(ranges))


@functools.lru_cache(maxsize=_NAMES)
def named_set(port: NamedPort) -> str:
    """Return the name of the set of addresses and numbers where pods have a port of that name."""
    return name_of("named", port)


def port_elements(ranges: Iterable[Range]) -> dict[str, str]:
    """Return the elements of a set of ports."""
    return {f"{first}" if first == last else f"{first}-{last}": "" for first, last in ranges}


def isolation_rules(policies: Iterable[str]) -> Rules:
    """Return the rules of pods that have the same policies, given the policies' chains."""
    return (*(f"jump {chain}" for chain in policies), "counter drop")


def ingress_rules(rules: Iterable[Rule]) -> Rules:
    """Return what lets a connection in to pods."""
    return tuple(
        f"{condition}accept" for rule in rules for condition in _conditions(_peers(rule, _SENDER), _ports(rule.ports))
    )


def egress_rules(rules: Iterable[Rule], dns: Iterable[bool], places: Places) -> Rules:
    """Return what lets a connection out of pods. `dns` says of each rule whether it selects the name server's pods."""
    conditions: list[str] = []
    for rule, with_dns in zip(rules, dns, strict=True):
        conditions += _conditions(_peers(rule, _RECEIVER), _ports(rule.ports))
        if with_dns:
            conditions += _conditions([f"{_RECEIVER} {places.gateway} "], _ports(_dns_ports(rule.ports)))
    return tuple(f"{condition}goto {_ARRIVING}" for condition in conditions)


def dns_ports(rules: Iterable[Rule]) -> list[Ports]:
    """Return the ports of the name server that rules allow, of each rule."""
    return [_dns_ports(rule.ports) for rule in rules]


def _conditions(peers: Iterable[str], ports: Iterable[str]) -> list[str]:
    ports = list(ports)
    return [f"{peer}{port}" for peer in peers for port in ports]


def _peers(rule: Rule, address: str) -> list[str]:
    if rule.pods is None or rule.blocks == EVERYWHERE:
        return [""]
    peers = [f"{address} @{name} " for name in sorted(map(peers_set, rule.pods))]
    if rule.blocks:
        peers.append(f"{address} {{ {', '.join(map(_block, rule.blocks))} }} ")
    return peers


def _block(block: Range) -> str:
    first, last = (str(ipaddress.IPv4Address(number)) for number in block)
    return first if first == last else f"{first}-{last}"


def _ports(ports: Ports | None) -> list[str]:
    if ports is None:
        return [""]
    numbers = [
        f"ct original protocol {protocol} {_PORT} @{ports_set(ranges)} " for protocol, ranges in ports.numbers.items()
    ]
    names = [
        f"ct original protocol {port.protocol} {_RECEIVER} . {_PORT} @{named_set(port)} "
        for port in sorted(ports.names)
    ]
    return numbers + names


def _dns_ports(ports: Ports | None) -> Ports:
    """Return those ports of a rule at which the name server listens."""
    if ports is None:
        return Ports(_DNS_PORTS, frozenset())
    numbers = {protocol: list(common(ports.numbers.get(protocol, ()), own)) for protocol, own in _DNS_PORTS.items()}
    for protocol, _ in ports.names & _DNS_NAMES:
        numbers[protocol] = list(_DNS_PORTS[protocol])
    return Ports({protocol: tuple(ranges) for protocol, ranges in numbers.items() if ranges}, frozenset())
