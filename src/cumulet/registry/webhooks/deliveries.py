"""Delivering the events of webhooks: at least once, in the background, tried again with growing delays.

An event is kept before its cause is answered for, and found again after a restart. A delivery is a POST of JSON, signed as
W3C WebSub has it (`X-Hub-Signature-256: sha256=<HMAC of the body>`); any 2xx takes it in, anything else is tried again.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from cumulet.common import bounded
from cumulet.common.database import Database
from cumulet.common.tasks import TaskSet, wait_for

log = logging.getLogger(__name__)


SIGNATURE = "X-Hub-Signature-256"

#: Seconds before each further attempt; after the last one the event is given up.
_DELAYS = (1.0, 5.0, 30.0, 120.0, 600.0)
_KEPT = 100
_AT_ONCE = 8
_TIMEOUT = aiohttp.ClientTimeout(total=10)
_RESPONSE_LIMIT = 4096
_FAR = 3600.0


class Target(msgspec.Struct, frozen=True):
    """Where a webhook's events go, and the key that signs them."""

    url: str
    headers: dict[str, str]
    key: bytes


class Event(msgspec.Struct, frozen=True):
    """An event with what was last sent and answered, in the form of `listEvents`."""

    id: str
    request: dict[str, Any] | None
    response: dict[str, Any] | None


#: The target of a webhook, by the keys of registry and webhook; `None` where it has gone or was disabled.
Find = Callable[[str, str], Target | None]


class Deliveries:
    """The queue, and the task that empties it."""

    def __init__(self, database: Database, session: aiohttp.ClientSession, find: Find) -> None:
        self._database = database
        self._session = session
        self._find = find
        self._wake = asyncio.Event()
        self._under_way: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def add(self, registry: str, webhook: str, content: dict[str, Any]) -> None:
        """Keep an event, to be delivered soon; older ones of the webhook than the last hundred are forgotten."""

        def job(connection: sqlite3.Connection) -> None:
            here = (registry, webhook)
            connection.execute(
                "INSERT INTO webhook_event (id, registry, webhook, sequence, content, due) SELECT ?1, ?2, ?3,"
                " ifnull(max(sequence), 0) + 1, ?4, ?5 FROM webhook_event WHERE registry = ?2 AND webhook = ?3",
                (content["id"], *here, body, now),
            )
            connection.execute(
                "DELETE FROM webhook_event WHERE registry = ?1 AND webhook = ?2 AND due IS NULL AND sequence <="
                " (SELECT max(sequence) - ?3 FROM webhook_event WHERE registry = ?1 AND webhook = ?2)",
                (*here, _KEPT),
            )

        body, now = msgspec.json.encode(content), time.time()
        await self._database.write(job)
        self._wake.set()

    def events(self, registry: str, webhook: str) -> list[Event]:
        """The last events of a webhook, the newest first."""
        rows = self._database.read(
            "SELECT id, request, response FROM webhook_event WHERE registry = ? AND webhook = ?"
            " ORDER BY sequence DESC LIMIT ?",
            (registry, webhook, _KEPT),
        )
        return [
            Event(id_, *(msgspec.json.decode(part) if part is not None else None for part in parts))
            for id_, *parts in rows
        ]

    async def forget(self, registry: str, webhook: str) -> None:
        """A webhook was deleted: so are its events."""
        await self._database.execute(
            "DELETE FROM webhook_event WHERE registry = ? AND webhook = ?", (registry, webhook)
        )

    async def run(self, tasks: TaskSet) -> None:
        """Deliver what is due, for ever."""
        while True:
            self._wake.clear()
            soonest = _FAR
            for id_, registry, webhook, content, attempts, due in self._database.read(
                "SELECT id, registry, webhook, content, attempts, due FROM webhook_event WHERE due IS NOT NULL"
                " ORDER BY due LIMIT 100"
            ):
                if id_ in self._under_way:
                    continue
                if (delay := due - time.time()) > 0:
                    soonest = min(soonest, delay)
                    continue
                self._under_way.add(id_)
                work = self._deliver(id_, registry, webhook, content, attempts)
                tasks.start(work, f"delivery {id_}")
            await wait_for(self._wake, soonest)

    async def _deliver(self, id_: str, registry: str, webhook: str, content: bytes, attempts: int) -> None:
        try:
            async with self._slots:
                target = self._find(registry, webhook)
                if target is None:
                    await self._end(id_, None, None, attempts, None)
                    return
                headers = {
                    "Content-Type": "application/json; charset=utf-8",
                    "User-Agent": "AzureContainerRegistry/1.0",
                    **target.headers,
                    SIGNATURE: f"sha256={hmac.new(target.key, content, 'sha256').hexdigest()}",
                }
                response = await self._send(target.url, content, headers)
            taken = response["statusCode"].startswith("2")
            due = None if taken or attempts >= len(_DELAYS) else time.time() + _DELAYS[attempts]
            if not taken:
                extra = {
                    "webhook": webhook,
                    "registry": registry,
                    "status": response["statusCode"],
                    "attempt": attempts,
                }
                log.warning("an event was not delivered%s", "" if due else ", and is given up", extra=extra)
            # Headers of the user's may be secrets: they are sent, and not kept.
            shown = {name: value for name, value in headers.items() if name not in target.headers}
            request = {"content": msgspec.json.decode(content), "headers": shown, "method": "POST", "version": "1.1"}
            await self._end(id_, request, response, attempts + 1, due)
        finally:
            self._under_way.discard(id_)
            self._wake.set()

    async def _send(self, url: str, content: bytes, headers: dict[str, str]) -> dict[str, Any]:
        """The answer, in the form of `listEvents`; a failure to get one is 0 with its reason."""
        try:
            async with self._session.post(
                url, data=content, headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as response:
                text = (await bounded.beginning(response, _RESPONSE_LIMIT)).decode(errors="replace")
                return {
                    "content": text,
                    "headers": dict(response.headers),
                    "reasonPhrase": response.reason,
                    "statusCode": str(response.status),
                    "version": "1.1",
                }
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = _why(error)
            return {"content": "", "headers": {}, "reasonPhrase": reason[:300], "statusCode": "0", "version": "1.1"}

    async def _end(
        self,
        id_: str,
        request: dict[str, Any] | None,
        response: dict[str, Any] | None,
        attempts: int,
        due: float | None,
    ) -> None:
        await self._database.execute(
            "UPDATE webhook_event SET request = ?, response = ?, attempts = ?, due = ? WHERE id = ?",
            (msgspec.json.encode(request), msgspec.json.encode(response), attempts, due, id_),
        )


def _why(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
