"""A group's network: a namespace with one address on the installation's bridge, shared by the group's containers."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from cumulet.common.config import Config
from cumulet.instances.sandbox import names
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.firewall import Firewall, FirewallError, Member
from cumulet.instances.sandbox.programs import run


class Network:
    """The bridge, its addresses, and the rules between groups. A released address is reused as late as possible."""

    def __init__(self, config: Config, taken: set[str]) -> None:
        self._config = config
        self.bridge = names.bridge_name(config)
        self._range = ipaddress.IPv4Network(config.pod_cidr)
        self.gateway = str(self._range.network_address + 1)
        self._taken = set(taken) | {self.gateway}
        self._next = 1
        self._firewall = Firewall(config)

    async def open(self, members: Mapping[str, str | None]) -> None:
        """Create the bridge if it is missing, and the rules for existing groups.

        `members` maps the address of each group to its virtual network, or to `None`. Raises `SandboxError`.
        """
        networks = {ipaddress.IPv4Address(address): network for address, network in members.items()}
        with _firewall_errors():
            # Before the bridge: running groups keep the reach they have, and no more.
            await self._firewall.open(
                Member(address, network) for address, network in networks.items() if address in self._range
            )
        if not Path(f"/sys/class/net/{self.bridge}").exists():
            await _ip(f"link add {self.bridge} type bridge forward_delay 0")
        await _ip(
            f"link set {self.bridge} addrgenmode none\n"
            f"addr replace {self.gateway}/{self._range.prefixlen} dev {self.bridge}\n"
            f"link set {self.bridge} up"
        )

    def close(self) -> None:
        """Stop watching the rules because this process ends; the network stays."""
        self._firewall.close()

    def allocate(self) -> str:
        """Return an address for a group. Raises `SandboxError` when none is left."""
        hosts = self._range.num_addresses - 2
        for _ in range(hosts):
            self._next = self._next % hosts + 1
            address = str(self._range.network_address + self._next)
            if address not in self._taken:
                self._taken.add(address)
                return address
        raise SandboxError(f"no address is left in {self._range}")

    def release(self, address: str) -> None:
        """Allow an address to be reused: its group is destroyed, and so are the group's rules."""
        self._taken.discard(address)

    def path(self, uid: str) -> Path:
        """Return the file that names a group's namespace."""
        return names.NAMESPACES / names.namespace_name(self._config, uid)

    def is_there(self, uid: str) -> bool:
        """Return whether a group has a namespace."""
        return self.path(uid).exists()

    async def create(
        self,
        uid: str,
        address: str,
        network: str | None = None,
        owned: AbstractAsyncContextManager[int] | None = None,
    ) -> Path:
        """Create a group's namespace with its address, or keep an existing one; return the file that names it.

        The group reaches the groups of the same virtual network, and they reach it; without a network it reaches none.
        `owned` yields the id of a process in a new network namespace of a user namespace, which becomes the group's.
        Raises `SandboxError`.
        """
        own = ipaddress.IPv4Address(address)
        if own not in self._range:
            raise SandboxError(f"{address} is not in the range of the pods, {self._range}")
        path, member = self.path(uid), Member(own, network)
        if path.exists():
            await self._add_rules(member)
            if await self._is_whole(path.name, address):
                return path
            await self._delete(path.name, own)
        async with contextlib.AsyncExitStack() as stack:
            # The namespace is made while nft runs. The link is added to the bridge after both.
            _, pid = await to_completion(self._add_rules(member), stack.enter_async_context(owned or _nothing()))
            link = names.link_name(self._config, own)
            await _ip(
                (f"netns attach {path.name} {pid}\n" if pid else f"netns add {path.name}\n")
                + f"link add {link} type veth peer name eth0 address {names.mac_address(own)} netns {path.name}\n"
                # Isolated ports do not reach each other, even without rules.
                f"link set {link} addrgenmode none master {self.bridge}\n"
                f"link set {link} type bridge_slave isolated {'off' if network else 'on'}\n"
                f"link set {link} up"
            )
        await _ip(
            "link set lo up\n"
            f"addr add {address}/{self._range.prefixlen} dev eth0\n"
            # IPv6 does not leave the group.
            "link set eth0 addrgenmode none up\n"
            f"route add default via {self.gateway}",
            namespace=path.name,
        )
        return path

    async def destroy(self, uid: str, address: str) -> None:
        """Remove a group's namespace, its link, and then its rules. Raises `SandboxError`."""
        if address:
            own = ipaddress.IPv4Address(address)
            await self._delete(self.path(uid).name, own)
            with _firewall_errors():
                await self._firewall.remove(own)

    async def _add_rules(self, member: Member) -> None:
        with _firewall_errors():
            await self._firewall.add(member)

    async def _delete(self, name: str, address: ipaddress.IPv4Address) -> None:
        # The kernel removes the content of a namespace some time after its name is gone.
        link = names.link_name(self._config, address)
        if Path(f"/sys/class/net/{link}").exists():
            await _ip(f"link delete {link}")
        if (names.NAMESPACES / name).exists():
            await _ip(f"netns delete {name}")

    async def _is_whole(self, name: str, address: str) -> bool:
        command = ("ip", "-n", name, "-brief", "addr", "show", "dev", "eth0")
        done = await run(*command)
        return done.code == 0 and f" {address}/" in done.output.decode()


@contextlib.contextmanager
def _firewall_errors() -> Iterator[None]:
    try:
        yield
    except FirewallError as error:
        raise SandboxError(str(error)) from None


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[int]:
    """Stand in for the process of a user namespace, where groups have none."""
    yield 0


async def _ip(commands: str, namespace: str | None = None) -> None:
    """Run commands of ip(8), one per line, in a network namespace or this one. Raises `SandboxError`."""
    where = ["-n", namespace] if namespace else []
    command = ("ip", *where, "-batch", "-")
    done = await run(*command, given=commands.encode())
    if done.code:
        raise SandboxError(f"ip: {done.reason}")
