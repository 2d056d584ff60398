"""The life of the room: open the store, create the objects of a new cluster, serve the API."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import sys
from typing import Any

import aiohttp
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector

from cumulet.common.doors import door
from cumulet.common.entra import TokenVerifier
from cumulet.common.health import metrics_response
from cumulet.common.room import Room
from cumulet.common.tls_loop import Loop
from cumulet.kube.access.authentication import Authenticator
from cumulet.kube.access.authorization import Authorizer
from cumulet.kube.access.users import ServiceAccountTokens
from cumulet.kube.admission import Admission
from cumulet.kube.admission.workload_identity import Cloud
from cumulet.kube.aggregation.resource_metrics import ResourceMetrics
from cumulet.kube.aggregation.servers import Aggregation
from cumulet.kube.api import Api
from cumulet.kube.bootstrap import bootstrap
from cumulet.kube.catalog.custom_conversion import Conversions
from cumulet.kube.catalog.served_resources import Catalog
from cumulet.kube.clients.kubelet import Kubelet
from cumulet.kube.clients.webhooks import WebhookClient
from cumulet.kube.flow import Flows
from cumulet.kube.http.audit import AuditLog
from cumulet.kube.objects.custom_definition_finalizer import CustomDefinitionFinalizer
from cumulet.kube.objects.get_list import Reads
from cumulet.kube.objects.service_allocator import ServiceAllocator
from cumulet.kube.objects.write import Objects
from cumulet.kube.store import Store
from cumulet.kube.subresources.eviction import Evictions
from cumulet.kube.subresources.proxy import Proxy
from cumulet.kube.subresources.routes import Subresources

#: The seconds between compactions, which also bound the history, as in upstream.
_COMPACTION = 300.0
#: Thousands of watchers are written to; that costs half where OpenSSL writes to the socket itself.
new_event_loop = Loop
_ENTRA_TIMEOUT = aiohttp.ClientTimeout(total=10)


async def serve(room: Room) -> None:
    """Serve until the room stops."""
    store = Store(room.data_dir / "kube.db", room.data_dir / "secrets.key")
    store.open()
    egress = room.config.egress(reach_pods=True)
    webhooks = WebhookClient(store, egress)
    conversions = Conversions(webhooks)
    cloud = Cloud(room.config.tenant_id, f"{door(room.config, 'identity').url}/")
    admission = Admission(store, webhooks, conversions, cloud)
    objects = Objects(store, admission, ServiceAllocator(store, room.config.service_cidr), conversions)
    await bootstrap(objects, room.config, str(next(ipaddress.ip_network(room.config.service_cidr).hosts())))
    tokens = ServiceAccountTokens(room.data_dir / "service-accounts.key", store, room.config.oidc_issuer)
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=room.client_tls()), timeout=_ENTRA_TIMEOUT)
    verifier = TokenVerifier(session, room.config.url("identity"), room.config.tenant_id)
    authenticator = Authenticator(tokens, verifier)
    authorizer = Authorizer(store)
    kubelet = Kubelet(
        store,
        room.client_tls(trust="kubelet-serving", show=room.config.kubelet_client_files),
        room.config.addresses,
        room.config.listening("node"),
    )
    proxy = Proxy(store, objects, kubelet, egress)
    metrics = CollectorRegistry()
    ProcessCollector(registry=metrics)
    counters = (
        Counter("apiserver_request", "Requests answered", ["verb", "code"], registry=metrics),
        Histogram("apiserver_request_duration_seconds", "Time to answer", ["verb"], registry=metrics),
    )
    catalog = Catalog(store)
    admission.list_rows_with(lambda: catalog.rows)
    aggregation = Aggregation(store, objects, room.config.front_proxy_files, egress)
    room.on_reload(aggregation.reload)
    catalog.is_remote = lambda group, version: aggregation.find(group, version) is not None
    audit = AuditLog(room.data_dir / "audit.log")
    audit.open()
    cleanup = asyncio.create_task(CustomDefinitionFinalizer(store, objects, catalog).run())
    api = Api(
        catalog,
        objects,
        Reads(store, room.stopping, conversions),
        Subresources(objects, Evictions(store, objects), authorizer, tokens, authenticator, kubelet, proxy),
        authorizer,
        tokens,
        authenticator,
        Flows(store),
        audit,
        ResourceMetrics(store, kubelet),
        aggregation,
        counters,
        lambda: metrics_response(metrics),
    )

    handler: Any = api.handle
    looking = asyncio.create_task(aggregation.run())
    compaction = asyncio.create_task(_compact(store, room.stopping))
    _settle()
    try:
        async with room.serving(handler, clients="cluster"):
            room.ready()
            await room.stopping.wait()
    finally:
        cleanup.cancel()
        compaction.cancel()
        looking.cancel()
        await asyncio.gather(cleanup, compaction, looking, return_exceptions=True)
        await aggregation.close()
        await kubelet.close()
        await proxy.close()
        await webhooks.close()
        await session.close()
        audit.close()
        store.close()


async def _compact(store: Store, stopping: asyncio.Event) -> None:
    while not stopping.is_set():
        revision = store.revision
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_COMPACTION):
                await stopping.wait()
        await store.compact(revision)


def _settle() -> None:
    """Tune the interpreter: collect garbage less often, and let the committing thread continue soon."""
    gc.set_threshold(20_000, 20, 100)
    sys.setswitchinterval(0.001)
