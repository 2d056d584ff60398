"""Looking after a registry: the action `collectGarbage` of the resource `Microsoft.ContainerRegistry/registries`.

Azure collects by itself and has no such action. It is one here, and behind the front door like the others, so that it takes a
right on the registry and not on the machine.
"""

from __future__ import annotations

from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.provider import paths


class Maintenance:
    """Serves the action."""

    def __init__(self, catalog: Catalog, collector: Collector) -> None:
        self._catalog = catalog
        self._collector = collector

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [web.post(f"{paths.REGISTRY}/{paths.word('collectGarbage')}", self._collect)]

    async def _collect(self, request: web.Request) -> web.Response:
        """Collect in one registry, with `{"dryRun": true}` only in thought; answers what (`garbage_collection.Report`)."""
        registry = paths.existing(self._catalog, request)
        dry_run = (await read_json(request)).get("dryRun", False)
        if not isinstance(dry_run, bool):
            raise ArmError(400, "InvalidRequestContent", "dryRun must be true or false.", target="dryRun")
        return json_response(await self._collector.collect(registry, dry_run=dry_run))
