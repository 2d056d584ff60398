"""Client secrets: made once, kept as argon2id hashes, checked away from the event loop, guessed at slowly."""

from __future__ import annotations

import asyncio
import hmac
import math
import os
import secrets
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from cumulet.common import clock
from cumulet.identity.store import Secret

#: 9 MiB and four passes: one of OWASP's equivalents for argon2id (RFC 9106), about 15 ms a check.
_HASHER = PasswordHasher(time_cost=4, memory_cost=9 * 1024, parallelism=1)
#: Checks at once, which bounds the memory that they take.
_AT_ONCE = 2

K = TypeVar("K")
V = TypeVar("V")

_LIFE = timedelta(days=365)
_LONGEST = 512

#: Wrong secrets that a client may show at once, and seconds until it may show one more.
_TRIES = 10
_REFILL = 3.0
_REMEMBERED = 10_000


def new_text() -> str:
    """A new secret: 40 characters with 240 random bits, of which the first three are the hint."""
    return secrets.token_urlsafe(30)


async def new_secret(
    application_id: str,
    text: str,
    *,
    principal_id: str | None = None,
    display_name: str | None = None,
    starts: datetime | None = None,
    ends: datetime | None = None,
) -> Secret:
    """The record of a secret; by default it is good for a year from now."""
    starts = starts or clock.now()
    return Secret(
        key_id=str(uuid.uuid4()),
        application_id=application_id,
        display_name=display_name,
        hint=text[:3],
        hash=await asyncio.to_thread(_HASHER.hash, text),
        starts=clock.rfc3339(starts),
        ends=clock.rfc3339(ends or starts + _LIFE),
        principal_id=principal_id,
    )


class TooManyFailuresError(Exception):
    """A client showed too many wrong secrets; `retry_after` is in seconds."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many failed attempts: try again in {retry_after} seconds.")
        self.retry_after = retry_after


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

    async def find(self, client: str, known: Sequence[Secret], text: str) -> Secret | None:
        """The one of a client's secrets that `text` is. Raises `TooManyFailuresError`."""
        digest = hmac.digest(self._key, f"{client}\n{text}".encode(), "sha256")
        key_id = self._right.get(digest)
        for secret in known:
            if secret.key_id == key_id:
                return secret
        self._take(client)
        for secret in known:
            # The hint spares a hash for secrets that cannot be meant; it is no secret itself.
            if secret.hint == text[:3] and len(text) <= _LONGEST and await self._matches(secret.hash, text):
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
