"""Tokens of managed identities, which are kept until shortly before they expire, as the platform does in Azure."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from cumulet.instances.groups.identities import Identities, Token

#: Seconds before its end at which a token is replaced.
_EARLY = 300
_MOST = 10_000


class ManagedTokens:
    """The tokens by identity and resource. `now` is in seconds since 1970."""

    def __init__(self, identities: Identities, now: Callable[[], float] = time.time) -> None:
        self._identities = identities
        self._now = now
        self._tokens: OrderedDict[tuple[str, str], Token] = OrderedDict()
        self._locks: dict[tuple[str, str], asyncio.Lock] = {}

    async def token(self, client_id: str, resource: str) -> Token:
        """Return a token of an identity for a resource. Raises `IdentityError`, `aiohttp.ClientError`.

        Concurrent requests for the same one wait for one answer.
        """
        key = client_id, resource
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                found = self._tokens.get(key)
                if found is None or found.expires_on - _EARLY <= self._now():
                    found = await self._identities.token(client_id, resource)
                    self._tokens[key] = found
                self._tokens.move_to_end(key)
                while len(self._tokens) > _MOST:
                    self._tokens.popitem(last=False)
                return found
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    def forget(self, client_id: str) -> None:
        """Forget the tokens of an identity, which may be gone."""
        for key in [key for key in self._tokens if key[0] == client_id]:
            del self._tokens[key]
