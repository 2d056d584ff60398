"""The nftables rules of groups, in two tables of the router's namespace (nft(8)).

`bridge groups` checks each frame at its port: it drops a frame whose source address, MAC or ARP sender is not the port's own,
and every frame that is neither IPv4 nor ARP. Nothing is switched from port to port. `ip groups` decides who reaches whom: two
groups of the same virtual network; a group and what is outside the installation, by the machine; the machine and every group;
everybody and the ports of a group with a DNS name.
The router itself is reached at its doors only. Packets of groups that are no pods of a cluster are marked for network policies.

Rules contain names of links, which are the installation's own, and numbers, but no text from outside. The rules of a group are
elements of sets. Both tables are loaded again when another program removes them. A port without rules sends nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from cumulet.common import router
from cumulet.common.ascii import fold
from cumulet.common.config import Config
from cumulet.common.namespaces import inside
from cumulet.common.nftables import AbsentError, Nftables, NftablesError
from cumulet.common.table_watch import IPV4, TableKeeper, TableWatch
from cumulet.instances.model.properties import GroupProperties, virtual_network
from cumulet.instances.sandbox.names import port_name

#: The name of both tables.
TABLE = "groups"
_TABLES = (f"bridge {TABLE}", f"ip {TABLE}")
#: The ports of the gateway that every group may connect to: the API server and DNS.
DOORS = (("tcp", router.API_PORT), ("tcp", router.DNS_PORT), ("udp", router.DNS_PORT))
#: The tags by which a virtual kubelet knows its pods.
_TAGS = {"PodName", "Namespace", "NodeName", "UID"}
#: What groups do not reach outside: this network, loopback, link-local (a cloud's metadata service), multicast, broadcast.
_NOT_FORWARDED = "{ 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16, 224.0.0.0/3 }"


class Member(NamedTuple):
    """A group's port at the router.

    `network` names the virtual network, whose members reach each other. A group without one reaches no other group. Network
    policies are for a group that `is_pod`. Everybody reaches the `published` ports, each a protocol and a number.
    """

    address: ipaddress.IPv4Address
    network: str | None
    is_pod: bool = False
    published: frozenset[tuple[str, int]] = frozenset()


def member_of(address: str, properties: GroupProperties, tags: Mapping[str, str]) -> Member:
    """Return the port of a group with that address. A virtual node that sends no extensions has the tags of its kind.

    A group with a DNS name has published its ports with it.
    """
    is_pod = properties.pod or tags.keys() >= _TAGS
    public = properties.ip_address
    named = public.ports if public is not None and public.dns_name_label is not None else ()
    published = frozenset((fold(port.protocol), port.port) for port in named)
    return Member(ipaddress.IPv4Address(address), virtual_network(properties), is_pod, published)


class Door(NamedTuple):
    """A port of the router that some groups may connect to."""

    address: ipaddress.IPv4Address
    port: int


class Firewall:
    """The current rules of one installation, after `open`."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._members: dict[ipaddress.IPv4Address, Member] = {}
        self._guests: dict[ipaddress.IPv4Address, frozenset[Door]] = {}
        #: The numbers of virtual networks in the rules; a number is never given to another network.
        self._numbers: dict[str, int] = {}
        self._lock = asyncio.Lock()
        self._open = contextlib.ExitStack()
        self._nftables: Nftables | None = None

    async def open(self, members: Iterable[Member]) -> None:
        """Load both tables for existing groups, and again whenever they are removed; so too the machine's guard.

        Raises `NftablesError`.
        """
        self._members = {member.address: member for member in members}
        namespace = router.namespace_name(self._config)
        with contextlib.ExitStack() as stack:
            self._nftables = stack.enter_context(Nftables(namespace))
            machine = stack.enter_context(Nftables())
            try:
                watch = inside(namespace, lambda: TableWatch(TABLE))
                guard = TableWatch(router.table_name(self._config), (IPV4,))
            except OSError as error:
                raise NftablesError(f"the rules cannot be watched: {error.strerror}") from None
            stack.callback(TableKeeper(watch, self._lock, self._load).close)
            stack.callback(
                TableKeeper(guard, asyncio.Lock(), lambda: machine.run(router.guard_rules(self._config))).close
            )
            async with self._lock:
                await self._load()
            self._open = stack.pop_all()

    def close(self) -> None:
        """Stop watching because this process ends; the rules stay."""
        self._open.close()

    async def add(self, member: Member) -> None:
        """Add the rules of a group, before its link is plugged in. Raises `NftablesError`."""
        before = self._members.get(member.address)
        if before == member:
            return
        self._members[member.address] = member
        changes = [] if before is None else [self._elements("delete", before)]
        try:
            await self._run("".join([*changes, self._elements("add", member)]))
        except NftablesError:
            del self._members[member.address]
            raise

    async def remove(self, address: ipaddress.IPv4Address) -> None:
        """Remove the rules of a group, before another group gets its address. Raises `NftablesError`."""
        if (member := self._members.pop(address, None)) is not None:
            script = self._elements("delete", member)
            self._guests.pop(address, None)
            await self._run(script)

    async def admit(self, address: ipaddress.IPv4Address, doors: Iterable[Door]) -> None:
        """Let a group connect to these doors, in place of earlier ones, besides those for every group.

        It lasts until the rules of the group are removed. Raises `NftablesError`.
        """
        before, wanted = self._guests.get(address, frozenset()), frozenset(doors)
        self._guests[address] = wanted
        script = _commands("delete", {"guests": _guests(address, before - wanted)})
        script += _commands("add", {"guests": _guests(address, wanted - before)})
        if script:
            await self._run(script)

    def _elements(self, verb: str, member: Member) -> str:
        """Return the script that adds or deletes the elements of a group, which is quicker than new tables."""
        return _commands(verb, _sets(self._config, [member], self._numbers, self._guests))

    async def _run(self, script: str) -> None:
        assert self._nftables is not None
        async with self._lock:
            try:
                await self._nftables.run(script)
            except AbsentError:  # another program removed a table, or elements
                await self._load()

    async def _load(self) -> None:
        assert self._nftables is not None
        members = list(self._members.values())
        await self._nftables.run(group_rules(self._config, members, self._numbers, self._guests))


