"""Secrets of clients: made once, kept as argon2id hashes, checked away from the event loop, guessed at slowly."""

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

#: 9 MiB and four passes: one of OWASP's equivalents for argon2id (RFC 9106), about 15 ms a check.
_HASHER = PasswordHasher(time_cost=4, memory_cost=9 * 1024, parallelism=1)
#: Checks at once, which bounds the memory that they take.
_AT_ONCE = 2

K = TypeVar("K")
V = TypeVar("V")

_LONGEST = 512

#: Wrong secrets that a client may show at once, and seconds until it may show one more.
_TRIES = 10
_REFILL = 3.0
_REMEMBERED = 10_000


def new_text() -> str:
    """A new secret: 40 characters with 240 random bits, of which the first three are the hint."""
    return secrets.token_urlsafe(30)


async def hash_of(text: str) -> str:
    """What is kept of a secret."""
    return await asyncio.to_thread(_HASHER.hash, text)


class TooManyFailuresError(Exception):
    """A client showed too many wrong secrets; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts: try again in {retry_after} seconds.")
        self.retry_after = retry_after


class Known(Protocol):
    """A secret that a client may show; the hint is its first three characters."""

    @property
    def key_id(self) -> str: ...

    @property
    def hint(self) -> str: ...

    @property
    def hash(self) -> str: ...


S = TypeVar("S", bound=Known)


class Guard:
    """Finds the secret that a text is, at the pace of a bucket of tries that each wrong one empties and time refills.

    A text that was right is known again by a keyed digest, which only this process's memory has: it costs no hash and
    passes while others guess, so that nobody is locked out by them. `now` is a monotonic clock in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, str] = OrderedDict()
        self._tries: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def find(
        self,
        client: str,
        known: Sequence[S],
        text: str,
        matches: Callable[[str, str], Awaitable[bool]] | None = None,
    ) -> S | None:
        """The one of a client's secrets that `text` is. Raises `TooManyFailuresError`.

        `matches` compares what is kept with a text where that is not an argon2id hash.
        """
        digest = hmac.digest(self._key, f"{client}\n{text}".encode(), "sha256")
        key_id = self._right.get(digest)
        for secret in known:
            if secret.key_id == key_id:
                return secret
        self._take(client)
        for secret in known:
            # The hint spares a hash for secrets that cannot be meant; it is no secret itself.
            if (
                secret.hint == text[:3]
                and len(text) <= _LONGEST
                and await (matches or self._matches)(secret.hash, text)
            ):
                self._tries.pop(client, None)
                _remember(self._right, digest, secret.key_id)
                return secret
        return None

    async def _matches(self, hashed: str, text: str) -> bool:
        async with self._slots:
            return await asyncio.to_thread(_matches, hashed, text)

    def _take(self, client: str) -> None:
        now = self._now()
        left, since = self._tries.get(client, (float(_TRIES), now))
        left = min(float(_TRIES), left + (now - since) / _REFILL)
        if left < 1:
            raise TooManyFailuresError(math.ceil((1 - left) * _REFILL))
        _remember(self._tries, client, (left - 1, now))


def _remember(kept: OrderedDict[K, V], key: K, value: V) -> None:
    """Keep the latest, and not without end."""
    kept.pop(key, None)
    kept[key] = value
    while len(kept) > _REMEMBERED:
        kept.popitem(last=False)


def _matches(hashed: str, text: str) -> bool:
    """In a time that does not depend on how much of the text is right."""
    try:
        return _HASHER.verify(hashed, text)
    except (VerifyMismatchError, InvalidHashError):
        return False
