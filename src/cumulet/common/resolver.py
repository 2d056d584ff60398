"""Name resolution for our clients: login servers are where the registry room is, the rest as the machine says."""

from __future__ import annotations

import asyncio
import socket

from aiohttp.abc import AbstractResolver, ResolveResult

from cumulet.common.config import Config


class LoginServerResolver(AbstractResolver):
    """Answers for `*.azurecr.io` with the registry room's address and port; the name stays for TLS and Host."""

    def __init__(self, config: Config) -> None:
        self._suffix = f".{config.registry_suffix}"
        self._registry = config.addresses["registry"]

    def is_login_server(self, host: str) -> bool:
        """Whether a host, perhaps with a port, is answered for with the registry room's address."""
        return host.partition(":")[0].endswith(self._suffix)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. Raises `OSError`."""
        target = host
        if self.is_login_server(host):
            # Login servers are written without a port; here the room's own stands for 443.
            target, port = self._registry.host, self._registry.port
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
        return [
            ResolveResult(hostname=host, host=str(address[0]), port=port, family=socket.AF_INET, proto=0, flags=0)
            for *_, address in found[:1]
        ]

    async def close(self) -> None:
        """Nothing is held."""
