"""Deletion of custom resource definitions: first their objects, then the definition."""

from __future__ import annotations

import asyncio
import logging

from cumulet.common.kubernetes.objects import Object
from cumulet.kube.apimachinery.status import ApiError
from cumulet.kube.catalog.custom_definitions import FINALIZER, KEY
from cumulet.kube.catalog.resources import BY_KEY
from cumulet.kube.catalog.served_resources import Catalog
from cumulet.kube.objects.write import Objects
from cumulet.kube.store import Store

log = logging.getLogger(__name__)


class CustomDefinitionFinalizer:
    """Runs beside the server; unfinished deletions continue after the next start."""

    def __init__(self, store: Store, objects: Objects, catalog: Catalog) -> None:
        self._store = store
        self._objects = objects
        self._catalog = catalog
        self._wake = asyncio.Event()
        self._followed: set[str] = set()
        self._wake.set()
        store.on_change(KEY, self._wake.set)

    async def run(self) -> None:
        """Run until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            for stored in list(self._store.list(KEY)):
                if b'"deletionTimestamp"' not in stored.body:  # a definition may be large
                    continue
                definition = stored.load()
                metadata = definition["metadata"]
                if not metadata.get("deletionTimestamp") or FINALIZER not in (metadata.get("finalizers") or ()):
                    continue
                try:
                    await self._clean(definition)
                except ApiError as error:
                    # Another writer was faster; that change has set the event already.
                    log.info("custom resource definition %s: %s", stored.name, error)

    async def _clean(self, definition: Object) -> None:
        name = definition["metadata"]["name"]
        row = next((row for row in self._catalog.rows if row.custom is not None and row.key == name), None)
        if row is not None:
            if name not in self._followed:
                self._followed.add(name)
                self._store.on_change(name, self._wake.set)
            for stored in list(self._store.list(name)):
                if not stored.load()["metadata"].get("deletionTimestamp"):
                    await self._objects.delete(row, stored.namespace, stored.name, {})
            if self._store.count(name):
                return
        await self._objects.rewrite(BY_KEY[KEY], "", name, _without_finalizer)


def _without_finalizer(definition: Object) -> Object:
    metadata = definition["metadata"]
    metadata["finalizers"] = [item for item in metadata.get("finalizers") or () if item != FINALIZER]
    metadata["deletionGracePeriodSeconds"] = 0
    return definition
