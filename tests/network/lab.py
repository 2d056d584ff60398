"""A router with a few pods, without the rooms: network namespaces that are joined as those of container groups are."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from cumulet.common import router
from cumulet.common.config import DEFAULT_PORTS, Config
from cumulet.common.namespaces import NAMESPACES, inside
from cumulet.common.nftables import Nftables
from cumulet.instances.sandbox import links
from cumulet.instances.sandbox.firewall import Member, group_rules
from cumulet.instances.sandbox.names import port_name
from cumulet.network.policy.rules import Places
from cumulet.up.install import install
from tests.installation import free_pod_cidr
from tests.network.packets import PROTOCOLS, Arrival, Probe, read, written

#: An address that is nobody's (RFC 5737), behind the uplink.
OUTSIDE = "192.0.2.10"
_ETH_ALL, _ETH_IPV4 = 3, 0x0800
_END = 0xFFFFFFFF
_SO_RCVBUFFORCE = 33


class Lab:
    """Pods by number, the machine, the outside, and the router's own address; `rules` are the router's."""

    def __init__(self, config: Config, pods: int, stack: contextlib.ExitStack) -> None:
        self.config = config
        self.namespace = router.namespace_name(config)
        self.gateway, self.machine = str(self.places.gateway), str(self.places.machine)
        self.pods = [str(self.places.machine + 1 + number) for number in range(pods)]
        self.rules = stack.enter_context(Nftables(self.namespace))
        self.links = {address: port_name(config, ipaddress.IPv4Address(address)) for address in self.pods}
        self._raw: dict[str, socket.socket] = {}
        self._taps: dict[str, socket.socket] = {}
        self._doors: list[socket.socket] = []
        for address in self.pods:
            self._join(address, stack)
        tap = stack.enter_context(inside(self.namespace, lambda: _tap(router.UPLINK)))
        self._taps[OUTSIDE] = tap
        for protocol in PROTOCOLS.values():
            door = router.open_socket(self.namespace, socket.AF_INET, socket.SOCK_RAW, protocol)
            self._doors.append(stack.enter_context(door))
        self._raw[self.machine] = stack.enter_context(_sender())
        self._uplink = stack.enter_context(_tap(router.link_name(config)))
        ends = _mac(router.UPLINK, self.namespace), _mac(router.link_name(config))
        self._head = b"".join(ends) + _ETH_IPV4.to_bytes(2)
        # A packet is handled by the processor that sends it, so packets of one sender after the other stay in order.
        allowed = os.sched_getaffinity(0)
        stack.callback(os.sched_setaffinity, 0, allowed)
        os.sched_setaffinity(0, {min(allowed)})

    @property
    def places(self) -> Places:
        """The router's and the machine's address."""
        pods = ipaddress.IPv4Network(self.config.pod_cidr)
        return Places(router.gateway(self.config), router.machine_address(self.config), pods)

    def pod_namespace(self, address: str) -> str:
        """The name of a pod's network namespace."""
        return f"{self.namespace}-{self.links[address]}"

    def guard(self) -> None:
        """Load the rules of container groups, for pods of one virtual network."""
        members = [Member(ipaddress.IPv4Address(address), "net", is_pod=True) for address in self.pods]
        self.rules.run_now(group_rules(self.config, members, {}, {}))

    def tap(self, address: str) -> socket.socket:
        """What sees each frame of a pod, and sends what it is told."""
        return self._taps[address]

    def _join(self, address: str, stack: contextlib.ExitStack) -> None:
        name, link = self.pod_namespace(address), self.links[address]
        _ip(f"netns add {name}")
        stack.callback(_ip, f"netns delete {name}")
        own = ipaddress.IPv4Address(address)
        links.plug(self.namespace, router.BRIDGE, link, NAMESPACES / name, own)
        links.configure(NAMESPACES / name, own, router.gateway(self.config))
        self._raw[address] = stack.enter_context(inside(name, _sender))
        self._taps[address] = stack.enter_context(inside(name, lambda: _tap("eth0")))

    def arrived(self, probes: Iterable[Probe]) -> set[int]:
        """Send probes, and return the numbers of those that arrived at their target."""
        for tap in (*self._taps.values(), *self._doors):
            _emptied(tap)
        for probe in probes:
            self.send(written(probe), probe.source, probe.target)
        arrivals: set[int] = set()
        for address in self.pods:
            arrivals |= {item.number or 0 for item in self.received(address) if item.target == address}
        ending = Probe(self.gateway, self.machine, "udp", 9, _END)
        with inside(self.namespace, _sender) as own:
            own.sendto(written(ending), (self.machine, 0))
        arrivals |= {item.number or 0 for item in self._until_end(self._taps[OUTSIDE]) if item.target == OUTSIDE}
        for door, protocol in zip(self._doors, PROTOCOLS, strict=True):
            self.send(written(Probe(self.machine, self.gateway, protocol, 9, _END)), self.machine, self.gateway)
            arrivals |= {item.number or 0 for item in self._until_end(door, head=0)}
        return arrivals - {0}

    def received(self, address: str) -> list[Arrival]:
        """The packets that a pod has received or sent by now."""
        self.send(written(Probe(self.machine, address, "udp", 9, _END)), self.machine, address)
        return list(self._until_end(self._taps[address]))

    def send(self, packet: bytes, source: str, target: str) -> None:
        """Send a packet from a pod or the machine, or let it come from outside."""
        if source in self._raw:
            self._raw[source].sendto(packet, (target, 0))
        else:
            self._uplink.send(self._head + packet)

    def _until_end(self, tap: socket.socket, head: int = 14) -> Iterator[Arrival]:
        while True:
            raw = tap.recv(65536)
            if head and raw[12:14] != _ETH_IPV4.to_bytes(2):
                continue
            arrival = read(raw[head:])
            if arrival.number == _END:
                return
            yield arrival


@contextlib.contextmanager
def lab(folder: Path, pods: int = 4) -> Iterator[Lab]:
    """A lab with its data in a folder."""
    config = install(folder / "data", ports=dict.fromkeys(DEFAULT_PORTS, 0), pod_cidr=free_pod_cidr())
    with contextlib.ExitStack() as stack:
        stack.callback(router.remove, config)
        router.ensure(config)
        yield Lab(config, pods, stack)


def _sender() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _tap(link: str) -> socket.socket:
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_ALL))
    made.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 22)
    made.bind((link, _ETH_ALL))
    made.settimeout(5)
    return made


def _mac(link: str, namespace: str | None = None) -> bytes:
    command = ["ip", *(["-n", namespace] if namespace else []), "-brief", "link", "show", "dev", link]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return bytes.fromhex(shown.split()[2].replace(":", ""))


def _emptied(tap: socket.socket) -> None:
    seconds = tap.gettimeout()
    tap.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            tap.recv(65536)
    tap.settimeout(seconds)


def _ip(commands: str, namespace: str | None = None) -> None:
    where = ["-n", namespace] if namespace else []
    subprocess.run(["ip", *where, "-batch", "-"], input=commands, text=True, check=True)
