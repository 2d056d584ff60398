"""The pods that wait for a node: active, in back-off, or unschedulable.

Follows upstream's `backend/queue`: the highest priority first, then the oldest. A pod that no node could take waits for an
event that could help it. A pod whose binding failed waits for its back-off. A pod that an event helped during its back-off
is taken when the queue has no active pods.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator

from cumulet.scheduler.requests import PodInfo

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 10.0
#: A pod returns to the queue after this many seconds in any case.
_FLUSH = 300.0


class Entry:
    """A waiting pod."""

    __slots__ = ("arrived", "attempts", "info", "number", "place", "plugins", "ready_at")

    def __init__(self, info: PodInfo, arrived: float) -> None:
        self.info = info
        self.arrived = arrived
        self.attempts = 0
        #: The plug-ins that refused it.
        self.plugins: frozenset[str] = frozenset()
        #: `active`, `backoff` (helped, or failed), `waiting`, `gated`, or `out` during its decision.
        self.place = "out"
        self.ready_at = 0.0
        #: The number of its current item in a heap. Items with an older number are void.
        self.number = 0


class SchedulingQueue:
    """The queue of pods to schedule. All methods belong to one event loop."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._waiting: dict[str, Entry] = {}
        self._active: list[tuple[int, float, int, Entry]] = []
        self._backoff: list[tuple[float, int, Entry]] = []
        self._numbers = itertools.count(1)
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def add(self, info: PodInfo) -> None:
        """Add a pod that is new or whose object changed."""
        entry = self._entries.get(info.uid)
        if entry is None:
            entry = self._entries[info.uid] = Entry(info, _now())
        before, entry.info = entry.info, info
        if info.spec.get("schedulingGates"):
            entry.place = "gated"
        elif entry.place in ("out", "active", "backoff"):
            if entry.place == "out" and not entry.attempts:
                self._activate(entry)
        elif entry.place == "gated" or before.group != info.group or before.sign() != info.sign():
            self._activate(entry)

    def discard(self, uid: str) -> None:
        """Remove a pod that was bound, has ended or is gone."""
        entry = self._entries.pop(uid, None)
        if entry is not None:
            self._waiting.pop(uid, None)
            entry.place, entry.number = "out", 0

    def reject(self, entry: Entry, plugins: Iterable[str]) -> None:
        """Keep a pod that no node could take until an event helps it."""
        if entry.info.uid not in self._entries:
            return
        entry.plugins = frozenset(plugins)
        entry.place = "waiting"
        self._waiting[entry.info.uid] = entry
        entry.ready_at = _now() + self._wait(entry)

    def fail(self, entry: Entry) -> None:
        """Return a pod that could not be bound after its back-off."""
        if entry.info.uid not in self._entries:
            return
        entry.ready_at = _now() + self._wait(entry)
        entry.plugins = frozenset()
        self._hold(entry)

    def help(self, could: Callable[[Entry], bool]) -> None:
        """Return the pods that an event could help to the queue."""
        now = _now()
        for entry in list(self._waiting.values()):
            if could(entry):
                if entry.ready_at <= now:
                    self._activate(entry)
                else:
                    self._hold(entry)

    def flush(self) -> None:
        """Return all pods to the queue that have waited for `_FLUSH` seconds."""
        limit = _now() - _FLUSH
        for entry in list(self._waiting.values()):
            if entry.ready_at < limit:
                self._activate(entry)

    async def pop(self) -> Entry:
        """Wait for the next pod to decide on. It remains in the queue until `discard`."""
        while True:
            entry = self._next()
            if entry is not None:
                entry.place, entry.number = "out", 0
                entry.attempts += 1
                return entry
            self._wake.clear()
            first = self._backoff[0][0] - _now() if self._backoff else None
            try:
                async with asyncio.timeout(first):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _next(self) -> Entry | None:
        now = _now()
        while self._backoff and (self._backoff[0][0] <= now or self._is_void(self._backoff[0][1:])):
            _, number, entry = heapq.heappop(self._backoff)
            if entry.number == number:
                self._activate(entry)
        while self._active:
            *_, number, entry = heapq.heappop(self._active)
            if entry.number == number:
                return entry
        # Without active pods, one that an event helped need not wait for the end of its back-off.
        helped = [item for item in self._backoff if item[2].number == item[1] and item[2].plugins]
        return min(helped, key=lambda item: (-item[2].info.priority, item[2].arrived))[2] if helped else None

    @staticmethod
    def _is_void(item: tuple[int, Entry]) -> bool:
        return item[1].number != item[0]

    def _activate(self, entry: Entry) -> None:
        self._waiting.pop(entry.info.uid, None)
        entry.place, entry.number = "active", next(self._numbers)
        heapq.heappush(self._active, (-entry.info.priority, entry.arrived, entry.number, entry))
        self._wake.set()

    def _hold(self, entry: Entry) -> None:
        self._waiting.pop(entry.info.uid, None)
        entry.place, entry.number = "backoff", next(self._numbers)
        heapq.heappush(self._backoff, (entry.ready_at, entry.number, entry))
        self._wake.set()

    @staticmethod
    def _wait(entry: Entry) -> float:
        return min(_FIRST_WAIT * 2.0 ** min(entry.attempts - 1, 10), _LONGEST_WAIT)


def _now() -> float:
    return asyncio.get_running_loop().time()
