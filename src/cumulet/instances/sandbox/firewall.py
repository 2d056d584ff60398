"""The nftables rules of the installation's bridge (nft(8)).

Two tables are named with the installation's id. The `bridge` table checks each frame at its port: it drops a frame whose
source address, MAC or ARP sender is not the port's own, and every frame that is neither IPv4 nor ARP. It forwards frames
between two ports only if both groups are in the same virtual network. The `ip` table protects the machine: groups can reply to
the machine, and open connections only to destinations in the set `services`.

The rules contain names of links, which are the installation's own, and numbers, but no text from outside. The bridge
table gets the elements of a new group, and is replaced in one transaction when a group is removed. Both tables are
loaded again when another program removes them. A port without rules forwards nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import subprocess
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cumulet.common.config import Config
from cumulet.instances.sandbox.names import bridge_name, link_name, link_prefix, mac_address, table_name
from cumulet.instances.sandbox.programs import run
from cumulet.instances.sandbox.table_watch import TableWatch

log = logging.getLogger(__name__)

#: Seconds for which the reply to a datagram of the machine is accepted, and the number of datagrams that are tracked.
_REPLY_SECONDS, _DATAGRAMS = 60, 65536


class FirewallError(Exception):
    """nft failed; the message is its own."""


class Member(NamedTuple):
    """A group's port on the bridge.

    `network` names the virtual network, whose members reach each other. A group without one reaches no other group.
    """

    address: ipaddress.IPv4Address
    network: str | None


class Firewall:
    """The current rules of one installation."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._members: dict[ipaddress.IPv4Address, Member] = {}
        self._lock = asyncio.Lock()
        #: The numbers of virtual networks in the rules; a number is never given to another network.
        self._numbers: dict[str, int] = {}
        self._pending: list[Member] = []
        self._requested = self._loaded = 0
        self._watch: TableWatch | None = None
        self._restoring: asyncio.Task[None] | None = None

    async def open(self, members: Iterable[Member]) -> None:
        """Load both tables for existing groups, and again whenever they are removed. Raises `FirewallError`."""
        self._members = {member.address: member for member in members}
        try:
            self._watch = TableWatch(table_name(self._config))
        except OSError as error:
            raise FirewallError(f"the rules cannot be watched: {error.strerror}") from None
        try:
            async with self._lock:
                await self._load(machine_rules(self._config))
        except FirewallError:
            self._watch.close()
            self._watch = None
            raise
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._changed)

    def close(self) -> None:
        """Stop watching because this process ends; the rules stay."""
        if self._watch is not None:
            asyncio.get_running_loop().remove_reader(self._watch.fileno())
            self._watch.close()
            self._watch = None
        if self._restoring is not None:
            self._restoring.cancel()

    def _changed(self) -> None:
        assert self._watch is not None
        if self._watch.take() and (self._restoring is None or self._restoring.done()):
            self._restoring = asyncio.create_task(self._restore(), name="restore the rules")

    async def _restore(self) -> None:
        async with self._lock:
            # A replacement by this process removes the table for a moment, too.
            if self._watch is None or not self._watch.take():
                return
            log.warning("another program removed the rules between groups: loading them again")
            try:
                await self._load(machine_rules(self._config))
            except FirewallError as error:
                log.error("the rules between groups are missing: %s", error)

    async def add(self, member: Member) -> None:
        """Add the rules of a group, before its link is on the bridge. Raises `FirewallError`."""
        before = self._members.get(member.address)
        if before == member:
            return
        self._members[member.address] = member
        try:
            if before is None:
                await self._extend(member)
            else:
                await self._apply()
        except FirewallError:
            del self._members[member.address]
            raise

    async def remove(self, address: ipaddress.IPv4Address) -> None:
        """Remove the rules of a group, before another group gets its address. Raises `FirewallError`."""
        if self._members.pop(address, None) is not None:
            await self._apply()

    async def _extend(self, member: Member) -> None:
        """Add the elements of a new group, which is quicker than a new table; groups that wait are added together."""
        self._pending.append(member)
        async with self._lock:
            if member not in self._pending:
                return
            members, self._pending = self._pending, []
            try:
                await _run_nft(element_rules(self._config, members, self._numbers))
            except FirewallError:
                try:
                    await self._load("")  # the table is missing: another program removed it
                except FirewallError:
                    self._pending += [item for item in members if item != member]  # each caller gets its own error
                    raise

    async def _apply(self) -> None:
        """Load the current rules; changes that arrive while nft runs are loaded together."""
        self._requested += 1
        requested = self._requested
        async with self._lock:
            if self._loaded < requested:
                await self._load("")

    async def _load(self, more: str) -> None:
        requested = self._requested
        await _run_nft(more + group_rules(self._config, list(self._members.values()), self._numbers))
        self._loaded = requested


async def _run_nft(script: str) -> None:
    """Run a script of nft(8) in one transaction. Raises `FirewallError`."""
    try:
        done = await run("nft", "-f", "-", given=script.encode())
    except OSError as error:
        raise FirewallError(f"nft: {error.strerror}") from None
    if done.code:
        raise FirewallError(f"nft: {done.reason}")


