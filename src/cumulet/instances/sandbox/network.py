"""A group's own network: a namespace with one address on the installation's bridge, shared by its containers."""

from __future__ import annotations

import asyncio
import ipaddress
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from cumulet.common.config import Config
from cumulet.instances.sandbox import names
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.firewall import Firewall, FirewallError, Member


class Network:
    """The bridge, who has which address, and who reaches whom. An address is used again as late as can be."""

    def __init__(self, config: Config, taken: set[str]) -> None:
        self._config = config
        self.bridge = names.bridge_name(config)
        self._range = ipaddress.IPv4Network(config.pod_cidr)
        self.gateway = str(self._range.network_address + 1)
        self._taken = set(taken) | {self.gateway}
        self._next = 1
        self._firewall = Firewall(config)

    async def open(self, members: Mapping[str, str | None]) -> None:
        """Make the bridge where it is not there, and the rules for the groups that there are.

        `members` says in which virtual network the group with an address is, if in any. Raises `SandboxError`.
        """
        found = {ipaddress.IPv4Address(address): network for address, network in members.items()}
        try:
            # Groups that run meanwhile keep what they may reach, and nothing else.
            await self._firewall.open(
                Member(address, network) for address, network in found.items() if address in self._range
            )
        except FirewallError as error:
            raise SandboxError(str(error)) from None
        if not Path(f"/sys/class/net/{self.bridge}").exists():
            await _ip(f"link add {self.bridge} type bridge forward_delay 0")
        await _ip(
            f"link set {self.bridge} addrgenmode none\n"
            f"addr replace {self.gateway}/{self._range.prefixlen} dev {self.bridge}\n"
            f"link set {self.bridge} up"
        )

    def close(self) -> None:
        """This process ends; the network stays."""
        self._firewall.close()

    def allocate(self) -> str:
        """An address for a group. Raises `SandboxError` where none is left."""
        hosts = self._range.num_addresses - 2
        for _ in range(hosts):
            self._next = self._next % hosts + 1
            address = str(self._range.network_address + self._next)
            if address not in self._taken:
                self._taken.add(address)
                return address
        raise SandboxError(f"no address is left in {self._range}")

    def release(self, address: str) -> None:
        """The address may be used again: its group has been destroyed, and its rules with it."""
        self._taken.discard(address)

    def namespace(self, uid: str) -> str:
        """The name of a group's namespace."""
        return names.namespace_name(self._config, uid)

    def is_there(self, uid: str) -> bool:
        """Whether a group has a namespace."""
        return (Path("/run/netns") / self.namespace(uid)).exists()

    async def create(
        self,
        uid: str,
        address: str,
        network: str | None = None,
        owned: AbstractAsyncContextManager[int] | None = None,
    ) -> Path:
        """Make a group's namespace with its address, or take the one that is there; the file that names it.

        It reaches, and is reached by, the groups of the same virtual network; without one, none.
        `owned` is a process in a new network namespace of a user namespace, which becomes the group's. Raises `SandboxError`.
        """
        own = ipaddress.IPv4Address(address)
        if own not in self._range:
            raise SandboxError(f"{address} is not in the range of the pods, {self._range}")
        name, link = self.namespace(uid), names.link_name(self._config, own)
        path = Path("/run/netns") / name
        try:
            await self._firewall.add(Member(own, network))
        except FirewallError as error:
            raise SandboxError(str(error)) from None
        if path.exists():
            if await self._is_whole(name, address):
                return path
            await self._delete(name, own)
        if owned is None:
            await _ip(f"netns add {name}")
        else:
            async with owned as pid:
                await _ip(f"netns attach {name} {pid}")
        await _ip(
            f"link add {link} type veth peer name eth0 address {names.mac_address(own)} netns {name}\n"
            # Ports that are isolated do not reach each other, also where there are no rules.
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
            namespace=name,
        )
        return path

    async def destroy(self, uid: str, address: str) -> None:
        """Remove a group's namespace, and with it its link, and then its rules. Raises `SandboxError`."""
        if address:
            own = ipaddress.IPv4Address(address)
            await self._delete(self.namespace(uid), own)
            try:
                await self._firewall.remove(own)
            except FirewallError as error:
                raise SandboxError(str(error)) from None

    async def _delete(self, name: str, address: ipaddress.IPv4Address) -> None:
        # The kernel ends a namespace, and what is in it, some time after its name has gone.
        link = names.link_name(self._config, address)
        if Path(f"/sys/class/net/{link}").exists():
            await _ip(f"link delete {link}")
        if (Path("/run/netns") / name).exists():
            await _ip(f"netns delete {name}")

    async def _is_whole(self, name: str, address: str) -> bool:
        command = ("ip", "-n", name, "-brief", "addr", "show", "dev", "eth0")
        process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
        output, _ = await process.communicate()
        return process.returncode == 0 and f" {address}/" in output.decode()


async def _ip(commands: str, namespace: str | None = None) -> None:
    where = ["-n", namespace] if namespace else []
    command = ("ip", *where, "-batch", "-")
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    _, errors = await process.communicate(commands.encode())
    if process.returncode:
        raise SandboxError(f"ip: {errors.decode().strip()}")
