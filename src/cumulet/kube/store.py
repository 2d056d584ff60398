"""Where the objects are: durable in one SQL file, read and watched from memory.

Each change gets the next revision of the whole cluster. A reader sees what is on disk and nothing else; a writer
builds upon the newest change of an object, also where that is still on its way there, so that two writers of one
object never both succeed on the same version. History is kept in memory only, and bounded: who asks for a revision
that is no longer there, or that is older than this process, lists anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from cumulet.common.database import Database
from cumulet.kube.sealing import Sealer

log = logging.getLogger(__name__)

_MIGRATIONS = [
    """
    CREATE TABLE object (
        resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
        revision INTEGER NOT NULL, body BLOB NOT NULL,
        PRIMARY KEY (resource, namespace, name)
    );
    CREATE TABLE revision (id INTEGER PRIMARY KEY CHECK (id = 1), value INTEGER NOT NULL);
    INSERT INTO revision VALUES (1, 1);
    """
]

_HISTORY = 4096
_QUEUE_LIMIT = 16384

Key = tuple[str, str]


class Stored(NamedTuple):
    """An object as JSON without `apiVersion` and `kind`, with what lists and watches select by."""

    namespace: str
    name: str
    revision: int
    body: bytes
    labels: dict[str, str]
    fields: dict[str, str]

    def load(self) -> dict[str, Any]:
        """A copy of the object."""
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found


class Event(NamedTuple):
    """One change; `stored` is the state after it, or the last one with the revision of its deletion."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    stored: Stored
    before: Stored | None


class ConflictError(Exception):
    """The object is not, or no longer, what the writer built upon."""


class GoneError(Exception):
    """The revision is no longer in the history."""


