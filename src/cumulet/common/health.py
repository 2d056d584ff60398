"""What every room answers about itself: `/healthz`, `/readyz` and `/metrics` (Prometheus' text format)."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest


def health_routes(metrics: CollectorRegistry, unready: Callable[[], str | None] = lambda: None) -> list[web.RouteDef]:
    """`unready` gives the reason why requests are not served in full just now, or `None`."""
    ProcessCollector(registry=metrics)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def readyz(_: web.Request) -> web.Response:
        reason = unready()
        return web.Response(text="ok") if reason is None else web.Response(text=reason, status=503)

    async def metrics_(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics), headers={"Content-Type": "text/plain; version=0.0.4"})

    return [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics_)]