def check(config: Config) -> str | None:
    """Return why this kernel or user cannot load the rules, or `None`; change nothing."""
    try:
        with Nftables() as machine:
            machine.check_now(router.guard_rules(config) + group_rules(config, [], {}, {}))
    except NftablesError as error:
        return str(error)
    return None


def group_rules(
    config: Config,
    members: Sequence[Member],
    numbers: dict[str, int],
    guests: Mapping[ipaddress.IPv4Address, frozenset[Door]],
) -> str:
    """Return the script that replaces both tables for these groups in one transaction."""
    sets = _sets(config, members, numbers, guests)
    gateway, services = router.gateway(config), f"{{ {config.service_cidr}, {config.external_cidr} }}"
    switch, route = _TABLES
    return f"""
add table {switch}
delete table {switch}
table {switch} {{
  set senders {{ type ifname . ether_addr . ipv4_addr; {_content(sets["senders"])} }}
  chain arriving {{
    type filter hook prerouting priority -300; policy drop;
    ether type arp iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept
    ether daddr {router.mac_address(gateway)} ether type ip iifname . ether saddr . ip saddr @senders accept
  }}
  chain passing {{
    type filter hook forward priority 0; policy drop;
  }}
  chain leaving {{
    type filter hook output priority 0; policy accept;
    ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 drop comment "to everybody, such as a question who has an address"
  }}
}}
add table {route}
delete table {route}
table {route} {{
  map networks {{ type ipv4_addr : mark; {_content(sets["networks"])} }}
  set reached {{ type mark . ipv4_addr; {_content(sets["reached"])} }}
  set doors {{
    type ipv4_addr . inet_proto . inet_service
    elements = {{ {", ".join(f"{gateway} . {protocol} . {port}" for protocol, port in DOORS)} }}
  }}
  set published {{ type ipv4_addr . inet_proto . inet_service; {_content(sets["published"])} }}
  set guests {{ type ipv4_addr . ipv4_addr . inet_service; {_content(sets["guests"])} }}
  set others {{ type ipv4_addr; {_content(sets["others"])} }}
  chain arriving {{
    type filter hook prerouting priority raw; policy accept;
    ip hdrlength != 5 drop comment "options, such as a route of the sender's choice"
  }}
  chain passing {{
    type filter hook forward priority filter - 10; policy drop;
    ct state {{ established, related }} accept
    iifname {router.UPLINK} accept
    oifname {router.UPLINK} ip daddr != {_NOT_FORWARDED} accept
    oifname != {router.BRIDGE} drop
    meta mark set ip saddr map @networks
    meta mark . ip daddr @reached accept
    ip daddr . meta l4proto . th dport @published accept
  }}
  chain leaving {{
    type filter hook forward priority filter + 10; policy accept;
    oifname {router.UPLINK} ip daddr {services} drop comment "no Service has this address: the machine would route it back"
  }}
  chain entering {{
    type filter hook input priority filter - 10; policy drop;
    ct state {{ established, related }} accept
    iifname != {router.BRIDGE} accept
    ip daddr . meta l4proto . th dport @doors accept
    meta l4proto tcp ip saddr . ip daddr . tcp dport @guests accept
    ip daddr {gateway} icmp type echo-request accept
  }}
  chain marking_forwarded {{
    type filter hook forward priority filter - 5; policy accept;
    ip saddr @others meta mark set meta mark | {router.GROUP_SENDS:#x}
    ip daddr @others meta mark set meta mark | {router.GROUP_RECEIVES:#x}
  }}
  chain marking_entering {{
    type filter hook input priority filter - 5; policy accept;
    ip saddr @others meta mark set meta mark | {router.GROUP_SENDS:#x}
  }}
}}
"""


