"""A NetworkPolicy as typed values (networking.k8s.io/v1, `NetworkPolicySpec`).

What this module cannot understand, such as a field of a later release, never opens a door: a peer or a port admits nobody, and
a selector of the policy's own pods selects them all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import msgspec

from cumulet.common.kubernetes.objects import LabelSelector, NetworkPolicy
from cumulet.common.kubernetes.selection import Labels, selects
from cumulet.network.policy.ranges import Range, parse_block, union, without

Key = tuple[str, str]
Protocol = Literal["sctp", "tcp", "udp"]

PROTOCOLS: dict[object, Protocol] = {"SCTP": "sctp", "TCP": "tcp", "UDP": "udp"}
_PORTS = Range(0, 65535)
_PEER = {"ipBlock", "namespaceSelector", "podSelector"}
_OPERATORS = {"In", "NotIn", "Exists", "DoesNotExist"}


class UnknownError(Exception):
    """A part of a policy that is not understood."""


@dataclass(frozen=True)
class Selector:
    """A label selector that can be a key: equal selectors are written alike."""

    text: bytes
    value: LabelSelector = field(compare=False, repr=False)

    def selects(self, labels: Labels) -> bool:
        """Whether labels match; an empty selector matches all."""
        return selects(self.value, labels)


class PodPeer(NamedTuple):
    """Pods of a namespace, or of all namespaces that match, and there all pods or those that match."""

    namespace: str | None
    namespaces: Selector | None
    pods: Selector | None

    def selects(self, namespace: str, namespace_labels: Labels | None, labels: Labels) -> bool:
        """Whether it selects a pod. A namespace whose labels are not known matches no selector."""
        if self.namespaces is None:
            if self.namespace != namespace:
                return False
        elif namespace_labels is None or not self.namespaces.selects(namespace_labels):
            return False
        return self.pods is None or self.pods.selects(labels)


class NamedPort(NamedTuple):
    """A port by its name, whose number each pod that receives states itself."""

    protocol: Protocol
    name: str


class Ports(NamedTuple):
    """Ports of a rule: numbers by protocol, and names."""

    numbers: Mapping[Protocol, tuple[Range, ...]]
    names: frozenset[NamedPort]


class Rule(NamedTuple):
    """A rule of a policy: who is at the other end, and to which ports. `None` is everybody, and all traffic."""

    pods: frozenset[PodPeer] | None
    blocks: tuple[Range, ...]
    ports: Ports | None


class Policy(NamedTuple):
    """A policy: the pods that it isolates, and what it allows them; `None` is a direction that it leaves alone."""

    namespace: str
    name: str
    target: Selector | None
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    @property
    def key(self) -> Key:
        """(namespace, name)."""
        return self.namespace, self.name

    def isolates(self, namespace: str, labels: Labels) -> bool:
        """Whether the policy is for a pod."""
        return namespace == self.namespace and (self.target is None or self.target.selects(labels))


def parse_policy(obj: NetworkPolicy) -> Policy:
    """Return a policy as the API server serves it."""
    namespace, name = obj["metadata"]["namespace"], obj["metadata"]["name"]
    spec = obj.get("spec") or {}
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    try:
        target = _selector(spec.get("podSelector") or {})
    except UnknownError:
        target = None
    ingress = _rules(namespace, spec.get("ingress") or (), "from") if "Ingress" in types else None
    egress = _rules(namespace, spec.get("egress") or (), "to") if "Egress" in types else None
    return Policy(namespace, name, target, ingress, egress)


def _rules(namespace: str, rules: Iterable[Mapping[str, Any]], peers: str) -> tuple[Rule, ...]:
    parsed = []
    for rule in rules:
        try:
            parsed.append(_rule(namespace, rule, peers))
        except UnknownError:
            continue
    return tuple(parsed)


def _rule(namespace: str, rule: Mapping[str, Any], peers: str) -> Rule:
    """Return a rule. Raises `UnknownError` for one with a field of a later release, which may narrow it."""
    if rule.keys() - {peers, "ports"}:
        raise UnknownError
    ports = _ports(rule["ports"]) if rule.get("ports") else None
    if not rule.get(peers):
        return Rule(None, (), ports)
    pods: set[PodPeer] = set()
    blocks: list[Range] = []
    for peer in rule[peers]:
        try:
            if peer.keys() - _PEER or not peer:
                continue
            if peer.get("ipBlock") is not None:
                blocks += _block(peer["ipBlock"])
            else:
                pods.add(_pods(namespace, peer))
        except UnknownError:
            continue
    return Rule(frozenset(pods), union(blocks), ports)


def _pods(namespace: str, peer: Mapping[str, Any]) -> PodPeer:
    namespaces, pods = peer.get("namespaceSelector"), peer.get("podSelector")
    return PodPeer(
        namespace if namespaces is None else None,
        None if namespaces is None else _selector(namespaces),
        None if not pods else _selector(pods),
    )


def _block(block: Mapping[str, Any]) -> tuple[Range, ...]:
    """Return the IPv4 addresses of a block; an IPv6 block has none."""
    if block.keys() - {"cidr", "except"}:
        raise UnknownError
    whole = parse_block(block.get("cidr", ""))
    if whole is None:
        return ()
    holes = [parse_block(text) for text in block.get("except") or ()]
    if None in holes:
        raise UnknownError
    return without(whole, [hole for hole in holes if hole is not None])


def _ports(ports: Iterable[Mapping[str, Any]]) -> Ports:
    numbers: dict[Protocol, list[Range]] = {}
    names = set()
    for port in ports:
        protocol, start = PROTOCOLS.get(port.get("protocol", "TCP")), port.get("port")
        if protocol is None or port.keys() - {"endPort", "port", "protocol"}:
            continue
        if isinstance(start, str):
            names.add(NamedPort(protocol, start))
        elif start is None:
            numbers.setdefault(protocol, []).append(_PORTS)
        elif _PORTS.first <= start <= (end := port.get("endPort", start)) <= _PORTS.last:
            numbers.setdefault(protocol, []).append(Range(start, end))
    return Ports({protocol: union(ranges) for protocol, ranges in sorted(numbers.items())}, frozenset(names))


def _selector(value: LabelSelector) -> Selector:
    """Return a selector. Raises `UnknownError` for an operator that a later release has."""
    if value.keys() - {"matchLabels", "matchExpressions"}:
        raise UnknownError
    if any(item["operator"] not in _OPERATORS for item in value.get("matchExpressions") or ()):
        raise UnknownError
    return Selector(msgspec.json.encode(value, order="sorted"), value)
