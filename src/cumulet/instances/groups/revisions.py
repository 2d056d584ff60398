"""The revisions of groups: a number that grows with every change, and which groups changed after a revision."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

#: Seconds that a change waits for the next one of its group, to be published together with that.
_SOON = 0.5
#: Removals that are remembered. A watcher that missed more gets all groups.
_REMOVALS = 10_000


class Changed(NamedTuple):
    """The keys of the groups that changed, and the ids of those that are gone."""

    keys: list[str]
    removed: list[str]


class Revisions:
    """The latest revision of every group, by its key, and the last removals."""

    def __init__(self, first: int) -> None:
        #: The revision of the newest change.
        self.newest = first
        self._oldest = first  # removals after this revision are known
        self._latest: dict[str, int] = {}  # from the oldest change to the newest
        self._removed: deque[tuple[int, str]] = deque()
        self._event = asyncio.Event()
        self._due: dict[str, asyncio.TimerHandle] = {}

    def changed(self, key: str) -> None:
        """Count a change of a group."""
        self._forget(key)
        self._count()
        self._latest[key] = self.newest

    def changed_soon(self, key: str) -> None:
        """Count a change of a group that the next one will replace, if that comes within half a second: a step of a start."""
        if key not in self._due:
            self._due[key] = asyncio.get_running_loop().call_later(_SOON, self.changed, key)

    def removed(self, key: str, resource_id: str) -> None:
        """Count the end of a group."""
        self._forget(key)
        if len(self._removed) == _REMOVALS:
            self._oldest, _ = self._removed.popleft()
        self._count()
        self._removed.append((self.newest, resource_id))

    def _forget(self, key: str) -> None:
        self._latest.pop(key, None)
        if (due := self._due.pop(key, None)) is not None:
            due.cancel()

    def _count(self) -> None:
        self.newest += 1
        self._event.set()
        self._event = asyncio.Event()

    def after(self, since: int) -> Changed | None:
        """Return the changes after a revision, or `None` if they are not known: it is too old, or of another process."""
        if not self._oldest <= since <= self.newest:
            return None
        keys = []
        for key in reversed(self._latest):
            if self._latest[key] <= since:
                break
            keys.append(key)
        removed = []
        for revision, resource_id in reversed(self._removed):
            if revision <= since:
                break
            removed.append(resource_id)
        return Changed(keys[::-1], removed)

    async def wait(self, since: int, seconds: float) -> None:
        """Wait until the revision is greater than `since`, for at most `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while self.newest <= since:
                    await self._event.wait()
        except TimeoutError:
            return
