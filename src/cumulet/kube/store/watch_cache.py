"""The recent changes of one resource, bounded in number and bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence

from cumulet.kube.store.stored import Event

_EVENTS = 4096
_BYTES = 32 * 2**20


class History:
    """Changes in the order of their revisions; `forgotten` is the newest dropped revision."""

    def __init__(self, forgotten: int) -> None:
        self._events: deque[Event] = deque()
        self._bytes = 0
        self.forgotten = forgotten

    def add(self, event: Event) -> None:
        """Add a change, and drop the oldest ones beyond the bounds."""
        self._events.append(event)
        self._bytes += len(event.stored.body)
        while len(self._events) > _EVENTS or (self._bytes > _BYTES and len(self._events) > 1):
            self._forget()

    def compact(self, revision: int) -> None:
        """Drop the changes up to a revision."""
        while self._events and self._events[0].stored.revision <= revision:
            self._forget()

    def since(self, revision: int) -> Sequence[Event]:
        """Return the changes after a revision."""
        revisions = [event.stored.revision for event in self._events]
        return list(self._events)[bisect_right(revisions, revision) :]

    def _forget(self) -> None:
        event = self._events.popleft()
        self._bytes -= len(event.stored.body)
        self.forgotten = event.stored.revision
