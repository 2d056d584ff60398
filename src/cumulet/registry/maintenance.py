"""Looking after a registry: the action `collectGarbage` of the resource `Microsoft.ContainerRegistry/registries`.

Azure collects by itself and has no such action. It is one here, and behind the front door like the others, so that it takes a
right on the registry and not on the machine.
"""

from __future__ import annotations

from aiohttp import web

from cumulet.common.arm import ArmError, json_response, read_json
from cumulet.registry.collection import Collector
from cumulet.registry.store import Catalog

_PATH = (
    "/{subscriptions:(?i:subscriptions)}/{subscription}/{groups:(?i:resourceGroups)}/{group}"
    r"/providers/{namespace:(?i:Microsoft\.ContainerRegistry)}/{type:(?i:registries)}/{name}"
    "/{verb:(?i:collectGarbage)}"
)


class Maintenance:
    """Serves the action."""

    def __init__(self, catalog: Catalog, collector: Collector) -> None:
        self._catalog = catalog
        self._collector = collector

    def routes(self) -> list[web.RouteDef]:
        """What is served."""
        return [web.post(_PATH, self._collect)]

    async def _collect(self, request: web.Request) -> web.Response:
        """Collect in one registry, with `{"dryRun": true}` only in thought; answers what (`collection.Report`)."""
        dry_run = (await read_json(request)).get("dryRun", False)
        if not isinstance(dry_run, bool):
            raise ArmError(400, "InvalidRequestContent", "dryRun must be true or false.", target="dryRun")
        path = request.path.rpartition("/")[0].lower()
        for registry in self._catalog.registries():
            if registry.id.lower() == path:
                return json_response(await self._collector.collect(registry, dry_run=dry_run))
        name = request.match_info["name"]
        raise ArmError(
            404, "ResourceNotFound", f"The Resource 'Microsoft.ContainerRegistry/registries/{name}' was not found."
        )
