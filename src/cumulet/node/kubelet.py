"""The kubelet's HTTP API, for the API server only: pods, statistics, logs. `streams` has the streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.arm import ArmError
from cumulet.common.entra import AuthenticationError
from cumulet.common.health import PROBES, health_routes
from cumulet.common.room import peer_certificate
from cumulet.node.access import Access
from cumulet.node.aci import ContainerGroups
from cumulet.node.containers import container_status
from cumulet.node.pods import Pods
from cumulet.node.stats import Stats
from cumulet.node.streams import Streams
from cumulet.node.translate import group_name

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: The text of upstream's kubelet for a container without a log, by the reason.
_PULL_FAILED = {"ErrImagePull": "image can't be pulled", "ImagePullBackOff": "trying and failing to pull image"}
ACCESS = web.AppKey("access", Access)


class Kubelet:
    """Serves the logs, streams and statistics of pods from their groups."""

    def __init__(self, pods: Pods, groups: ContainerGroups, stats: Stats, streams: Streams) -> None:
        self._pods = pods
        self._groups = groups
        self._stats = stats
        self._streams = streams

    def app(self, unready: Callable[[], str | None]) -> web.Application:
        """Return the application. `unready` returns why the node is not ready, or `None`."""
        app = web.Application(middlewares=[_authorize])
        app.add_routes(health_routes(CollectorRegistry(), unready, _access_checked))
        container = "{namespace}/{pod}/{container}"
        app.add_routes(
            [
                web.get("/pods", self._list),
                web.get("/runningpods/", self._list),
                web.get("/stats/summary", self._summary),
                web.get("/metrics/resource", self._metrics),
                web.get(f"/containerLogs/{container}", self._logs),
            ]
        )
        # WebSockets start with GET, SPDY with POST.
        for add in (web.get, web.post):
            app.router.add_routes([add(f"/exec/{container}", self._streams.execute)])
            app.router.add_routes([add(f"/attach/{container}", self._streams.attach)])
            app.router.add_routes([add("/portForward/{namespace}/{pod}", self._streams.forward)])
        return app

    async def _list(self, request: web.Request) -> web.Response:
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.pods)}
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _summary(self, request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(await self._stats.summary()), content_type="application/json")

    async def _metrics(self, request: web.Request) -> web.Response:
        text = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=await self._stats.metrics(), headers=text)

    def _container(self, request: web.Request) -> str:
        """Return `{group}/containers/{container}` of a container that has a log.

        Raises `HTTPNotFound` and `HTTPBadRequest` with the kubelet's texts (`validateContainerLogStatus`).
        """
        info = request.match_info
        name = info["container"]
        pod = self._pods.pods.get(info["pod"], info["namespace"])
        if pod is None:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" is not on this node')
        which = f'container "{name}" in pod "{info["pod"]}"'
        status = container_status(pod, name)
        if status is None:
            raise web.HTTPBadRequest(text=f"{which} is not available")
        waiting = status["state"].get("waiting")
        ended_before = "terminated" in status["lastState"]
        if request.query.get("previous") == "true":
            if not ended_before:
                raise web.HTTPBadRequest(text=f"previous terminated {which} not found")
        elif not ended_before and "containerID" not in status and (terminated := status["state"].get("terminated")):
            raise web.HTTPBadRequest(text=f"{which} is terminated: {terminated.get('message', '')}")
        elif waiting and not ended_before:
            reason = waiting.get("reason", "")
            raise web.HTTPBadRequest(text=f"{which} is waiting to start: {_PULL_FAILED.get(reason, reason)}")
        return f"{group_name(pod)}/containers/{name}"

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        path = self._container(request)
        query = {"stream": "true"}
        for name, parameter in (
            ("follow", "follow"),
            ("previous", "previous"),
            ("sinceSeconds", "sinceSeconds"),
            ("sinceTime", "sinceTime"),
            ("timestamps", "timestamps"),
            ("tailLines", "tail"),
            ("limitBytes", "limitBytes"),
        ):
            if name in request.query:
                query[parameter] = request.query[name]
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        try:
            async for chunk in self._groups.stream(f"{path}/logs", query):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(chunk)
        except ArmError as error:
            why = str(error)
            if error.code == "PreviousContainerNotFound":
                info = request.match_info
                why = f'previous terminated container "{info["container"]}" in pod "{info["pod"]}" not found'
            raise web.HTTPBadRequest(text=why) from None
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response


def _access_checked(_: web.BaseRequest) -> None:
    """Return at once: the middleware has checked the right to read the node's metrics."""


@web.middleware
async def _authorize(request: web.Request, handler: Handler) -> web.StreamResponse:
    resource = request.match_info.route.resource
    if resource is None or resource.canonical not in PROBES:
        peer = peer_certificate(request)
        if peer is None:
            raise web.HTTPUnauthorized(text="Unauthorized")
        if why := await request.app[ACCESS].refusal(peer, request):
            raise web.HTTPForbidden(text=why)
    try:
        return await handler(request)
    except (AuthenticationError, aiohttp.ClientConnectionError) as error:
        raise web.HTTPServiceUnavailable(text=f"the provider does not answer: {error}") from None
