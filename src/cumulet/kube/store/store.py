"""The store: the state in memory, and the order in which changes reach disk and readers."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.store.disk import Change, Disk
from cumulet.kube.store.stored import Event, Stored, make
from cumulet.kube.store.watch_cache import History

log = logging.getLogger(__name__)

#: Events are kept for an hour, as in upstream (`--event-ttl`), and at most 20,000 of them.
_EVENT_SECONDS = 3600
_EVENTS_KEPT = 20_000

Key = tuple[str, str]
Receiver = Callable[[Event], None]


class ConflictError(Exception):
    """The object is not, or no longer, the one that the writer started from."""


class GoneError(Exception):
    """The revision is no longer in the history."""


class _Collection:
    """The objects of one resource, its recent history and its watchers."""

    def __init__(self, revision: int) -> None:
        self.objects: dict[Key, Stored] = {}
        self.keys: list[Key] = []  # sorted
        self.pending: dict[Key, Change] = {}  # the newest change of each object on its way to disk
        self.history = History(revision)
        self.receivers: dict[Receiver, None] = {}
        self.hooks: list[Callable[[], None]] = []

    def put(self, key: Key, stored: Stored) -> Stored | None:
        """Add or replace an object, and return the one before."""
        before = self.objects.get(key)
        if before is None:
            insort(self.keys, key)
        self.objects[key] = stored
        return before

    def remove(self, key: Key) -> Stored | None:
        """Remove an object, and return it if it existed."""
        before = self.objects.pop(key, None)
        if before is not None:
            del self.keys[bisect_left(self.keys, key)]
        return before

    def sorted_keys(self, namespace: str) -> Sequence[Key]:
        """Return the keys of one namespace, or of all."""
        if not namespace:
            return self.keys[:]
        start = bisect_left(self.keys, (namespace, ""))
        return self.keys[start : bisect_left(self.keys, (namespace + "\0", ""), start)]


class _Written:
    """A change that is not on disk yet, and the future of its writer."""

    __slots__ = ("change", "future")

    def __init__(self, change: Change, future: asyncio.Future[Stored]) -> None:
        self.change = change
        self.future = future


class Store:
    """The store of objects; `revision` is that of the newest change on disk."""

    def __init__(self, path: Path, key_file: Path) -> None:
        self._disk = Disk(path, key_file)
        self._collections: dict[str, _Collection] = {}
        self._next = 1
        self._opened = 1
        self._waiting: list[_Written] = []
        self._committing = False
        self.revision = 1

    def open(self) -> None:
        """Read everything into memory. Raises `SealError` and `DatabaseError`."""
        self.revision = self._next = self._opened = self._disk.open()
        for resource, stored in self._disk.read():
            self._collection(resource).objects[stored.namespace, stored.name] = stored
        for collection in self._collections.values():
            collection.keys = sorted(collection.objects)

    def close(self) -> None:
        """Close the file."""
        self._disk.close()

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        """Return an object that is on disk, or `None`."""
        return self._collection(resource).objects.get((namespace, name))

    def newest(self, resource: str, namespace: str, name: str) -> Stored | None:
        """Return an object with the change on its way to disk: the start of a write. `None` if it does not exist."""
        collection = self._collection(resource)
        key = (namespace, name)
        pending = collection.pending.get(key)
        if pending is not None:
            return None if pending.deleted else pending.stored
        return collection.objects.get(key)

    def list(self, resource: str, namespace: str = "") -> Iterator[Stored]:
        """Yield the objects of a resource, of one namespace or all, by namespace and name."""
        collection = self._collection(resource)
        objects = collection.objects
        return (objects[key] for key in collection.sorted_keys(namespace))

    def list_at(self, resource: str, namespace: str, revision: int) -> Iterator[Stored]:
        """Yield the objects at a revision, by namespace and name. Raises `GoneError`."""
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
        """Yield the objects of a namespace with the changes on their way to disk."""
        collection = self._collection(resource)
        for key in collection.sorted_keys(namespace):
            if key not in collection.pending:
                yield collection.objects[key]
        for key, pending in collection.pending.items():
            if key[0] == namespace and not pending.deleted:
                yield pending.stored

    def count(self, resource: str) -> int:
        """Return the number of objects of a resource."""
        return len(self._collection(resource).objects)

    async def create(self, resource: str, namespace: str, name: str, obj: Object) -> Stored:
        """Add an object. Raises `ConflictError` where it exists."""
        if self.newest(resource, namespace, name) is not None:
            raise ConflictError
        return await self._write(resource, namespace, name, obj, None)

    async def update(self, resource: str, before: Stored, obj: Object) -> Stored:
        """Replace an object. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, obj, before)

    async def delete(self, resource: str, before: Stored, last: Object) -> Stored:
        """Remove an object; watchers see it as `last`. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, last, before, delete=True)

    def on_change(self, resource: str, hook: Callable[[], None]) -> None:
        """Call `hook` after each change of a resource, before its watchers."""
        self._collection(resource).hooks.append(hook)

    def watch(self, resource: str, since: int, receiver: Receiver) -> Sequence[Event]:
        """Pass every later change to `receiver`, until `unwatch`; return the changes after `since`.

        Raises `GoneError`.
        """
        collection = self._collection(resource)
        missed = self.missed(resource, since)
        collection.receivers[receiver] = None
        return missed

    def missed(self, resource: str, since: int) -> Sequence[Event]:
        """Return the changes after a revision. Raises `GoneError`."""
        history = self._collection(resource).history
        if since < history.forgotten:
            raise GoneError
        return history.since(since)

    def unwatch(self, resource: str, receiver: Receiver) -> None:
        """Pass no more changes to `receiver`."""
        self._collection(resource).receivers.pop(receiver, None)

    async def compact(self, revision: int, now: float | None = None) -> None:
        """Drop the history up to a revision, and delete expired events."""
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
        obj: Object,
        before: Stored | None,
        *,
        delete: bool = False,
    ) -> Stored:
        """Take the next revision now; return when the change is on disk and the watchers have it."""
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
            # A little later, so that other writes of this turn of the loop join the batch.
            loop.call_soon(self._commit)
        return await future

    def _commit(self) -> None:
        """Write the waiting changes; those that arrive meanwhile are the next batch."""
        batch, self._waiting = self._waiting, []
        writing = asyncio.ensure_future(self._disk.write([written.change for written in batch]))
        writing.add_done_callback(lambda done: self._committed(done, batch))

    def _committed(self, done: asyncio.Future[None], batch: Sequence[_Written]) -> None:
        if done.cancelled() or done.exception() is not None:
            # Other writers may have started from a change that is not on disk: restart from the disk.
            log.critical("a write failed; restarting from the state on disk", exc_info=done.exception())
            logging.shutdown()
            os._exit(70)
        if self._waiting:
            self._commit()
        else:
            self._committing = False
        for written in batch:
            self._apply(written.change)
            if not written.future.done():  # the writer may be gone
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
                self._log_failure(change)
        for receiver in [*collection.receivers]:
            try:
                receiver(event)
            except Exception:
                self._log_failure(change)

    def _log_failure(self, change: Change) -> None:
        """Log the failure of a hook or receiver; the change is on disk, so the others must still see it."""
        log.exception("a watcher of %s failed on the change of %s", change.resource, change.stored.name)

    def _collection(self, resource: str) -> _Collection:
        collection = self._collections.get(resource)
        if collection is None:
            collection = self._collections[resource] = _Collection(self._opened)
        return collection
