"""The action `collectGarbage` of the resource `Microsoft.ContainerRegistry/registries`.

Azure collects automatically and has no such action. Here it is an action behind the front door, so that it
requires a right on the registry and none on the machine.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.provider import paths


class _Request(msgspec.Struct, rename="camel"):
    dry_run: bool = False


class Maintenance:
    """Serves the action `collectGarbage`."""

    def __init__(self, catalog: Catalog, collector: Collector) -> None:
        self._catalog = catalog
        self._collector = collector

    def routes(self) -> list[web.RouteDef]:
        """The route of the action."""
        return [web.post(f"{paths.REGISTRY}/{paths.word('collectGarbage')}", self._collect)]

    async def _collect(self, request: web.Request) -> web.Response:
        """Collect in one registry, or with `{"dryRun": true}` only count, and answer with a `Report`."""
        registry = paths.existing(self._catalog, request)
        try:
            dry_run = msgspec.convert(await read_json(request), _Request).dry_run
        except msgspec.ValidationError:
            message = "dryRun must be true or false."
            raise ArmError(400, "InvalidRequestContent", message, target="dryRun") from None
        return json_response(await self._collector.collect(registry, dry_run=dry_run))
