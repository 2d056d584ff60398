"""Delivering the events of webhooks: at least once, in the background, with retries after growing delays.

An event is stored before the request that caused it is answered, and its delivery continues after a restart. A delivery is a
POST of JSON, signed as in W3C WebSub (`X-Hub-Signature-256: sha256=<HMAC of the body>`). A 2xx response accepts it, and any
other result is retried.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import sqlite3
import time
from collections.abc import Callable

import aiohttp
import msgspec

from cumulet.common import bounded
from cumulet.common.database import Database
from cumulet.common.tasks import TaskSet, wait_for
from cumulet.registry.webhooks.messages import Event, EventContent, RequestMessage, ResponseMessage

log = logging.getLogger(__name__)

SIGNATURE = "X-Hub-Signature-256"

#: Seconds before each retry. After the last one the event is dropped.
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


#: Returns the target of a webhook, by the registry's key and the webhook's name, or `None` where it is deleted or disabled.
Find = Callable[[str, str], Target | None]


class Deliveries:
    """The queue of events, and the task that delivers them."""

    def __init__(self, database: Database, session: aiohttp.ClientSession, find: Find) -> None:
        self._database = database
        self._session = session
        self._find = find
        self._wake = asyncio.Event()
        self._active: set[str] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def add(self, registry: str, webhook: str, content: EventContent) -> None:
        """Store an event for delivery, and delete delivered events of the webhook beyond the last hundred."""

        def job(connection: sqlite3.Connection) -> None:
            here = (registry, webhook)
            connection.execute(
                "INSERT INTO webhook_event (id, registry, webhook, sequence, content, due) SELECT ?1, ?2, ?3,"
                " ifnull(max(sequence), 0) + 1, ?4, ?5 FROM webhook_event WHERE registry = ?2 AND webhook = ?3",
                (content.id, *here, body, now),
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
        """The last hundred events of a webhook, the newest first."""
        rows = self._database.read(
            "SELECT id, request, response FROM webhook_event WHERE registry = ? AND webhook = ?"
            " ORDER BY sequence DESC LIMIT ?",
            (registry, webhook, _KEPT),
        )
        return [
            Event(
                id_,
                msgspec.json.decode(request or b"null", type=RequestMessage | None),
                msgspec.json.decode(response or b"null", type=ResponseMessage | None),
            )
            for id_, request, response in rows
        ]

    async def forget(self, registry: str, webhook: str) -> None:
        """Delete the events of a webhook."""
        await self._database.execute(
            "DELETE FROM webhook_event WHERE registry = ? AND webhook = ?", (registry, webhook)
        )

    async def run(self, tasks: TaskSet) -> None:
        """Deliver the events that are due, until cancelled."""
        while True:
            self._wake.clear()
            soonest = _FAR
            for id_, registry, webhook, content, attempts, due in self._database.read(
                "SELECT id, registry, webhook, content, attempts, due FROM webhook_event WHERE due IS NOT NULL"
                " ORDER BY due LIMIT 100"
            ):
                if id_ in self._active:
                    continue
                if (delay := due - time.time()) > 0:
                    soonest = min(soonest, delay)
                    continue
                self._active.add(id_)
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
            due = None if response.is_success or attempts >= len(_DELAYS) else time.time() + _DELAYS[attempts]
            if not response.is_success:
                extra = {
                    "webhook": webhook,
                    "registry": registry,
                    "status": response.status_code,
                    "attempt": attempts,
                }
                log.warning("an event was not delivered%s", "" if due else " and is dropped", extra=extra)
            # Custom headers may be secrets: they are sent and not stored.
            stored = {name: value for name, value in headers.items() if name not in target.headers}
            request = RequestMessage(msgspec.Raw(content), stored)
            await self._end(id_, request, response, attempts + 1, due)
        finally:
            self._active.discard(id_)
            self._wake.set()

    async def _send(self, url: str, content: bytes, headers: dict[str, str]) -> ResponseMessage:
        """Send a delivery and return the response, or the reason why there is none."""
        try:
            async with self._session.post(
                url, data=content, headers=headers, allow_redirects=False, timeout=_TIMEOUT
            ) as response:
                text = (await bounded.beginning(response, _RESPONSE_LIMIT)).decode(errors="replace")
                return ResponseMessage(text, dict(response.headers), response.reason, str(response.status))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            return ResponseMessage("", {}, _reason(error)[:300], "0")

    async def _end(
        self,
        id_: str,
        request: RequestMessage | None,
        response: ResponseMessage | None,
        attempts: int,
        due: float | None,
    ) -> None:
        await self._database.execute(
            "UPDATE webhook_event SET request = ?, response = ?, attempts = ?, due = ? WHERE id = ?",
            (msgspec.json.encode(request), msgspec.json.encode(response), attempts, due, id_),
        )


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot connect to {error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
    return str(error) or type(error).__name__
