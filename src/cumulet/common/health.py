"""The health endpoints of every room: `/healthz`, `/readyz` and `/metrics` (Prometheus' text format).

Anyone can call the probes, which report only whether the room is healthy. Metrics show who calls and how often. They
are only for the scraper, which presents the certificate `metrics` of the installation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from cumulet.common.room import is_scraper, shows_certificate

log = logging.getLogger(__name__)

#: The routes that need no other guard: the probes are open, and `/metrics` requires the scraper's certificate.
PROBES = frozenset({"/healthz", "/readyz"})
HEALTH = PROBES | {"/metrics"}


def require_scraper(request: web.BaseRequest) -> None:
    """Raises `HTTPUnauthorized` without a certificate, and `HTTPForbidden` if it is not the scraper's."""
    if not shows_certificate(request):
        raise web.HTTPUnauthorized(text="Metrics are for the scraper. Present its certificate.")
    if not is_scraper(request):
        raise web.HTTPForbidden(text="Metrics are for the scraper. This is another certificate.")


def metrics_response(metrics: CollectorRegistry) -> web.Response:
    """Return the metrics in Prometheus' text format."""
    return web.Response(body=generate_latest(metrics), headers={"Content-Type": "text/plain; version=0.0.4"})


def health_routes(
    metrics: CollectorRegistry,
    unready: Callable[[], str | None] = lambda: None,
    demand_scraper: Callable[[web.BaseRequest], None] = require_scraper,
) -> list[web.RouteDef]:
    """Return the routes of the health endpoints.

    `unready` returns the reason why the room cannot serve all requests, or `None`. The log and the scraper get the
    reason, and other clients only that the room is not ready. `demand_scraper` raises if the caller may not read metrics.
    """
    ProcessCollector(registry=metrics)
    logged: list[str | None] = [None]

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(request: web.Request) -> web.Response:
        reason = unready()
        if reason != logged[0]:
            logged[0] = reason
            log.info("not ready: %s", reason) if reason else log.info("ready")
        if reason is None:
            return web.Response(text="ok")
        return web.Response(text=reason if is_scraper(request) else "not ready", status=503)

    async def metrics_(request: web.Request) -> web.Response:
        demand_scraper(request)
        return metrics_response(metrics)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_)]
