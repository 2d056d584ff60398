"""Which pushes are running and what their clients count on: what a collection must leave alone.

A client finds out, blob by blob, what the registry has already (HEAD, a mount, an upload that ends), and at last pushes a
manifest that names all of it. Between the two nothing but this module knows that the blob is needed. The rule:

1. A blob of a repository is *told* whenever a client is answered that it is there. When the process starts, all are.
2. A *push* is the row of one principal's requests on one repository with no pause longer than the grace. A request that
   is being answered is no pause, however long it lasts. What begins within the grace after the process started may be the
   rest of a push from before, and counts as begun with the process.
3. A blob that no manifest of its repository names may go when it was told longer ago than the grace, and before
   every push on that repository that still runs began.

So a push never loses what it was told: had it been told at moment t, the push ran at t (asking is a request of it), and
it began no later than t, so by 3 the blob stays for as long as it runs, whatever it lasts, and by 2 until the client has
been silent for the grace. What a client would be told while a collection is at work is covered by `condemned`: from the
decision until the blob is gone it is answered as not there, and is uploaded again; and what is linked or pushed anew
waits until the collection is through (`claim`).

Manifests are told as blobs are, for those who push an index of them: retention asks here too.
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
    began: float
    last: float
    requests: int = 0


class RunningPushes:
    """Kept in memory, by a clock that never goes back; `grace` is in seconds."""

    def __init__(self, grace: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._grace = grace
        self._clock = clock
        self._started = clock()
        self._told: dict[Place, dict[str, float]] = {}
        self._pushes: dict[Place, dict[str, _Push]] = {}
        self._condemned: set[tuple[Place, str]] = set()
        self._idle = asyncio.Event()

    @contextlib.contextmanager
    def request(self, place: Place, principal: str) -> Iterator[None]:
        """A request of a push, for as long as it is being answered."""
        now = self._clock()
        pushes = self._pushes.setdefault(place, {})
        push = pushes.get(principal)
        if push is None or not self._runs(push, now):
            resumed = now <= self._started + self._grace
            push = pushes[principal] = _Push(self._started if resumed else now, now)
        push.requests += 1
        try:
            yield
        finally:
            push.requests -= 1
            push.last = self._clock()

    def tell(self, place: Place, digest: str) -> bool:
        """Note that a client is about to be told that a blob is there; `False` where it must not be told so."""
        if (place, digest) in self._condemned:
            return False
        self._told.setdefault(place, {})[digest] = self._clock()
        return True

    async def claim(self, place: Place, digest: str) -> None:
        """`tell`, as soon as that is possible: for what is about to be stored."""
        while not self.tell(place, digest):
            await self._idle.wait()

    def counted_on(self, place: Place) -> set[str] | None:
        """What running pushes on a repository count on, blobs and manifests alike; `None` for all that is there."""
        if not self.may_go(place, ""):
            return None
        return {digest for digest in self._told.get(place, {}) if not self.may_go(place, digest)}

    def may_go(self, place: Place, digest: str) -> bool:
        """Whether no running push counts on a blob of which is known that no manifest names it."""
        now = self._clock()
        told = self._told.get(place, {}).get(digest, self._started)
        running = (push.began for push in self._pushes.get(place, {}).values() if self._runs(push, now))
        return told + self._grace < now and told < min(running, default=now)

    @contextlib.contextmanager
    def condemned(self, blobs: Iterable[tuple[Place, str]]) -> Iterator[None]:
        """While these blobs are taken away nobody is told that they are there; one such block at a time."""
        taken = set(blobs)
        self._condemned |= taken
        self._idle.clear()
        try:
            yield
        finally:
            self._condemned -= taken
            self._idle.set()

    def forget(self) -> None:
        """Drop what has no bearing on any answer any more."""
        now = self._clock()
        for place in list(self._pushes):
            running = {who: push for who, push in self._pushes[place].items() if self._runs(push, now)}
            if running:
                self._pushes[place] = running
            else:
                del self._pushes[place]
        for place in list(self._told):
            first = min((push.began for push in self._pushes.get(place, {}).values()), default=now)
            oldest = min(first, now - self._grace)
            kept = {digest: told for digest, told in self._told[place].items() if told >= oldest}
            if kept:
                self._told[place] = kept
            else:
                del self._told[place]

    def _runs(self, push: _Push, now: float) -> bool:
        return push.requests > 0 or push.last + self._grace >= now
