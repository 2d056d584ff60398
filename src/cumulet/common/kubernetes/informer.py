"""A local copy of a list of objects, kept current: list, then watch, and list again when the server requires it.

Follows client-go's reflector. After a broken watch it continues from the last resource version, after `410 Gone` it lists
again. Handlers receive every difference as an event: none is lost, and no state is reported twice.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, Literal

import aiohttp

from cumulet.common.kubernetes.client import (
    METADATA_LIST_ONLY,
    METADATA_ONLY,
    AnyResource,
    Client,
    KubernetesError,
    Resource,
    T,
)
from cumulet.common.kubernetes.objects import PartialObjectMetadata
from cumulet.common.tasks import Backoff

log = logging.getLogger(__name__)

Change = Literal["ADDED", "MODIFIED", "DELETED"]
_CHANGES: dict[str, Change] = {"ADDED": "ADDED", "MODIFIED": "MODIFIED", "DELETED": "DELETED"}
Handler = Callable[[Change, T, T | None], None]
Key = tuple[str, str]
IndexKeys = Callable[[T], Iterable[Hashable]]


def key_of(obj: PartialObjectMetadata) -> Key:
    """(namespace, name); the namespace of a cluster-scoped object is empty."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _complete(item: PartialObjectMetadata, resource: AnyResource) -> None:
    """Add the fields that the items of a list lack."""
    item.setdefault("apiVersion", resource.api_version)
    item.setdefault("kind", resource.kind)


class Informer(Generic[T]):
    """Keeps `items` equal to the objects on the server. `run` it in a task; handlers run in order, on the event loop.

    A handler receives the change, the object, and its previous state. It must not block and must not raise. Usually it adds
    a key to a work queue.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource[T],
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        self.resource = resource
        self.items: dict[Key, T] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._list_accept = METADATA_LIST_ONLY if metadata_only else None
        self._watch_accept = METADATA_ONLY if metadata_only else None
        self._namespace = namespace
        self._handlers: list[Handler[T]] = []
        self._indexes: dict[str, tuple[IndexKeys[T], dict[Hashable, dict[Key, T]]]] = {}
        self._selectors: dict[str, str] = {}
        if label_selector:
            self._selectors["labelSelector"] = label_selector
        if field_selector:
            self._selectors["fieldSelector"] = field_selector

    def add_handler(self, handler: Handler[T]) -> None:
        """Call `handler` for every change from now on, and at once for every object that is already here."""
        self._handlers.append(handler)
        for obj in list(self.items.values()):
            handler("ADDED", obj, None)

    def add_index(self, name: str, keys: IndexKeys[T]) -> None:
        """Index the objects by the keys that `keys` returns, for `indexed`. An index of that name stays as it is."""
        if name in self._indexes:
            return
        self._indexes[name] = keys, {}
        for key, obj in self.items.items():
            for value in keys(obj):
                self._indexes[name][1].setdefault(value, {})[key] = obj

    def indexed(self, name: str, key: Hashable) -> list[T]:
        """The objects under one key of an index."""
        return list(self._indexes[name][1].get(key, {}).values())

    def get(self, name: str, namespace: str = "") -> T | None:
        """The object of that name, or `None`."""
        return self.items.get((namespace, name))

    def __iter__(self) -> Iterator[T]:
        return iter(list(self.items.values()))

    def clear(self) -> None:
        """Remove every object, as if each were deleted."""
        for obj in self:
            self._apply("DELETED", obj)

    async def resync(self, seconds: float) -> None:
        """Report every object to the handlers again at intervals, until cancelled, so that one can repair an omission."""
        while True:
            await asyncio.sleep(seconds * (1 + random.random() / 10))
            for obj in self:
                for handler in self._handlers:
                    handler("MODIFIED", obj, obj)

    async def run(self) -> None:
        """List and watch until cancelled. Retries while the server is unavailable."""
        backoff = Backoff(0.05, 5)
        version: str | None = None
        while True:
            try:
                if version is None:
                    version = await self._list()
                    backoff.reset()
                version = await self._watch(version)
                backoff.reset()
            except KubernetesError as error:
                if error.code == 410:
                    version = None
                    continue
                log.warning("watching %s: %s", self.resource.plural, error)
                await backoff.wait()
                version = None
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                log.info("watching %s: %s: %s", self.resource.plural, type(error).__name__, error)
                await backoff.wait()
                version = None

    async def _list(self) -> str:
        answer = await self._client.list(self.resource, self._namespace, self._selectors, accept=self._list_accept)
        found: dict[Key, T] = {}
        for item in answer["items"]:
            _complete(item, self.resource)
            found[key_of(item)] = item
        for key, old in list(self.items.items()):
            new = found.get(key)
            if new is None or new["metadata"].get("uid") != old["metadata"].get("uid"):
                self._apply("DELETED", old)
        for obj in found.values():
            self._apply("ADDED", obj)
        self.synced.set()
        version: str = answer["metadata"]["resourceVersion"]
        return version

    async def _watch(self, version: str) -> str:
        # Random ends keep many watches from restarting at the same moment.
        params = {
            **self._selectors,
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(300, 600)),
        }
        async for type_, obj in self._client.watch(
            self.resource, self._namespace, params=params, accept=self._watch_accept
        ):
            version = obj["metadata"]["resourceVersion"]
            change = _CHANGES.get(type_)
            if change is not None:
                self._apply(change, obj)
        return version

    def _apply(self, change: Change, obj: T) -> None:
        key = key_of(obj)
        old = self.items.get(key)
        if change == "DELETED":
            if old is None:
                return
            del self.items[key]
            self._reindex(key, old, None)
        else:
            if old is not None and old["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
                return
            self.items[key] = obj
            self._reindex(key, old, obj)
            change = "ADDED" if old is None else "MODIFIED"
        for handler in self._handlers:
            handler(change, obj, old)

    def _reindex(self, key: Key, old: T | None, new: T | None) -> None:
        for keys, found in self._indexes.values():
            before = set(keys(old)) if old is not None else set()
            after = set(keys(new)) if new is not None else set()
            for value in before - after:
                entry = found[value]
                del entry[key]
                if not entry:
                    del found[value]
            if new is not None:
                for value in after:
                    found.setdefault(value, {})[key] = new


#: An informer of any kind of objects.
AnyInformer = Informer[Any]
