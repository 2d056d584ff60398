"""The routes of the provider."""

from __future__ import annotations

from aiohttp import web

from cumulet.registry.access.gate import Gate
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.garbage_collection import Collector
from cumulet.registry.provider.cache import CacheRules, CredentialSets
from cumulet.registry.provider.imports import Imports
from cumulet.registry.provider.maintenance import Maintenance
from cumulet.registry.provider.registries import Registries
from cumulet.registry.provider.scope_maps import ScopeMaps
from cumulet.registry.provider.tokens import RepositoryTokens
from cumulet.registry.provider.webhooks import Addresses, Webhooks
from cumulet.registry.upstream.pull_through_cache import PullThrough
from cumulet.registry.webhooks.deliveries import Deliveries
from cumulet.registry.webhooks.events import Events


def routes(
    catalog: Catalog,
    gate: Gate,
    collector: Collector,
    registries: Registries,
    events: Events,
    deliveries: Deliveries,
    imports: Imports,
    pull_through: PullThrough,
) -> list[web.RouteDef]:
    """The routes of registries, their actions and their child resources."""
    parts = (
        registries,
        Maintenance(catalog, collector),
        ScopeMaps(catalog),
        RepositoryTokens(catalog),
        imports,
        CacheRules(catalog, pull_through),
        CredentialSets(catalog, gate.tokens, pull_through),
        Webhooks(catalog, Addresses(catalog, gate.tokens), events, deliveries),
    )
    return [route for part in parts for route in part.routes()]