def check(config: Config) -> str | None:
    """Return why this kernel or user cannot load the rules, or `None`; change nothing. Raises `FileNotFoundError`."""
    script = machine_rules(config) + group_rules(config, [], {})
    done = subprocess.run(["nft", "-c", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    return done.stderr.strip().partition("\n")[0] if done.returncode else None


def remove_tables(config: Config) -> list[str]:
    """Delete the tables of an installation whose room is stopped; return their names. Raises `OSError`."""
    removed = []
    for family in ("bridge", "ip"):
        table = f"{family} {table_name(config)}"
        listed = subprocess.run(["nft", "list", "table", *table.split()], capture_output=True, check=False)
        if listed.returncode:
            continue
        done = subprocess.run(["nft", "delete", "table", *table.split()], capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(f"nft delete table {table}: {done.stderr.strip()}")
        removed.append(f"table {table}")
    return removed


def group_rules(config: Config, members: Sequence[Member], numbers: dict[str, int]) -> str:
    """Return the nft script that replaces the bridge table for these groups in one transaction."""
    pods = ipaddress.IPv4Network(config.pod_cidr)
    senders, networks, reached = _member_elements(config, members, numbers)
    table, ports = f"bridge {table_name(config)}", f'"{link_prefix(config)}*"'
    return f"""
add table {table}
delete table {table}
table {table} {{
  set senders {{ type ifname . ether_addr . ipv4_addr; {_elements(senders)} }}
  map networks {{ type ifname : mark; {_elements(networks)} }}
  set reached {{ type mark . ifname; {_elements(reached)} }}
  chain arriving {{
    type filter hook prerouting priority -300; policy accept;
    iifname != {ports} accept
    ether type arp iifname . ether saddr . arp saddr ip @senders iifname . arp saddr ether . arp saddr ip @senders accept
    ether type ip iifname . ether saddr . ip saddr @senders accept
    drop
  }}
  chain passing {{
    type filter hook forward priority 0; policy accept;
    iifname != {ports} oifname != {ports} accept
    meta mark set iifname map @networks
    meta mark . oifname @reached accept
    drop
  }}
  chain entering {{
    type filter hook input priority 0; policy accept;
    iifname != {ports} accept
    ether type arp accept
    ip daddr {pods.network_address + 1} accept
    ip daddr {pods} drop comment "the machine would route it back, past the chain above"
    ether type ip accept
    drop
  }}
}}
"""


def element_rules(config: Config, members: Sequence[Member], numbers: dict[str, int]) -> str:
    """Return the nft script that adds groups to the bridge table. `numbers` gets those of new virtual networks."""
    table = f"bridge {table_name(config)}"
    sets = zip(("senders", "networks", "reached"), _member_elements(config, members, numbers), strict=True)
    return "".join(f"add element {table} {name} {{ {', '.join(values)} }}\n" for name, values in sets if values)


def _member_elements(
    config: Config, members: Sequence[Member], numbers: dict[str, int]
) -> tuple[list[str], list[str], list[str]]:
    """Return the elements of `senders`, `networks` and `reached` for these groups."""
    senders, networks, reached = [], [], []
    for member in members:
        link = link_name(config, member.address)
        senders.append(f'"{link}" . {mac_address(member.address)} . {member.address}')
        if member.network is not None:
            number = numbers.setdefault(member.network, len(numbers) + 1)
            networks.append(f'"{link}" : {number}')
            reached.append(f'{number} . "{link}"')
    return senders, networks, reached


def machine_rules(config: Config) -> str:
    """Return the nft script that replaces the ip table: connections of groups to this machine, and of other bridges to groups."""
    gateway = ipaddress.IPv4Network(config.pod_cidr).network_address + 1
    table, bridge = f"ip {table_name(config)}", f'"{bridge_name(config)}"'
    return f"""
add table {table}
delete table {table}
table {table} {{
  set services {{ type ipv4_addr . inet_proto . inet_service; }}
  set expected {{
    type ipv4_addr . inet_service . inet_service
    flags dynamic, timeout; timeout {_REPLY_SECONDS}s; size {_DATAGRAMS}
  }}
  chain entering {{
    type filter hook input priority -10; policy accept;
    iifname != {bridge} accept
    ip daddr . meta l4proto . th dport @services accept
    tcp flags & (syn | ack) == syn drop
    meta l4proto tcp accept
    ip saddr . udp sport . udp dport @expected accept
    icmp type {{ echo-reply, destination-unreachable, time-exceeded }} accept
    ip daddr {gateway} icmp type echo-request accept
    drop
  }}
  chain passing {{
    type filter hook forward priority -10; policy accept;
    iifname != {bridge} iifname "cb*" oifname {bridge} drop comment "another installation's groups"
  }}
  chain leaving {{
    type filter hook output priority 0; policy accept;
    oifname != {bridge} accept
    meta l4proto udp update @expected {{ ip daddr . udp dport . udp sport }}
  }}
}}
"""


def _elements(values: list[str]) -> str:
    return f"elements = {{ {', '.join(values)} }};" if values else ""