class Watcher:
    """The changes of one resource after a revision, in order; one that falls too far behind is closed."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._wake = asyncio.Event()
        self.closed = False

    def push(self, event: Event) -> None:
        """A change happened."""
        if len(self._events) >= _QUEUE_LIMIT:
            self.close()
            return
        self._events.append(event)
        self._wake.set()

    def close(self) -> None:
        """No more changes will come."""
        self.closed = True
        self._wake.set()

    async def next(self, seconds: float) -> list[Event]:
        """What has come, waiting at most that long; empty where nothing did."""
        if not self._events and not self.closed:
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return []
        self._wake.clear()
        events = list(self._events)
        self._events.clear()
        return events


class _Collection:
    """The objects of one resource, its recent history and who watches it."""

    def __init__(self) -> None:
        self.objects: dict[Key, Stored] = {}
        self.pending: dict[Key, Stored | None] = {}
        self.history: deque[Event] = deque(maxlen=_HISTORY)
        self.forgotten = 0
        self.watchers: set[Watcher] = set()


class Store:
    """Create, get, list, update, delete, watch; `revision` is that of the newest change on disk."""

    def __init__(self, path: Path, key_file: Path) -> None:
        self._database = Database(path, _MIGRATIONS)
        self._sealer = Sealer(key_file)
        self._collections: dict[str, _Collection] = {}
        self._next = 1
        self._hooks: dict[str, list[Callable[[], None]]] = {}
        self.revision = 1

    def open(self) -> None:
        """Read everything into memory. Raises `SealError`, `DatabaseError`."""
        self._database.open()
        ((self.revision,),) = self._database.read("SELECT value FROM revision")
        self._next = self.revision
        for resource, namespace, name, revision, body in self._database.read(
            "SELECT * FROM object ORDER BY resource"
        ):
            collection = self._collection(resource)
            plain = self._sealer.open(resource, namespace, name, body)
            collection.objects[namespace, name] = _stored(resource, namespace, name, revision, plain)
        for collection in self._collections.values():
            collection.forgotten = self.revision

    def end_watches(self) -> None:
        """Tell every watcher that no more will come."""
        for collection in self._collections.values():
            for watcher in collection.watchers:
                watcher.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def get(self, resource: str, namespace: str, name: str) -> Stored | None:
        """An object that is on disk."""
        return self._collection(resource).objects.get((namespace, name))

    def newest(self, resource: str, namespace: str, name: str) -> Stored | None:
        """An object with the change that is on its way to disk: what a writer builds upon."""
        collection = self._collection(resource)
        key = (namespace, name)
        return collection.pending[key] if key in collection.pending else collection.objects.get(key)

    def list(self, resource: str, namespace: str = "") -> Iterator[Stored]:
        """The objects of a resource, of one namespace or all, by namespace and name."""
        objects = self._collection(resource).objects
        for key in sorted(objects):
            if not namespace or key[0] == namespace:
                yield objects[key]

    def list_at(self, resource: str, namespace: str, revision: int) -> Iterator[Stored]:
        """The objects as they were at a revision, by namespace and name. Raises `GoneError`."""
        collection = self._collection(resource)
        if revision < collection.forgotten:
            raise GoneError
        objects = dict(collection.objects)
        changed: set[Key] = set()
        for event in self._since(collection, revision):
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
        for key, stored in collection.objects.items():
            if key[0] == namespace and key not in collection.pending:
                yield stored
        for key, pending in collection.pending.items():
            if key[0] == namespace and pending is not None:
                yield pending

    def count(self, resource: str) -> int:
        """How many there are."""
        return len(self._collection(resource).objects)

    async def create(self, resource: str, namespace: str, name: str, obj: dict[str, Any]) -> Stored:
        """Add an object. Raises `ConflictError` where there is one."""
        if self.newest(resource, namespace, name) is not None:
            raise ConflictError
        return await self._write(resource, namespace, name, obj)

    async def update(self, resource: str, before: Stored, obj: dict[str, Any]) -> Stored:
        """Replace an object. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, obj)

    async def delete(self, resource: str, before: Stored, last: dict[str, Any]) -> Stored:
        """Remove an object; watchers see it as `last`. Raises `ConflictError` where it is no longer `before`."""
        if self.newest(resource, before.namespace, before.name) is not before:
            raise ConflictError
        return await self._write(resource, before.namespace, before.name, last, delete=True)

    def on_change(self, resource: str, hook: Callable[[], None]) -> None:
        """Call `hook` after each change of a resource, before its watchers are told."""
        self._hooks.setdefault(resource, []).append(hook)

    def watch(self, resource: str, since: int) -> tuple[Watcher, Sequence[Event]]:
        """A watcher, and what happened after `since`. Raises `GoneError`. Give the watcher back with `unwatch`."""
        collection = self._collection(resource)
        if since < collection.forgotten:
            raise GoneError
        watcher = Watcher()
        collection.watchers.add(watcher)
        return watcher, self._since(collection, since)

    @staticmethod
    def _since(collection: _Collection, revision: int) -> Sequence[Event]:
        revisions = [event.stored.revision for event in collection.history]
        return list(collection.history)[bisect_right(revisions, revision) :]

    def unwatch(self, resource: str, watcher: Watcher) -> None:
        """The watcher is not read any more."""
        self._collection(resource).watchers.discard(watcher)

    async def _write(
        self, resource: str, namespace: str, name: str, obj: dict[str, Any], *, delete: bool = False
    ) -> Stored:
        """Take the next revision now, and apply the change once it is on disk.

        The database commits in the order of these calls, and answers in it, so watchers see revisions in order.
        """
        self._next += 1
        revision = self._next
        obj["metadata"]["resourceVersion"] = str(revision)
        body = msgspec.json.encode({key: value for key, value in obj.items() if key not in ("apiVersion", "kind")})
        stored = _stored(resource, namespace, name, revision, body)
        collection = self._collection(resource)
        key = (namespace, name)
        mine = None if delete else stored
        written_body = self._sealer.seal(resource, namespace, name, body)
        collection.pending[key] = mine

        def job(connection: sqlite3.Connection) -> None:
            if delete:
                connection.execute(
                    "DELETE FROM object WHERE resource = ? AND namespace = ? AND name = ?",
                    (resource, namespace, name),
                )
            else:
                connection.execute(
                    "INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)",
                    (resource, namespace, name, revision, written_body),
                )
            connection.execute("UPDATE revision SET value = ?", (revision,))

        written = asyncio.ensure_future(self._database.write(job))
        written.add_done_callback(lambda future: self._applied(future, resource, stored, mine))
        # The caller may go away; the write goes on.
        await asyncio.shield(written)
        return stored

    def _applied(self, future: asyncio.Future[None], resource: str, stored: Stored, mine: Stored | None) -> None:
        if future.cancelled() or future.exception() is not None:
            # What others may have built upon is not on disk: only a new start from the disk is right.
            log.critical("a write failed; starting again from what is on disk", exc_info=future.exception())
            logging.shutdown()
            os._exit(70)
        collection = self._collection(resource)
        key = (stored.namespace, stored.name)
        before = collection.objects.get(key)
        if mine is None:
            collection.objects.pop(key, None)
            event = Event("DELETED", stored, before)
        else:
            collection.objects[key] = stored
            event = Event("ADDED" if before is None else "MODIFIED", stored, before)
        if collection.pending.get(key, stored) is mine:
            collection.pending.pop(key, None)
        self.revision = stored.revision
        if len(collection.history) == _HISTORY:
            collection.forgotten = collection.history[0].stored.revision
        collection.history.append(event)
        for hook in self._hooks.get(resource, ()):
            hook()
        for watcher in [*collection.watchers]:
            watcher.push(event)

    def _collection(self, resource: str) -> _Collection:
        found = self._collections.get(resource)
        if found is None:
            found = self._collections[resource] = _Collection()
        return found


