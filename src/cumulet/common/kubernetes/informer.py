"""A local, always current copy of a list of objects: list, then watch, and list again when the server says so.

Follows client-go's reflector: after `410 Gone` or a broken watch it goes on from the last resource version it saw,
or lists anew; every difference reaches the handlers as an event, so that nothing is missed and nothing is seen
twice in the same state.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Literal

import aiohttp

from cumulet.common.kubernetes.client import (
    METADATA_LIST_ONLY,
    METADATA_ONLY,
    Client,
    KubernetesError,
    Object,
    Resource,
)
from cumulet.common.tasks import Backoff

log = logging.getLogger(__name__)

Change = Literal["ADDED", "MODIFIED", "DELETED"]
Handler = Callable[[Change, Object, Object | None], None]
Key = tuple[str, str]
IndexKeys = Callable[[Object], Iterable[Hashable]]


def key_of(obj: Object) -> Key:
    """(namespace, name); the namespace of a cluster's object is empty."""
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


class Informer:
    """Keeps `items` equal to what the server has. `run` it in a task; handlers are called in order, on the loop.

    A handler gets the change, the object, and the one that was there before. It must not wait and must not raise;
    it usually puts a key in a work queue.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str | None = None,
        field_selector: str | None = None,
        metadata_only: bool = False,
    ) -> None:
        self.resource = resource
        self.items: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._client = client
        self._list_accept = METADATA_LIST_ONLY if metadata_only else None
        self._watch_accept = METADATA_ONLY if metadata_only else None
        self._namespace = namespace
        self._handlers: list[Handler] = []
        self._indexes: dict[str, tuple[IndexKeys, dict[Hashable, dict[Key, Object]]]] = {}
        self._selectors: dict[str, str] = {}
        if label_selector:
            self._selectors["labelSelector"] = label_selector
        if field_selector:
            self._selectors["fieldSelector"] = field_selector

    def add_handler(self, handler: Handler) -> None:
        """Call `handler` for every change from now on; what is already here is handed over at once."""
        self._handlers.append(handler)
        for obj in list(self.items.values()):
            handler("ADDED", obj, None)

    def add_index(self, name: str, keys: IndexKeys) -> None:
        """Have `indexed(name, key)` find what `keys` gives that key; a name that is taken is left as it is."""
        if name in self._indexes:
            return
        self._indexes[name] = keys, {}
        for key, obj in self.items.items():
            for value in keys(obj):
                self._indexes[name][1].setdefault(value, {})[key] = obj

    def indexed(self, name: str, key: Hashable) -> list[Object]:
        """The objects under one key of an index."""
        return list(self._indexes[name][1].get(key, {}).values())

    def get(self, name: str, namespace: str = "") -> Object | None:
        """The object of that name, or `None`."""
        return self.items.get((namespace, name))

    def __iter__(self) -> Iterator[Object]:
        return iter(list(self.items.values()))

    def clear(self) -> None:
        """Be rid of every object, as if each were deleted."""
        for obj in self:
            self._apply("DELETED", obj)

    async def resync(self, seconds: float) -> None:
        """Hand everything to the handlers again from time to time, until cancelled: what one overlooked is made good."""
        while True:
            await asyncio.sleep(seconds * (1 + random.random() / 10))
            for obj in self:
                for handler in self._handlers:
                    handler("MODIFIED", obj, obj)

    async def run(self) -> None:
        """List and watch until cancelled; the server being away is waited out."""
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
        found: dict[Key, Object] = {}
        for item in answer["items"]:
            item.setdefault("apiVersion", self.resource.api_version)
            item.setdefault("kind", self.resource.kind)
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
        # Spread the ends, so that many watches do not come back at one moment.
        params = {
            **self._selectors,
            "resourceVersion": version,
            "timeoutSeconds": str(random.randint(300, 600)),
        }
        async for change, obj in self._client.watch(
            self.resource, self._namespace, params=params, accept=self._watch_accept
        ):
            version = obj["metadata"]["resourceVersion"]
            if change in ("ADDED", "MODIFIED", "DELETED"):
                self._apply(change, obj)  # type: ignore[arg-type]
        return version

    def _apply(self, change: Change, obj: Object) -> None:
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

    def _reindex(self, key: Key, old: Object | None, new: Object | None) -> None:
        for keys, found in self._indexes.values():
            before = set(keys(old)) if old is not None else set()
            after = set(keys(new)) if new is not None else set()
            for value in before - after:
                entry = found[value]
                del entry[key]
                if not entry:
                    del found[value]
            for value in after:
                found.setdefault(value, {})[key] = new  # type: ignore[assignment]
