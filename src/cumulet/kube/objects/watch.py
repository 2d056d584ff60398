"""Watches: the current state, then changes from a channel.

Source: Kubernetes API concepts, "Efficient detection of changes". Equal watches share a channel. A client whose watch
was cut off watches again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Iterator

import msgspec
from aiohttp import HttpVersion11, web

from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import PROTOBUF, encode_event
from cumulet.kube.flow import SEAT
from cumulet.kube.http.negotiation import Form
from cumulet.kube.objects.selectors import Selection
from cumulet.kube.objects.watch_broadcast import Channel, Feed, Seen, Watcher
from cumulet.kube.store import Store

_BOOKMARK = 60.0
#: The bytes of one write of a watch's initial state.
_PART = 256 * 1024


class Watches:
    """Answers watches with `serve`."""

    def __init__(self, store: Store, stopping: asyncio.Event, conversions: Conversions) -> None:
        self._store = store
        self._conversions = conversions
        self._stopping = stopping
        self._feed = Feed()
        self._channels: dict[tuple[object, ...], Channel] = {}

    async def serve(
        self,
        request: web.BaseRequest,
        row: Row,
        selection: Selection,
        form: Form,
        *,
        since: int | None,
        seconds: float,
        bookmarks: bool,
        initial: bool,
    ) -> web.StreamResponse:
        """Send changes for `seconds`: after the revision `since`, or with `None` after the current state.

        `initial` marks the end of the current state with a bookmark. Raises `GoneError`, and `ApiError` 500 where the
        state cannot be converted to the requested version.
        """
        with self._channel(row, selection, form) as channel:
            return await self._serve(
                request, channel, selection, since=since, seconds=seconds, bookmarks=bookmarks, initial=initial
            )

    async def _serve(
        self,
        request: web.BaseRequest,
        channel: Channel,
        selection: Selection,
        *,
        since: int | None,
        seconds: float,
        bookmarks: bool,
        initial: bool,
    ) -> web.StreamResponse:
        row, form = channel.row, channel.form
        await channel.settled()
        first = self._there(row, selection) if since is None else channel.seen(self._store.missed(row.key, since))
        protocol = request.protocol
        assert protocol.transport is not None
        watcher = Watcher(protocol, framed=request.version >= HttpVersion11)
        media = f"{PROTOBUF};stream=watch" if form.media == PROTOBUF else "application/json"
        response = web.StreamResponse(headers={"Content-Type": media})
        last = (_bookmark(row, self._store.revision, form, initial=True),) if initial and bookmarks else ()
        if row.custom is not None:
            first = tuple(first)
        deadline = asyncio.get_running_loop().time() + seconds
        channel.add(watcher)
        try:
            if row.custom is not None:
                first = await channel.converted([*first])
            start = itertools.chain(channel.lines(first), last if since is None else ())
            await response.prepare(request)
            for part in _parts(start):
                watcher.write(part)
                if protocol.writing_paused and not await _drained(request, deadline):
                    watcher.is_cut_off = True
                if watcher.is_cut_off:
                    break
            # From here on the watch waits for changes, and frees its seat of priority and fairness.
            SEAT.get().release()
            if not watcher.is_cut_off:
                watcher.is_waiting = False
                self._feed.wake(channel)
                await self._last(watcher, channel, request, deadline, bookmarks)
            if watcher.is_cut_off and protocol.transport is not None:
                protocol.transport.abort()  # the client would not read the end either
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
        except ConnectionError:
            pass  # the client closed the connection
        finally:
            channel.remove(watcher)
        return response

    @contextlib.contextmanager
    def _channel(self, row: Row, selection: Selection, form: Form) -> Iterator[Channel]:
        """Return the channel of equal watches; it follows the store as long as it has a user."""
        key = (id(row), selection.key, form)
        channel = self._channels.get(key)
        if channel is None or channel.failure is not None:
            channel = self._channels[key] = Channel(row, selection, form, self._feed, self._conversions)
            self._store.watch(row.key, self._store.revision, channel.push)
        channel.users += 1
        try:
            yield channel
        finally:
            channel.users -= 1
            if not channel.users:
                self._store.unwatch(row.key, channel.push)
                if self._channels.get(key) is channel:
                    del self._channels[key]

    def _there(self, row: Row, selection: Selection) -> Iterable[Seen]:
        """Return the current state."""
        there = [stored for stored in self._store.list(row.key, selection.namespace) if selection.has(stored)]
        return ((b"ADDED", stored) for stored in there)

    async def _last(
        self, watcher: Watcher, channel: Channel, request: web.BaseRequest, deadline: float, bookmarks: bool
    ) -> None:
        """Wait until the time is over, the server stops, the channel fails or the watcher is cut off."""
        loop = asyncio.get_running_loop()
        stopping = asyncio.ensure_future(self._stopping.wait())
        stopping.add_done_callback(lambda _: watcher.wake.set())
        try:
            while not self._stopping.is_set() and not watcher.is_cut_off and not watcher.is_over:
                left = deadline - loop.time()
                if left <= 0:
                    break
                try:
                    async with asyncio.timeout(min(left, _BOOKMARK)):
                        await watcher.wake.wait()
                except TimeoutError:
                    if bookmarks and left > _BOOKMARK and channel.is_up_to_date(watcher):
                        watcher.write(_bookmark(channel.row, self._store.revision, channel.form))
                    continue
                watcher.wake.clear()
                if watcher.is_waiting and not watcher.is_cut_off:
                    if not await _drained(request, deadline):
                        watcher.is_cut_off = True
                        break
                    watcher.is_waiting = False
                    self._feed.wake(channel)
        finally:
            stopping.cancel()


async def _drained(request: web.BaseRequest, deadline: float) -> bool:
    """Wait until the client has read everything; return whether it did in time. Raises `ConnectionError`."""
    SEAT.get().release()  # waiting for the client takes no time of the server
    try:
        async with asyncio.timeout_at(deadline):
            await request.writer.drain()
    except TimeoutError:
        return False
    return True


def _parts(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Join lines to parts of a good size for one write."""
    part: list[bytes] = []
    size = 0
    for line in lines:
        part.append(line)
        size += len(line)
        if size >= _PART:
            yield b"".join(part)
            part, size = [], 0
    if part:
        yield b"".join(part)


def _bookmark(row: Row, revision: int, form: Form, *, initial: bool = False) -> bytes:
    metadata: dict[str, object] = {"resourceVersion": str(revision), "creationTimestamp": None}
    if initial:
        metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
    obj = {"kind": row.kind, "apiVersion": row.api_version, "metadata": metadata}
    if form.media == PROTOBUF:
        return encode_event("BOOKMARK", obj)
    return msgspec.json.encode({"type": "BOOKMARK", "object": obj}) + b"\n"