def _sets(
    config: Config,
    members: Sequence[Member],
    numbers: dict[str, int],
    guests: Mapping[ipaddress.IPv4Address, frozenset[Door]],
) -> dict[str, list[str]]:
    """Return the elements of each set for these groups. `numbers` gets those of new virtual networks."""
    sets: dict[str, list[str]] = {
        "senders": [],
        "networks": [],
        "reached": [],
        "published": [],
        "guests": [],
        "others": [],
    }
    for member in members:
        port, mac = port_name(config, member.address), router.mac_address(member.address)
        sets["senders"].append(f'"{port}" . {mac} . {member.address}')
        sets["published"] += [
            f"{member.address} . {protocol} . {port}" for protocol, port in sorted(member.published)
        ]
        sets["guests"] += _guests(member.address, guests.get(member.address, frozenset()))
        if member.network is not None:
            number = numbers.setdefault(member.network, len(numbers) + 1)
            sets["networks"].append(f"{member.address} : {number}")
            sets["reached"].append(f"{number} . {member.address}")
        if not member.is_pod:
            sets["others"].append(str(member.address))
    return sets


def _guests(address: ipaddress.IPv4Address, doors: Iterable[Door]) -> list[str]:
    return [f"{address} . {door.address} . {door.port}" for door in sorted(doors)]


def _commands(verb: str, sets: Mapping[str, list[str]]) -> str:
    """Return the commands that add or delete elements of sets."""
    tables = {"senders": _TABLES[0]}
    return "".join(
        f"{verb} element {tables.get(name, _TABLES[1])} {name} {{ {', '.join(values)} }}\n"
        for name, values in sets.items()
        if values
    )


def _content(values: list[str]) -> str:
    return f"elements = {{ {', '.join(values)} }};" if values else ""
