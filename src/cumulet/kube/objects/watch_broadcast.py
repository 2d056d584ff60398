"""Sends changes to equal watches: each change is encoded once and written to the watchers in short turns.

A channel makes one line of a change. A feed goes round the channels' watchers and writes the lines that each has not
got yet. So a storm of watchers delays other requests only briefly, and under load one write carries more changes. A
watcher whose connection is full waits until it drains; one that falls too far behind is cut off.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import msgspec
from aiohttp import web

from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.resources import Row
from cumulet.kube.codec import PROTOBUF, encode_event
from cumulet.kube.http.negotiation import Form, shaped
from cumulet.kube.objects.selectors import Selection
from cumulet.kube.store import Event, Stored

log = logging.getLogger(__name__)

#: The bytes of changes that a channel keeps for its slowest watcher.
_KEPT = 16 * 2**20
#: The seconds of one turn of the feed; then other requests are served.
_TURN = 0.001
# The seconds between the starts of two rounds of a channel: a multiple of the last round's duration, and a limit.
# A write costs about as much as the bytes of two changes. With many watchers some changes therefore wait and go out
# together, and the feed never takes all of the processor.
_PACE = 2.0
_PACE_LIMIT = 0.06
#: A shorter pause is skipped.
_AT_ONCE = 0.0005

#: The type of a change, as in a watch event, and the object.
Seen = tuple[bytes, Stored]


class Watcher:
    """One connection. It is `waiting` while its initial state is being sent, and while its connection is full."""

    __slots__ = ("_framed", "_protocol", "is_cut_off", "is_over", "is_waiting", "position", "wake")

    def __init__(self, protocol: web.RequestHandler, *, framed: bool) -> None:
        self._protocol = protocol
        self._framed = framed
        self.position = 0
        self.is_waiting = True
        self.is_cut_off = False
        self.is_over = False
        self.wake = asyncio.Event()

    def write(self, data: bytes) -> None:
        """Write lines as one chunk."""
        self.take(_chunk((data,)))

    def take(self, chunk: bytes) -> None:
        """Write a chunk that watchers share, and wait if the connection is then full."""
        protocol = self._protocol
        transport = protocol.transport
        if transport is None or transport.is_closing():
            self.is_waiting = self.is_cut_off = True
            self.wake.set()
            return
        transport.write(chunk if self._framed else _content(chunk))
        if protocol.writing_paused:
            self.is_waiting = True
            self.wake.set()


class Channel:
    """The changes that equal watches share: the lines that some watchers lack, and the position of each watcher."""

    def __init__(
        self,
        row: Row,
        selection: Selection,
        form: Form,
        feed: Feed,
        conversions: Conversions,
    ) -> None:
        self.row = row
        #: The number of requests that use the channel.
        self.users = 0
        #: The reason why the channel cannot continue, if it cannot.
        self.failure: ApiError | None = None
        self.watchers: dict[Watcher, None] = {}
        self._selection = selection
        self.form = form
        self._feed = feed
        self._lines: deque[bytes] = deque()
        self._first = 0  # the number of the first line
        self._bytes = 0
        self._round: list[Watcher] = []
        self._began = 0.0  # the start of the last round
        self._took = 0.0  # seconds of processor time in the last round
        self._chunks: dict[int, bytes] = {}  # all lines from a number on
        self._conversions = conversions
        self._unconverted: list[Event] = []
        self._converting: asyncio.Task[None] | None = None

    @property
    def _end(self) -> int:
        return self._first + len(self._lines)

    def add(self, watcher: Watcher) -> None:
        """Send a watcher every line from here on."""
        watcher.position = self._end
        self.watchers[watcher] = None

    def remove(self, watcher: Watcher) -> None:
        """Send a watcher no more lines."""
        self.watchers.pop(watcher, None)

    def is_up_to_date(self, watcher: Watcher) -> bool:
        """Return whether a watcher has every line."""
        return watcher.position == self._end and not watcher.is_waiting and self._converting is None

    def push(self, event: Event) -> None:
        """Take a change from the store."""
        custom = self.row.custom
        if self.failure is not None:
            return
        if custom is not None and (self._converting is not None or not custom.is_form_of(event.stored)):
            self._unconverted.append(event)
            if self._converting is None:
                self._converting = asyncio.create_task(self._convert())
        else:
            self._add(self.lines(self.seen((event,))))

    async def _convert(self) -> None:
        """Convert the waiting changes to the channel's version, in their order."""
        try:
            while self._unconverted:
                events, self._unconverted = self._unconverted, []
                self._add(self.lines(await self.converted([*self.seen(events)])))
        except ApiError as error:
            self._fail(error)
        except Exception:
            log.exception("a watch of %s cannot go on", self.row.key)
            self._fail(ApiError(500, "InternalError", "an internal error occurred", {}))
        self._converting = None

    def _fail(self, error: ApiError) -> None:
        """End every watch with the error, as clients would miss an object that cannot be converted."""
        self.failure = error
        self._unconverted.clear()
        self._add((b'{"type":"ERROR","object":' + msgspec.json.encode(error.status()) + b"}\n",))

    async def settled(self) -> None:
        """Wait until all changes are lines. Raises `ApiError` 500 where the channel failed."""
        while self._converting is not None:
            await asyncio.wait((self._converting,))
        if self.failure is not None:
            raise self.failure

    async def converted(self, seen: Sequence[Seen]) -> Sequence[Seen]:
        """Return the changes in the channel's version. Raises `ApiError` 500."""
        shown = await self._conversions.shown(self.row, [stored for _, stored in seen])
        return [(kind, stored) for (kind, _), stored in zip(seen, shown, strict=True)]

    def _add(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            self._lines.append(line)
            self._bytes += len(line)
            self._chunks.clear()
            self._feed.wake(self)
        while self._bytes > _KEPT and len(self._lines) > 1:
            self._bytes -= len(self._lines.popleft())
            self._first += 1

    def lines(self, seen: Iterable[Seen]) -> Iterator[bytes]:
        """Yield the changes as lines of the response."""
        return (_line(kind, self.row, stored, self.form) for kind, stored in seen)

    def seen(self, events: Iterable[Event]) -> Iterator[Seen]:
        """Yield the changes as the selection sees them: an object may begin or cease to match."""
        selection = self._selection
        for event in events:
            if selection.namespace and event.stored.namespace != selection.namespace:
                continue
            kind = event.type
            if not selection.is_whole:
                before = event.before is not None and selection.has(event.before)
                after = kind != "DELETED" and selection.has(event.stored)
                if not before and not after:
                    continue
                kind = "DELETED" if not after else "MODIFIED" if before else "ADDED"
            yield kind.encode(), event.stored

    def turn(self, until: float) -> bool:
        """Write to watchers until a time (`perf_counter`); return whether each of them has every line or waits."""
        now = time.perf_counter()
        if not self._round:
            self._round = [*self.watchers]
            self._began, self._took = now, 0.0
        self._took -= now
        while self._round:
            self._show(self._round.pop())
            if (now := time.perf_counter()) > until:
                break
        self._took += now
        if self._round:
            return False
        self._trim()
        end = self._end
        return all(watcher.is_waiting or watcher.position == end for watcher in self.watchers)

    def early(self) -> float:
        """Return the seconds until the next turn is due; the turns of one round follow without a pause."""
        return 0.0 if self._round else self._began + min(_PACE_LIMIT, _PACE * self._took) - time.perf_counter()

    def _show(self, watcher: Watcher) -> None:
        position, end = watcher.position, self._end
        if watcher.is_waiting or position == end:
            return
        if position < self._first:
            watcher.is_waiting = watcher.is_cut_off = True
            watcher.wake.set()
            return
        chunk = self._chunks.get(position)
        if chunk is None:
            chunk = self._chunks[position] = _chunk([*self._lines][position - self._first :])
        watcher.position = end
        watcher.take(chunk)
        if self.failure is not None:
            watcher.is_over = True
            watcher.wake.set()

    def _trim(self) -> None:
        """Drop the lines that every watcher has."""
        seen = min((watcher.position for watcher in self.watchers), default=self._end)
        while self._first < seen and self._lines:
            self._bytes -= len(self._lines.popleft())
            self._first += 1
        self._chunks.clear()


class Feed:
    """Goes round the channels with new lines, one short turn at a time."""

    def __init__(self) -> None:
        self._channels: dict[Channel, None] = {}  # in the order of their turns
        self._paced: set[Channel] = set()  # channels whose next round is not due
        self._runs = False

    def wake(self, channel: Channel) -> None:
        """Schedule a channel that has new lines."""
        if channel in self._paced:
            return
        self._channels[channel] = None
        if not self._runs:
            self._runs = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        until = time.perf_counter() + _TURN
        while self._channels and time.perf_counter() < until:
            channel = next(iter(self._channels))
            del self._channels[channel]
            if self._is_early(channel):
                continue
            if not channel.turn(until):
                self._channels[channel] = None
        self._runs = bool(self._channels)
        if self._runs:
            asyncio.get_running_loop().call_soon(self._turn)

    def _is_early(self, channel: Channel) -> bool:
        """Return whether a channel's next round is not due yet, and schedule it if so."""
        early = channel.early()
        if early < _AT_ONCE:
            return False
        self._paced.add(channel)
        asyncio.get_running_loop().call_later(early, self._due, channel)
        return True

    def _due(self, channel: Channel) -> None:
        self._paced.discard(channel)
        self.wake(channel)


def _chunk(lines: Sequence[bytes]) -> bytes:
    """Return a chunk of HTTP/1.1's chunked transfer coding (RFC 9112, section 7.1)."""
    return b"".join((b"%x\r\n" % sum(map(len, lines)), *lines, b"\r\n"))


def _content(chunk: bytes) -> bytes:
    """Return the content of a chunk, for HTTP/1.0 clients."""
    return chunk[chunk.index(b"\n") + 1 : -2]


def _line(kind: bytes, row: Row, stored: Stored, form: Form) -> bytes:
    body = shaped(row, stored, form)
    if form.media == PROTOBUF:
        return encode_event(kind.decode(), msgspec.json.decode(body))
    return b"".join((b'{"type":"', kind, b'","object":', body, b"}\n"))
