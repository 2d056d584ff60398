"""Who reaches whom on the installation's bridge: nftables rules of the installation's own (nft(8)).

Two tables, named with the installation's id. The `bridge` table sees each frame at the port by which it comes: one whose
source address, MAC or ARP sender is not the port's own is dropped, and so is all that is neither IPv4 nor ARP. It lets
frames pass between two ports only where both groups are in the same virtual network. The `ip` table guards the machine:
groups answer to what the machine asked, and open nothing to it but what is in the set `services`.

Both tables name links, which are the installation's own, and numbers; no text that came from outside is in a rule. The
bridge table is replaced in one transaction whenever a group comes or goes; both are loaded again when somebody flushes them.
A port that has no rule yet passes nothing.
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
from cumulet.instances.sandbox.table_watch import TableWatch

log = logging.getLogger(__name__)

#: Seconds for which the answer to a datagram of the machine is let in, and how many such questions are remembered.
_ANSWER_SECONDS, _QUESTIONS = 60, 65536


class FirewallError(Exception):
    """nft did not do what was asked; the message is what it said."""


class Member(NamedTuple):
    """A group's port on the bridge.

    `network` names the virtual network whose members reach each other; a group without one reaches no other group.
    """

    address: ipaddress.IPv4Address
    network: str | None


class Firewall:
    """The rules of one installation, as of now."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._members: dict[ipaddress.IPv4Address, Member] = {}
        self._lock = asyncio.Lock()
        self._wanted = self._loaded = 0
        self._watch: TableWatch | None = None
        self._restoring: asyncio.Task[None] | None = None

    async def open(self, members: Iterable[Member]) -> None:
        """Load both tables for the groups that there are, and again whenever they go. Raises `FirewallError`."""
        self._members = {member.address: member for member in members}
        try:
            self._watch = TableWatch(table_name(self._config))
        except OSError as error:
            raise FirewallError(f"the rules cannot be watched: {error.strerror}") from None
        async with self._lock:
            await self._load(machine_rules(self._config))
        asyncio.get_running_loop().add_reader(self._watch.fileno(), self._changed)

    def close(self) -> None:
        """This process ends; the rules stay."""
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
            # What this process replaces goes too, for a moment.
            if self._watch is None or not self._watch.take():
                return
            log.warning("the rules between groups were removed from outside: they are loaded again")
            try:
                await self._load(machine_rules(self._config))
            except FirewallError as error:
                log.error("the rules between groups are not there: %s", error)

    async def add(self, member: Member) -> None:
        """Have the rules of a group, before its link is on the bridge. Raises `FirewallError`."""
        if self._members.get(member.address) != member:
            self._members[member.address] = member
            try:
                await self._apply()
            except FirewallError:
                del self._members[member.address]
                raise

    async def remove(self, address: ipaddress.IPv4Address) -> None:
        """Have the rules of a group no more, before another gets its address. Raises `FirewallError`."""
        if self._members.pop(address, None) is not None:
            await self._apply()

    async def _apply(self) -> None:
        """Load what is wanted now; changes that come while nft runs are loaded together."""
        self._wanted += 1
        wanted = self._wanted
        async with self._lock:
            if self._loaded < wanted:
                await self._load("")

    async def _load(self, more: str) -> None:
        wanted = self._wanted
        script = more + group_rules(self._config, list(self._members.values()))
        try:
            process = await asyncio.create_subprocess_exec(
                "nft", "-f", "-", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            )
        except OSError as error:
            raise FirewallError(f"nft: {error.strerror}") from None
        _, errors = await process.communicate(script.encode())
        if process.returncode:
            raise FirewallError(f"nft: {errors.decode(errors='replace').strip()}")
        self._loaded = wanted


def check(config: Config) -> str | None:
    """Why this kernel or this user cannot have the rules, if so; nothing is changed. Raises `FileNotFoundError`."""
    script = machine_rules(config) + group_rules(config, [])
    done = subprocess.run(["nft", "-c", "-f", "-"], input=script, capture_output=True, text=True, check=False)
    return done.stderr.strip().partition("\n")[0] if done.returncode else None


def remove_tables(config: Config) -> list[str]:
    """Delete the tables of an installation, whose room does not run, and say which there were. Raises `OSError`."""
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


def group_rules(config: Config, members: Sequence[Member]) -> str:
    """The script that makes the bridge table what it is for these groups, in one transaction."""
    pods = ipaddress.IPv4Network(config.pod_cidr)
    numbers = {name: number for number, name in enumerate(sorted({m.network for m in members if m.network}), 1)}
    links = {member: link_name(config, member.address) for member in members}
    senders = [f'"{links[m]}" . {mac_address(m.address)} . {m.address}' for m in members]
    networks = [f'"{links[m]}" : {numbers[m.network]}' for m in members if m.network]
    reached = [f'{numbers[m.network]} . "{links[m]}"' for m in members if m.network]
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


def machine_rules(config: Config) -> str:
    """The script that makes the ip table: what groups may open to this machine, and other bridges to groups."""
    gateway = ipaddress.IPv4Network(config.pod_cidr).network_address + 1
    table, bridge = f"ip {table_name(config)}", f'"{bridge_name(config)}"'
    return f"""
add table {table}
delete table {table}
table {table} {{
  set services {{ type ipv4_addr . inet_proto . inet_service; }}
  set asked {{
    type ipv4_addr . inet_service . inet_service
    flags dynamic, timeout; timeout {_ANSWER_SECONDS}s; size {_QUESTIONS}
  }}
  chain entering {{
    type filter hook input priority -10; policy accept;
    iifname != {bridge} accept
    ip daddr . meta l4proto . th dport @services accept
    tcp flags & (syn | ack) == syn drop
    meta l4proto tcp accept
    ip saddr . udp sport . udp dport @asked accept
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
    meta l4proto udp update @asked {{ ip daddr . udp dport . udp sport }}
  }}
}}
"""


def _elements(values: list[str]) -> str:
    return f"elements = {{ {', '.join(values)} }};" if values else ""