class _Metadata(msgspec.Struct):
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815  (Kubernetes' own name)
    restartPolicy: str = ""  # noqa: N815
    schedulerName: str = ""  # noqa: N815
    serviceAccountName: str = ""  # noqa: N815
    unschedulable: bool = False
    clusterIP: str = ""  # noqa: N815
    type: str = ""


class _Status(msgspec.Struct):
    phase: str = ""
    podIP: str = ""  # noqa: N815
    nominatedNodeName: str = ""  # noqa: N815


class _Selectable(msgspec.Struct):
    """The few fields that selectors name, decoded without the rest."""

    metadata: _Metadata
    spec: msgspec.Raw = msgspec.Raw(b"null")
    status: msgspec.Raw = msgspec.Raw(b"null")


_DECODER = msgspec.json.Decoder(_Selectable)
_SPEC = msgspec.json.Decoder(_Spec | None)
_STATUS = msgspec.json.Decoder(_Status | None)


def _stored(resource: str, namespace: str, name: str, revision: int, body: bytes) -> Stored:
    selectable = _DECODER.decode(body)
    fields = {"metadata.name": name, "metadata.namespace": namespace}
    if resource in ("pods", "nodes", "services", "namespaces"):
        spec = _SPEC.decode(selectable.spec) or _Spec()
        status = _STATUS.decode(selectable.status) or _Status()
        fields |= _path_fields(resource, spec, status)
    elif resource == "events":
        fields |= _event_fields(msgspec.json.decode(body))
    elif resource == "secrets":
        fields["type"] = msgspec.json.decode(body).get("type", "")
    return Stored(namespace, name, revision, body, selectable.metadata.labels or {}, fields)


def _path_fields(resource: str, spec: _Spec, status: _Status) -> dict[str, str]:
    if resource == "pods":
        return {
            "spec.nodeName": spec.nodeName,
            "spec.restartPolicy": spec.restartPolicy,
            "spec.schedulerName": spec.schedulerName,
            "spec.serviceAccountName": spec.serviceAccountName,
            "status.phase": status.phase,
            "status.podIP": status.podIP,
            "status.nominatedNodeName": status.nominatedNodeName,
        }
    if resource == "nodes":
        return {"spec.unschedulable": "true" if spec.unschedulable else "false"}
    if resource == "services":
        return {"spec.clusterIP": spec.clusterIP, "spec.type": spec.type}
    return {"status.phase": status.phase}


def _event_fields(event: dict[str, Any]) -> dict[str, str]:
    involved = event.get("involvedObject") or {}
    fields = {
        f"involvedObject.{name}": str(involved.get(name, ""))
        for name in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
    }
    source = (event.get("source") or {}).get("component") or event.get("reportingComponent") or ""
    return fields | {
        "reason": event.get("reason", ""),
        "type": event.get("type", ""),
        "source": source,
        "reportingComponent": event.get("reportingComponent", ""),
    }
