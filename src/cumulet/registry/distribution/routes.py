"""The routes of `/v2/…`: the resource of a path, the right that it requires, and its handler."""

from __future__ import annotations

import re

from aiohttp import web

from cumulet.registry.access import request_context
from cumulet.registry.access.guard import Guard
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Registry
from cumulet.registry.distribution.blobs import Blobs
from cumulet.registry.distribution.manifests import Manifests
from cumulet.registry.distribution.uploads import Uploads
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, unsupported
from cumulet.registry.upstream.pull_through_cache import PullThrough

_PATH = re.compile(
    r"/v2/(?P<name>.+)/(?:"
    r"(?P<tags>tags/list)|manifests/(?P<manifest>[^/]+)|referrers/(?P<referrers>[^/]+)"
    r"|blobs/uploads/(?P<upload>[^/]*)|blobs/(?P<blob>[^/]+))"
)
_READS = ("GET", "HEAD")
_ACTIONS = {"GET": ("pull",), "HEAD": ("pull",), "DELETE": ("delete",)}
_API = {"Docker-Distribution-Api-Version": "registry/2.0"}


class Distribution:
    """Serves `/v2/`."""

    def __init__(
        self,
        guard: Guard,
        blobs: Blobs,
        uploads: Uploads,
        manifests: Manifests,
        pushes: RunningPushes,
        pull_through: PullThrough,
    ) -> None:
        self._guard = guard
        self._blobs = blobs
        self._uploads = uploads
        self._manifests = manifests
        self._pushes = pushes
        self._pull_through = pull_through

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        path = names.decoded(request.rel_url.raw_path)
        registry = self._guard.registry(request)
        if path in ("/v2/", "/v2"):
            await self._guard.demand(request, registry, "registry", "", "pull")
            return web.Response(text="{}", content_type="application/json", headers=_API)
        if path == "/v2/_catalog":
            await self._guard.demand(request, registry, "registry", "catalog", "*")
            if request.method not in _READS:
                raise unsupported(request.method)
            return await self._manifests.catalog(request, registry)
        match = _PATH.fullmatch(path)
        if match is None:
            raise OciError(404, "NAME_INVALID", f"no resource has the path {path[:200]!r}")
        name = names.repository(match["name"])
        is_upload = match["upload"] is not None
        actions = ("pull", "push") if is_upload else _ACTIONS.get(request.method, ("pull", "push"))
        principal = await self._guard.demand(request, registry, "repository", name, *actions)
        if request.method in _READS and self._pull_through.rule(registry, name) is not None:
            # The response must not be cached: the other registry may change without a write here.
            request_context.of(request).token_ends = None
            if match["manifest"]:
                await self._pull_through.manifest(registry, name, match["manifest"], principal)
            elif match["blob"]:
                await self._pull_through.blob(registry, name, match["blob"], principal)
        if request.method == "GET" and not is_upload:
            return await self._dispatch(request, registry, name, match, principal)
        with self._pushes.request((registry.key, name), principal):
            return await self._dispatch(request, registry, name, match, principal)

    async def _dispatch(
        self, request: web.Request, registry: Registry, name: str, match: re.Match[str], principal: str
    ) -> web.StreamResponse:
        method = request.method
        if match["upload"]:
            return await self._uploads.resume(request, registry, name, principal, match["upload"])
        if match["upload"] is not None:
            if method == "POST":
                return await self._uploads.start(request, registry, name, principal)
        elif reference := match["manifest"]:
            match method:
                case "GET" | "HEAD":
                    return await self._manifests.get(request, registry, name, reference)
                case "PUT":
                    return await self._manifests.put(request, registry, name, reference)
                case "DELETE":
                    return await self._manifests.delete(request, registry, name, reference)
        elif digest := match["blob"]:
            if method in _READS:
                return await self._blobs.get(request, registry, name, digest)
            if method == "DELETE":
                return await self._blobs.delete(request, registry, name, digest)
        elif method in _READS:
            if match["tags"]:
                return await self._manifests.tags(request, registry, name)
            return await self._manifests.referrers(request, registry, name, match["referrers"])
        raise unsupported(method)
