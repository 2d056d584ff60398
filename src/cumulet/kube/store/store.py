"""The store itself: what is in memory, and the order in which changes go to disk and become seen."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cumulet.kube.store.disk import Change, Disk
from cumulet.kube.store.stored import Event, Stored, make
from cumulet.kube.store.watch_cache import History

log = logging.getLogger(__name__)

#: Events of a cluster are kept for an hour, as upstream keeps them (`--event-ttl`), and no more than so many.
_EVENT_SECONDS = 3600
_EVENTS_KEPT = 20_000

Key = tuple[str, str]
Receiver = Callable[[Event], None]


class ConflictError(Exception):
    """The object is not, or no longer, what the writer built upon."""


class GoneError(Exception):
    """The revision is no longer in the history."""


class _Collection:
    """The objects of one resource, its recent history and who watches it."""

    def __init__(self, revision: int) -> None:
        self.objects: dict[Key, Stored] = {}
        self.keys: list[Key] = []  # sorted
        self.pending: dict[Key, Change] = {}  # the newest of each object that is on its way to disk
        self.history = History(revision)
        self.receivers: dict[Receiver, None] = {}
        self.hooks: list[Callable[[], None]] = []

    def put(self, key: Key, stored: Stored) -> Stored | None:
        """Add or replace an object; the one before."""
        before = self.objects.get(key)
        if before is None:
            insort(self.keys, key)
        self.objects[key] = stored
        return before

    def remove(self, key: Key) -> Stored | None:
        """Take an object out; it, if it was there."""
        before = self.objects.pop(key, None)
        if before is not None:
            del self.keys[bisect_left(self.keys, key)]
        return before

    def sorted_keys(self, namespace: str) -> Sequence[Key]:
        """The keys of one namespace or all."""
        if not namespace:
            return self.keys[:]
        start = bisect_left(self.keys, (namespace, ""))
        return self.keys[start : bisect_left(self.keys, (namespace + "\0", ""), start)]


class _Written:
    """A change that is not on disk yet, and who waits for that."""

    __slots__ = ("change", "future")

    def __init__(self, change: Change, future: asyncio.Future[Stored]) -> None:
        self.change = change
        self.future = future


class Store:
    """Create, get, list, update, delete, watch, compact; `revision` is that of the newest change on disk."""

    def __init__(self, path: Path, key_file: Path) -> None:
        self._disk = Disk(path, key_file)
        self._collections: dict[str, _Collection] = {}
        self._next = 1
        self._opened = 1
        self._waiting: list[_Written] = []
        self._committing = False
        self.revision = 1

    def open(self) -> None:
        """Read everything into memory. Raises `SealError`, `DatabaseError`."""
        self.revision = self._next = self._opened = self._disk.open()
        for resource, stored in self._disk.read():
            self._collection(resource).objects[stored.namespace, stored.name] = stored
        for collection in self._collections.values():
            collection.keys = sorted(collection.objects)

    def close(self) -> None:
        """Close the file."""
        self._disk.close()

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        """An object that is on disk."""
        return self._collection(resource).objects.get((namespace, name))

    def newest(self, resource: str, namespace: str, name: str) -> Stored | None:
        """An object with the change that is on its way to disk: what a writer builds upon."""
        collection = self._collection(resource)
        key = (namespace, name)
        pending = collection.pending.get(key)
        if pending is not None:
            return None if pending.deleted else pending.stored
        return collection.objects.get(key)

    def list(self, resource: str, namespace: str = "") -> Iterator[Stored]:
        """The objects of a resource, of one namespace or all, by namespace and name."""
        collection = self._collection(resource)
        objects = collection.objects
        return (objects[key] for key in collection.sorted_keys(namespace))

    def list_at(self, resource: str, namespace: str, revision: int) -> Iterator[Stored]:
        """The objects as they were at a revision, by namespace and name. Raises `GoneError`."""
        collection = self._collection(resource)
        if revision < collection.history.forgotten:
            raise GoneError
        objects = dict(collection.objects)
        changed: set[Key] = set()
        for event in collection.history.since(revision):
            key = (event.stored.namespace, event.stored.name)
            if key in changed:
                continue
            changed.add(key)
            if event.before is None:
                objects.pop(key, None)
            else:
                objects[key] = event.before
        return (objects[key] for key in sorted(objects) if not namespace or key[0] == namespace)

    def list_newest(self, resource: str, namespace: str) -> Iterator[Stored]:
        """The objects of a namespace with the changes that are on their way to disk."""
        collection = self._collection(resource)
        for key in collection.sorted_keys(namespace):
            if key not in collection.pending:
                yield collection.objects[key]
        for key, pending in collection.pending.items():
            if key[0] == namespace and not pending.deleted:
                yield pending.stored

    def count(self, resource: str) -> int:
        """How many there are."""
        return len(self._collection(resource).objects)

    async def create(self, resource: str, namespace: str, name: str, obj: dict[str, Any]) -> Stored:
        """Add an object. Raises `ConflictError` where there is one."""
        if self.newest(resource, namespace, name) is not None:
            raise ConflictError
        return await self._write(resource, namespace, name, obj, None)

    async def update(self, resource: str, before: Stored, obj: dict[str, Any]) -> Stored:
        """Replace an object. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, obj, before)

    async def delete(self, resource: str, before: Stored, last: dict[str, Any]) -> Stored:
        """Remove an object; watchers see it as `last`. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, last, before, delete=True)

    def on_change(self, resource: str, hook: Callable[[], None]) -> None:
        """Call `hook` after each change of a resource, before its watchers are told."""
        self._collection(resource).hooks.append(hook)

    def watch(self, resource: str, since: int, receiver: Receiver) -> Sequence[Event]:
        """Hand every later change to `receiver`, until `unwatch`; what happened after `since`. Raises `GoneError`."""
        collection = self._collection(resource)
        missed = self.missed(resource, since)
        collection.receivers[receiver] = None
        return missed

    def missed(self, resource: str, since: int) -> Sequence[Event]:
        """What happened after a revision. Raises `GoneError`."""
        history = self._collection(resource).history
        if since < history.forgotten:
            raise GoneError
        return history.since(since)

    def unwatch(self, resource: str, receiver: Receiver) -> None:
        """Hand no more changes to `receiver`."""
        self._collection(resource).receivers.pop(receiver, None)

    async def compact(self, revision: int, now: float | None = None) -> None:
        """Forget the history up to a revision, and delete the cluster's events that have had their time."""
        for collection in self._collections.values():
            collection.history.compact(min(revision, self.revision))
        events = sorted(self._collection("events").objects.values(), key=lambda stored: stored.written)
        oldest = (time.time() if now is None else now) - _EVENT_SECONDS
        surplus = len(events) - _EVENTS_KEPT
        await asyncio.gather(
            *(
                self._expire(stored)
                for number, stored in enumerate(events)
                if number < surplus or stored.written < oldest
            )
        )

    async def _expire(self, stored: Stored) -> None:
        if self.newest("events", stored.namespace, stored.name) is stored:
            await self.delete("events", stored, stored.load())

    async def _write(
        self,
        resource: str,
        namespace: str,
        name: str,
        obj: dict[str, Any],
        before: Stored | None,
        *,
        delete: bool = False,
    ) -> Stored:
        """Take the next revision now, and return when the change is on disk and was shown to the watchers."""
        self._next += 1
        revision = self._next
        obj["metadata"]["resourceVersion"] = str(revision)
        body = msgspec.json.encode(obj)
        created = revision if before is None else before.created
        stored = make(
            resource,
            obj,
            body,
            namespace=namespace,
            name=name,
            revision=revision,
            created=created,
            written=int(time.time()),
        )
        change = Change(resource, stored, delete)
        self._collection(resource).pending[namespace, name] = change
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Stored] = loop.create_future()
        self._waiting.append(_Written(change, future))
        if not self._committing:
            self._committing = True
            # Not at once: what else is written in this turn of the loop goes along.
            loop.call_soon(self._commit)
        return await future

    def _commit(self) -> None:
        """Write what waits; what comes meanwhile is the next batch."""
        batch, self._waiting = self._waiting, []
        writing = asyncio.ensure_future(self._disk.write([written.change for written in batch]))
        writing.add_done_callback(lambda done: self._committed(done, batch))

    def _committed(self, done: asyncio.Future[None], batch: Sequence[_Written]) -> None:
        if done.cancelled() or done.exception() is not None:
            # What others may have built upon is not on disk: only a new start from the disk is right.
            log.critical("a write failed; starting again from what is on disk", exc_info=done.exception())
            logging.shutdown()
            os._exit(70)
        if self._waiting:
            self._commit()
        else:
            self._committing = False
        for written in batch:
            self._apply(written.change)
            if not written.future.done():  # whoever waited may have gone away
                written.future.set_result(written.change.stored)

    def _apply(self, change: Change) -> None:
        stored = change.stored
        collection = self._collection(change.resource)
        key = (stored.namespace, stored.name)
        if change.deleted:
            event = Event("DELETED", stored, collection.remove(key))
        else:
            before = collection.put(key, stored)
            event = Event("ADDED" if before is None else "MODIFIED", stored, before)
        if collection.pending.get(key) is change:
            del collection.pending[key]
        self.revision = stored.revision
        collection.history.add(event)
        for hook in collection.hooks:
            try:
                hook()
            except Exception:
                self._not_followed(change)
        for receiver in [*collection.receivers]:
            try:
                receiver(event)
            except Exception:
                self._not_followed(change)

    def _not_followed(self, change: Change) -> None:
        """The change is made, so its writer and all others must come to know of it."""
        log.exception("who follows %s could not take the change of %s", change.resource, change.stored.name)

    def _collection(self, resource: str) -> _Collection:
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = _Collection(self._opened)
        return found
