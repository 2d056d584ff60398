"""Client secrets: made once, kept as argon2id hashes, checked away from the event loop, guessed at slowly."""

from __future__ import annotations

import asyncio
import secrets
import time
import uuid
from collections import OrderedDict
from datetime import datetime, timedelta

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from cumulet.common import clock
from cumulet.identity.store import Secret

#: A secret has 256 random bits, so the hash needs not be slow against guessing; this much keeps a copied file useless
#: and a check at about 5 ms (RFC 9106 gives the parameters' meaning).
_HASHER = PasswordHasher(time_cost=2, memory_cost=8 * 1024, parallelism=1)

_LIFE = timedelta(days=365)
_FREE_FAILURES = 10
_FORGET = 60.0
_REMEMBERED = 10_000


def new_text() -> str:
    """A new secret: 40 characters, of which the first three are the hint."""
    return secrets.token_urlsafe(30)


async def new_secret(
    application_id: str,
    text: str,
    *,
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
    )


async def matches(secret: Secret, text: str) -> bool:
    """Whether `text` is the secret, in a time that does not depend on how much of it is right."""
    return await asyncio.to_thread(_matches, secret.hash, text)


def _matches(hashed: str, text: str) -> bool:
    try:
        return _HASHER.verify(hashed, text)
    except (VerifyMismatchError, InvalidHashError):
        return False


class Throttle:
    """After ten wrong secrets in a minute a client is asked to wait, whatever it then shows."""

    def __init__(self) -> None:
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def retry_after(self, client: str) -> int:
        """Seconds to wait, or 0."""
        count, since = self._failures.get(client, (0, 0.0))
        left = since + _FORGET - time.monotonic()
        return int(left) + 1 if count >= _FREE_FAILURES and left > 0 else 0

    def failed(self, client: str) -> None:
        """Note a wrong secret."""
        count, since = self._failures.pop(client, (0, 0.0))
        if since + _FORGET < time.monotonic():
            count, since = 0, time.monotonic()
        self._failures[client] = count + 1, since
        while len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, client: str) -> None:
        """Forget its failures."""
        self._failures.pop(client, None)
