"""The running pushes and the blobs that they depend on, which a garbage collection must keep.

A client checks blob by blob whether the registry has it (HEAD, a mount, the end of an upload). At the end it pushes a
manifest that names all of them. Until then only this module records that the blobs are needed. The rules:

1. A blob of a repository is *reported* when a response says that it exists. When the process starts, all blobs count as
   reported.
2. A *push* is a sequence of requests of one principal on one repository without a pause longer than the grace period. A
   request in progress is not a pause, however long it takes. A push that starts within the grace period after the process
   started may continue an earlier one, and counts as started with the process.
3. A blob that no manifest of its repository names is removable under two conditions. It was last reported more than a
   grace period ago, and before the start of every push that still runs on the repository.

Why a push never loses a blob that was reported to it: the report at time t answered a request of that push, so the push
started no later than t. By rule 3 the blob stays for as long as the push runs. By rule 2 the push runs until its client
has been silent for the grace period.

While a collection removes blobs, they are `terminating`: they are reported as missing, and the client uploads them again.
A blob or manifest that is to be stored again waits until the collection has finished (`claim`).

Manifests are reported like blobs, for clients that push an index of them. The retention policy uses the same rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

#: A repository: registry and name.
Place = tuple[str, str]


@dataclass
class _Push:
    """`started` and `last`, the end of the last request, are times of the clock; `requests` are those in progress."""

    started: float
    last: float
    requests: int = 0


class RunningPushes:
    """The pushes, in memory. `grace` is in seconds, and `clock` is monotonic."""

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._started = clock()
        self._reported: dict[Place, dict[str, float]] = {}
        self._pushes: dict[Place, dict[str, _Push]] = {}
        self._terminating: set[tuple[Place, str]] = set()
        self._idle = asyncio.Event()

    @contextlib.contextmanager
    def request(self, place: Place, principal: str) -> Iterator[None]:
        """A context manager around a request of a push."""
        now = self._clock()
        pushes = self._pushes.setdefault(place, {})
        push = pushes.get(principal)
        if push is None or not self._is_running(push, now):
            resumed = now <= self._started + self._grace
            push = pushes[principal] = _Push(self._started if resumed else now, now)
        push.requests += 1
        try:
            yield
        finally:
            push.requests -= 1
            push.last = self._clock()

    def report(self, place: Place, digest: str) -> bool:
        """Record that a response is about to report a blob; `False` where it must be reported as missing."""
        if (place, digest) in self._terminating:
            return False
        self._reported.setdefault(place, {})[digest] = self._clock()
        return True

    async def claim(self, place: Place, digest: str) -> None:
        """Report a blob or manifest that is about to be stored, after the collection that may be removing it."""
        while not self.report(place, digest):
            await self._idle.wait()

    def in_use(self, place: Place) -> set[str] | None:
        """The blobs and manifests of a repository that running pushes depend on, or `None` for all of them."""
        if not self.is_removable(place, ""):
            return None
        return {digest for digest in self._reported.get(place, {}) if not self.is_removable(place, digest)}

    def is_removable(self, place: Place, digest: str) -> bool:
        """Whether no running push depends on a blob that no manifest names."""
        now = self._clock()
        reported = self._reported.get(place, {}).get(digest, self._started)
        starts = (push.started for push in self._pushes.get(place, {}).values() if self._is_running(push, now))
        return reported + self._grace < now and reported < min(starts, default=now)

    @contextlib.contextmanager
    def terminating(self, blobs: Iterable[tuple[Place, str]]) -> Iterator[None]:
        """A context manager around the removal of blobs, which reports them as missing; only one at a time."""
        marked = set(blobs)
        self._terminating |= marked
        self._idle.clear()
        try:
            yield
        finally:
            self._terminating -= marked
            self._idle.set()

    def forget(self) -> None:
        """Drop the records that no longer affect a decision."""
        now = self._clock()
        for place in list(self._pushes):
            running = {name: push for name, push in self._pushes[place].items() if self._is_running(push, now)}
            if running:
                self._pushes[place] = running
            else:
                del self._pushes[place]
        for place in list(self._reported):
            first = min((push.started for push in self._pushes.get(place, {}).values()), default=now)
            oldest = min(first, now - self._grace)
            kept = {digest: at for digest, at in self._reported[place].items() if at >= oldest}
            if kept:
                self._reported[place] = kept
            else:
                del self._reported[place]

    def _is_running(self, push: _Push, now: float) -> bool:
        return push.requests > 0 or push.last + self._grace >= now
