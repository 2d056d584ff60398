"""A group's network: a namespace with one address, linked to the installation's router and shared by the group's containers."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import random
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from cumulet.common import conntrack, router
from cumulet.common.config import Config
from cumulet.common.namespaces import NAMESPACES
from cumulet.common.nftables import NftablesError
from cumulet.instances.sandbox import links, names
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.firewall import Door, Firewall, Member


class Network:
    """The addresses of groups, their links, and the rules between them. A released address is reused as late as possible."""

    def __init__(self, config: Config, taken: set[str]) -> None:
        self._config = config
        #: The address of the router, where the name server is.
        self.gateway = str(router.gateway(config))
        self._router = router.namespace_name(config)
        self._range = ipaddress.IPv4Network(config.pod_cidr)
        self._taken = {ipaddress.IPv4Address(address) for address in taken}
        self._taken |= {router.gateway(config), router.machine_address(config)}
        # An earlier process may have released any address just now.
        self._next = random.randrange(self._range.num_addresses)
        self._firewall = Firewall(config)

    async def open(self, members: Iterable[Member]) -> None:
        """Make the router if it is missing, and load the rules for existing groups. Raises `SandboxError`."""
        with _errors("the router"):
            await asyncio.to_thread(router.ensure, self._config)
            await self._firewall.open(member for member in members if member.address in self._range)

    def close(self) -> None:
        """Stop watching the rules because this process ends; the network stays."""
        self._firewall.close()

    def allocate(self) -> str:
        """Return an address for a group. Raises `SandboxError` when none is left."""
        hosts = self._range.num_addresses - 2
        for _ in range(hosts):
            self._next = self._next % hosts + 1
            address = self._range.network_address + self._next
            if address not in self._taken:
                self._taken.add(address)
                return str(address)
        raise SandboxError(f"no address is left in {self._range}")

    def release(self, address: str) -> None:
        """Allow an address to be reused: its group is destroyed, and so are the group's rules."""
        if address:
            self._taken.discard(ipaddress.IPv4Address(address))

    def path(self, uid: str) -> Path:
        """Return the file that names a group's namespace."""
        return NAMESPACES / names.group_namespace(self._config, uid)

    def is_there(self, uid: str) -> bool:
        """Return whether a group has a namespace."""
        return self.path(uid).exists()

    async def create(
        self,
        uid: str,
        member: Member,
        owned: AbstractAsyncContextManager[int] | None = None,
    ) -> Path:
        """Create a group's namespace with its address, or keep an existing one; return the file that names it.

        `owned` yields the id of a process in a new network namespace of a user namespace, which becomes the group's.
        Raises `SandboxError`.
        """
        own = member.address
        if own not in self._range:
            raise SandboxError(f"{own} is not in the range of the pods, {self._range}")
        path, port = self.path(uid), names.port_name(self._config, own)
        with _errors("the group's network"):
            if path.exists():
                await self._firewall.add(member)
                if await asyncio.to_thread(links.is_plugged, self._router, port, path, own):
                    return path
                await self._delete(path.name, own)
            async with contextlib.AsyncExitStack() as stack:
                # The namespace is made while the rules are loaded. The link is plugged in after both.
                _, pid = await to_completion(
                    self._firewall.add(member), stack.enter_async_context(owned or _nothing())
                )
                await asyncio.to_thread(self._make, path.name, port, own, int(str(pid)))
        return path

    def _make(self, name: str, port: str, own: ipaddress.IPv4Address, pid: int) -> None:
        path = links.make_namespace(name, pid)
        links.plug(self._router, router.BRIDGE, port, path, own)
        links.configure(path, own, router.gateway(self._config))

    async def admit(self, address: str, doors: Iterable[Door]) -> None:
        """Let a group connect to doors of the router besides those for every group. Raises `SandboxError`."""
        with _errors("the group's network"):
            await self._firewall.admit(ipaddress.IPv4Address(address), doors)

    async def destroy(self, uid: str, address: str) -> None:
        """Remove a group's namespace, its link, its connections, and then its rules. Raises `SandboxError`."""
        if address:
            own = ipaddress.IPv4Address(address)
            with _errors("the group's network"):
                await self._delete(self.path(uid).name, own)
                await self._firewall.remove(own)

    async def _delete(self, name: str, address: ipaddress.IPv4Address) -> None:
        def delete() -> None:
            # The kernel removes the content of a namespace some time after its name is gone.
            links.unplug(self._router, router.BRIDGE, names.port_name(self._config, address), address)
            if links.delete_namespace(name):
                with contextlib.suppress(FileNotFoundError):  # there is no router
                    conntrack.forget(self._router, address)

        await to_completion(asyncio.to_thread(delete))


@contextlib.contextmanager
def _errors(what: str) -> Iterator[None]:
    try:
        yield
    except (NftablesError, router.RouterError) as error:
        raise SandboxError(str(error)) from None
    except OSError as error:
        raise SandboxError(f"{what}: {error.strerror or error}") from None


@contextlib.asynccontextmanager
async def _nothing() -> AsyncIterator[int]:
    """Stand in for the process of a user namespace, where groups have none."""
    yield 0
