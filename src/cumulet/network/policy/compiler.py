"""From the state of the cluster to the sets and chains of the table, where a change costs what it touches.

Each selector of peers in use has one set, which all policies share, and each combination of policies that isolates a pod has
one chain, which all such pods share. A new address is put in the sets of the selectors that match, and a changed policy
replaces a chain.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, Literal, NamedTuple, TypeVar

from cumulet.network.policy.model import Key, NamedPort, PodPeer, Policy, Rule
from cumulet.network.policy.pods import Member
from cumulet.network.policy.ranges import Range
from cumulet.network.policy.rules import (
    CONNECTIONS,
    DNS_LABELS,
    DNS_NAMESPACE,
    PODS,
    RECEIVERS,
    SELF,
    SENDERS,
    Places,
    connection_rules,
    dns_ports,
    egress_rules,
    empty_ruleset,
    ingress_rules,
    isolation_rules,
    named_set,
    peers_set,
    port_elements,
    ports_set,
)
from cumulet.network.policy.ruleset import ADDRESSES, PORTS, TARGETS, NftSet, Rules, Touched, name_of

T = TypeVar("T")
K = TypeVar("K")
Direction = Literal["egress", "ingress"]
_DIRECTIONS: tuple[Direction, Direction] = ("egress", "ingress")
_MAPS: dict[Direction, str] = {"egress": SENDERS, "ingress": RECEIVERS}


class _Counted(Generic[T]):
    """What is in use, and how often."""

    def __init__(self) -> None:
        self._uses: dict[T, int] = {}

    def __iter__(self) -> Iterator[T]:
        return iter(self._uses)

    def take(self, items: Iterable[T]) -> list[T]:
        """Count a use of each, and return those that had none."""
        new = []
        for item in items:
            if item not in self._uses:
                new.append(item)
            self._uses[item] = self._uses.get(item, 0) + 1
        return new

    def give_back(self, items: Iterable[T]) -> list[T]:
        """Count a use less of each, and return those that have none left."""
        gone = []
        for item in items:
            self._uses[item] -= 1
            if not self._uses[item]:
                del self._uses[item]
                gone.append(item)
        return gone


class _Parts(NamedTuple):
    """What the chains of a policy refer to."""

    peers: frozenset[PodPeer]
    names: frozenset[NamedPort]
    ports: frozenset[tuple[Range, ...]]


_NOTHING = _Parts(frozenset(), frozenset(), frozenset())


class Compiler:
    """Holds the state of a cluster, and `ruleset`, which follows from it alone, whatever the order of the changes."""

    def __init__(self, places: Places) -> None:
        self.ruleset = empty_ruleset()
        self._places = places
        self._members: dict[Key, Member] = {}
        self._holders: dict[ipaddress.IPv4Address, set[Key]] = {}
        self._in_namespace: dict[str, set[Key]] = {}
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._policies: dict[Key, Policy] = {}
        self._parts: dict[Key, _Parts] = {}
        self._peers: _Counted[PodPeer] = _Counted()
        self._names: _Counted[NamedPort] = _Counted()
        self._ports: _Counted[tuple[Range, ...]] = _Counted()
        self._isolated: _Counted[tuple[Direction, frozenset[Key]]] = _Counted()
        #: The policies for each pod that is in the sets.
        self._isolation: dict[Key, dict[Direction, frozenset[Key]]] = {}
        self._touched: dict[str, set[str]] = {}

    def touched(self) -> Touched:
        """Return what may have changed since the last call."""
        touched, self._touched = self._touched, {}
        return touched

    def set_pod(self, key: Key, member: Member | None) -> None:
        """Take a pod as it is now, or its end.

        An address that two pods claim is neither's until one is gone: it is as an unknown one. So are those of the router.
        """
        if member is not None and member.address in (self._places.gateway, self._places.machine):
            member = None
        old = self._members.get(key)
        if old == member:
            return
        addresses = {item.address for item in (old, member) if item is not None}
        before = {address: self._holder(address) for address in addresses}
        if old is not None:
            del self._members[key]
            _discard(self._holders, old.address, key)
            _discard(self._in_namespace, key[0], key)
        if member is not None:
            self._members[key] = member
            self._holders.setdefault(member.address, set()).add(key)
            self._in_namespace.setdefault(key[0], set()).add(key)
        for address in addresses:
            if (holder := before[address]) is not None:
                self._leave(holder)
        for address in addresses:
            if (holder := self._holder(address)) is not None:
                self._enter(holder)

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        """Take the labels of a namespace, or its end."""
        if self._namespaces.get(name) == labels:
            return
        members = [self._members[key] for key in self._in_namespace.get(name, ())]
        members = [member for member in members if self._holder(member.address) == member]
        for member in members:
            self._leave(member)
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        for member in members:
            self._enter(member)
        if name == DNS_NAMESPACE:
            for policy in list(self._policies.values()):
                self._replace(policy.key, policy)

    def set_policy(self, key: Key, policy: Policy | None) -> None:
        """Take a policy as it is now, or its end."""
        if self._policies.get(key) == policy:
            return
        self._replace(key, policy)
        for name in self._in_namespace.get(key[0], ()):
            if name not in self._isolation:
                continue
            member, isolation = self._members[name], {}
            applies = policy is not None and policy.isolates(key[0], member.labels)
            for direction, policies in self._isolation[name].items():
                isolated = applies and policy is not None and getattr(policy, direction) is not None
                isolation[direction] = policies | {key} if isolated else policies - {key}
            self._isolate(member, isolation)

    def _holder(self, address: ipaddress.IPv4Address) -> Member | None:
        """Return the pod that an address is known to be of."""
        keys = self._holders.get(address, set())
        return self._members[next(iter(keys))] if len(keys) == 1 else None

    def _replace(self, key: Key, policy: Policy | None) -> None:
        """Replace the chains of a policy, and the sets that they refer to."""
        rules: dict[Direction, Rules] = {}
        parts = _NOTHING
        if policy is None:
            self._policies.pop(key, None)
        else:
            self._policies[key] = policy
            dns = [self._selects_dns(rule) for rule in policy.egress or ()]
            parts = _parts(policy, dns)
            if policy.ingress is not None:
                rules["ingress"] = ingress_rules(policy.ingress)
            if policy.egress is not None:
                rules["egress"] = egress_rules(policy.egress, dns, self._places)
        self._use(parts, self._parts.pop(key, _NOTHING))
        if policy is not None:
            self._parts[key] = parts
        for direction, chain in self._chains(key).items():
            self._set_chain(chain, rules.get(direction))
        self._set_chain(CONNECTIONS, connection_rules(self._places) if self._policies else ())

    def _use(self, parts: _Parts, before: _Parts) -> None:
        """Make the sets that a policy needs, and drop those that nothing needs any more."""
        for peer in self._peers.take(parts.peers):
            members = (member for member in self._known() if self._matches(peer, member))
            self._add_set(peers_set(peer), NftSet(ADDRESSES, {str(member.address): "" for member in members}))
        for port in self._names.take(parts.names):
            elements = [item for member in self._known() for item in _named_element(port, member)]
            self._add_set(named_set(port), NftSet(TARGETS, dict.fromkeys(elements, "")))
        for ranges in self._ports.take(parts.ports):
            self._add_set(ports_set(ranges), NftSet(PORTS, port_elements(ranges)))
        self._drop_sets(peers_set(peer) for peer in self._peers.give_back(before.peers))
        self._drop_sets(named_set(port) for port in self._names.give_back(before.names))
        self._drop_sets(ports_set(ranges) for ranges in self._ports.give_back(before.ports))

    def _selects_dns(self, rule: Rule) -> bool:
        labels = self._namespaces.get(DNS_NAMESPACE)
        return any(peer.selects(DNS_NAMESPACE, labels, DNS_LABELS) for peer in rule.pods or ())

    def _known(self) -> Iterator[Member]:
        """Yield the pods that are in the sets."""
        return (self._members[key] for key in self._isolation)

    def _matches(self, peer: PodPeer, member: Member) -> bool:
        namespace = member.key[0]
        return peer.selects(namespace, self._namespaces.get(namespace), member.labels)

    def _enter(self, member: Member) -> None:
        """Put a pod in the sets."""
        address = str(member.address)
        self._put(PODS, address)
        self._put(SELF, f"{address} . {address}")
        for peer in self._peers:
            if self._matches(peer, member):
                self._put(peers_set(peer), address)
        for port in self._names:
            for element in _named_element(port, member):
                self._put(named_set(port), element)
        namespace = member.key[0]
        policies = [item for item in self._policies.values() if item.isolates(namespace, member.labels)]
        self._isolation[member.key] = {direction: frozenset() for direction in _DIRECTIONS}
        isolation = {
            direction: frozenset(policy.key for policy in policies if getattr(policy, direction) is not None)
            for direction in _DIRECTIONS
        }
        self._isolate(member, isolation)

    def _leave(self, member: Member) -> None:
        """Take a pod out of the sets."""
        self._isolate(member, {direction: frozenset() for direction in _DIRECTIONS})
        del self._isolation[member.key]
        address = str(member.address)
        self._take(PODS, address)
        self._take(SELF, f"{address} . {address}")
        for peer in self._peers:
            self._take(peers_set(peer), address)
        for port in self._names:
            for element in _named_element(port, member):
                self._take(named_set(port), element)

    def _isolate(self, member: Member, isolation: dict[Direction, frozenset[Key]]) -> None:
        """Give a pod the chains of its policies."""
        address, before = str(member.address), self._isolation[member.key]
        for direction, policies in isolation.items():
            if policies == before[direction]:
                continue
            chain = _isolation_chain(direction, policies)
            if policies and self._isolated.take([(direction, policies)]):
                self._set_chain(chain, isolation_rules(self._chains(key)[direction] for key in sorted(policies)))
            if policies:
                self._put(_MAPS[direction], address, f"goto {chain}")
            else:
                self._take(_MAPS[direction], address)
            if before[direction]:
                for _, unused in self._isolated.give_back([(direction, before[direction])]):
                    self._set_chain(_isolation_chain(direction, unused), None)
        self._isolation[member.key] = isolation

    def _chains(self, key: Key) -> dict[Direction, str]:
        return {direction: name_of(direction, key) for direction in _DIRECTIONS}

    def _put(self, name: str, element: str, verdict: str = "") -> None:
        self.ruleset.sets[name].elements[element] = verdict
        self._touch(name, element)

    def _take(self, name: str, element: str) -> None:
        if self.ruleset.sets[name].elements.pop(element, None) is not None:
            self._touch(name, element)

    def _add_set(self, name: str, item: NftSet) -> None:
        self.ruleset.sets[name] = item
        self._touch(name, *item.elements)

    def _drop_sets(self, names: Iterable[str]) -> None:
        for name in names:
            self._touch(name, *self.ruleset.sets.pop(name).elements)

    def _touch(self, name: str, *elements: str) -> None:
        self._touched.setdefault(name, set()).update(elements)

    def _set_chain(self, name: str, rules: Rules | None) -> None:
        if rules == self.ruleset.chains.get(name):
            return
        if rules is None:
            del self.ruleset.chains[name]
        else:
            self.ruleset.chains[name] = rules
        self._touch(name)


def _discard(index: dict[K, set[Key]], key: K, value: Key) -> None:
    """Take a value out of an index, and with its last value a key."""
    index[key].discard(value)
    if not index[key]:
        del index[key]


def _isolation_chain(direction: Direction, policies: frozenset[Key]) -> str:
    return name_of(f"only_{direction}", sorted(policies))


def _named_element(port: NamedPort, member: Member) -> Iterator[str]:
    if port in member.ports:
        yield f"{member.address} . {member.ports[port]}"


def _parts(policy: Policy, egress_dns: Iterable[bool]) -> _Parts:
    egress = policy.egress or ()
    rules = [*(policy.ingress or ()), *egress]
    with_dns = [rule for rule, dns in zip(egress, egress_dns, strict=True) if dns]
    ports = [rule.ports for rule in rules if rule.ports is not None]
    return _Parts(
        frozenset(peer for rule in rules for peer in rule.pods or ()),
        frozenset(name for item in ports for name in item.names),
        frozenset(ranges for item in [*ports, *dns_ports(with_dns)] for ranges in item.numbers.values()),
    )
