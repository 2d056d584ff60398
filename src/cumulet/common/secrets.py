"""Client secrets: generated, stored as argon2id hashes, and verified in threads at a limited rate."""

from __future__ import annotations

import asyncio
import hmac
import math
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

#: 9 MiB and four passes: one of OWASP's recommendations for argon2id (RFC 9106), about 15 ms for each verification.
_HASHER = PasswordHasher(time_cost=4, memory_cost=9 * 1024, parallelism=1)
#: Concurrent verifications, which limits their memory.
_AT_ONCE = 2

K = TypeVar("K")
V = TypeVar("V")

_LONGEST = 512

#: The failed attempts that a client has, and the seconds until it gets one more.
_TRIES = 10
_REFILL = 3.0
_CACHE_ENTRIES = 10_000


def new_text() -> str:
    """Return a new secret: 40 characters with 240 random bits. The first three characters are the hint."""
    return secrets.token_urlsafe(30)


async def hash_of(text: str) -> str:
    """Return the hash of a secret, which is stored in its place."""
    return await asyncio.to_thread(_HASHER.hash, text)


class TooManyFailuresError(Exception):
    """A client sent too many wrong secrets; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts: try again in {retry_after} seconds.")
        self.retry_after = retry_after


class Known(Protocol):
    """The record of a client's secret; the hint is its first three characters."""

    @property
    def key_id(self) -> str: ...

    @property
    def hint(self) -> str: ...

    @property
    def hash(self) -> str: ...


S = TypeVar("S", bound=Known)


class Guard:
    """Verifies secrets, with a token bucket of failed attempts for each client.

    A keyed digest in this process's memory identifies a text that was right before. It needs no hash and no token, so guesses
    of an attacker do not lock out the client. `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._key = os.urandom(32)
        self._verified: OrderedDict[bytes, str] = OrderedDict()
        self._attempts: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def find(
        self,
        client: str,
        known: Sequence[S],
        text: str,
        matches: Callable[[str, str], Awaitable[bool]] | None = None,
    ) -> S | None:
        """Return the secret of `known` that `text` is, or `None`. Raises `TooManyFailuresError`.

        `matches` compares a stored hash with a text, if the hash is not argon2id.
        """
        digest = hmac.digest(self._key, f"{client}\n{text}".encode(), "sha256")
        key_id = self._verified.get(digest)
        for secret in known:
            if secret.key_id == key_id:
                return secret
        self._take(client)
        for secret in known:
            # The hint, which is not secret, saves the hash for all other secrets.
            if (
                secret.hint == text[:3]
                and len(text) <= _LONGEST
                and await (matches or self._matches)(secret.hash, text)
            ):
                self._attempts.pop(client, None)
                _store(self._verified, digest, secret.key_id)
                return secret
        return None

    async def _matches(self, hashed: str, text: str) -> bool:
        async with self._slots:
            return await asyncio.to_thread(_matches, hashed, text)

    def _take(self, client: str) -> None:
        now = self._now()
        left, since = self._attempts.get(client, (float(_TRIES), now))
        left = min(float(_TRIES), left + (now - since) / _REFILL)
        if left < 1:
            raise TooManyFailuresError(math.ceil((1 - left) * _REFILL))
        _store(self._attempts, client, (left - 1, now))


def _store(cache: OrderedDict[K, V], key: K, value: V) -> None:
    """Store a value as the latest, and remove the oldest ones above the limit."""
    cache.pop(key, None)
    cache[key] = value
    while len(cache) > _CACHE_ENTRIES:
        cache.popitem(last=False)


def _matches(hashed: str, text: str) -> bool:
    """Compare in a time that does not depend on the text."""
    try:
        return _HASHER.verify(hashed, text)
    except (VerifyMismatchError, InvalidHashError):
        return False
