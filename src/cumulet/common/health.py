"""What every room answers about itself: `/healthz`, `/readyz` and `/metrics` (Prometheus' text format).

The probes are open to anybody and say whether the room is well, and nothing else. Metrics tell who calls and how often:
they are for the scraper, which shows the certificate `metrics` of the installation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from cumulet.common.room import is_scraper, shows_certificate

log = logging.getLogger(__name__)

#: The routes that need no further guard: the probes are open, and metrics ask for the scraper.
PROBES = frozenset({"/healthz", "/readyz"})
HEALTH = PROBES | {"/metrics"}


def require_scraper(request: web.BaseRequest) -> None:
    """Raises `HTTPUnauthorized` where no certificate was shown, `HTTPForbidden` where it is not the scraper's."""
    if not shows_certificate(request):
        raise web.HTTPUnauthorized(text="Metrics are for the scraper: show its certificate.")
    if not is_scraper(request):
        raise web.HTTPForbidden(text="Metrics are for the scraper: this certificate is another's.")


def metrics_response(metrics: CollectorRegistry) -> web.Response:
    """The metrics as Prometheus reads them."""
    return web.Response(body=generate_latest(metrics), headers={"Content-Type": "text/plain; version=0.0.4"})


def health_routes(
    metrics: CollectorRegistry,
    unready: Callable[[], str | None] = lambda: None,
    demand_scraper: Callable[[web.BaseRequest], None] = require_scraper,
) -> list[web.RouteDef]:
    """`unready` gives the reason why requests are not served in full just now, or `None`. It is for the log and for the
    scraper; others hear that the room is not ready.

    `demand_scraper` raises where the caller may not read metrics.
    """
    ProcessCollector(registry=metrics)
    said: list[str | None] = [None]

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(request: web.Request) -> web.Response:
        reason = unready()
        if reason != said[0]:
            said[0] = reason
            log.info("not ready: %s", reason) if reason else log.info("ready")
        if reason is None:
            return web.Response(text="ok")
        return web.Response(text=reason if is_scraper(request) else "not ready", status=503)

    async def metrics_(request: web.Request) -> web.Response:
        demand_scraper(request)
        return metrics_response(metrics)

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_)]
