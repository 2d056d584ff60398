"""Name resolution for clients of registries: login servers resolve to the registry room, other names as usual."""

from __future__ import annotations

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from cumulet.common.config import Config


class LoginServerResolver(AbstractResolver):
    """Resolves `*.azurecr.io` to the registry room's address and port. TLS and `Host` keep the name."""

    def __init__(self, config: Config) -> None:
        self._suffix = f".{config.registry_suffix}"
        self._registry = config.addresses["registry"]

    def is_login_server(self, host: str) -> bool:
        """Return whether a host, with or without a port, is a login server."""
        return host.partition(":")[0].endswith(self._suffix)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Return the addresses of a host. Raises `OSError`."""
        target = host
        if self.is_login_server(host):
            # Login servers have no port in image references; the room's port replaces 443.
            target, port = self._registry.host, self._registry.port
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=socket.AF_INET, proto=0, flags=0)
            for *_, address in found[:1]
        ]

    async def close(self) -> None:
        """Do nothing: the resolver has no resources."""
