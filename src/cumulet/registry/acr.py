"""ACR's own data plane, `/acr/v1/…`, as `az acr repository` and the container registry SDK read it."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common.arm import json_response
from cumulet.registry import names
from cumulet.registry.errors import OciError, not_found
from cumulet.registry.guard import Guard
from cumulet.registry.manifests import page, paged
from cumulet.registry.store import Catalog, Manifest, Registry

_PATH = re.compile(r"/acr/v1/(?P<name>.+?)(?:/(?P<kind>_tags|_manifests)(?:/(?P<reference>[^/]+))?)?")


class Acr:
    """Serves `/acr/v1/`."""

    def __init__(self, catalog: Catalog, guard: Guard, login_server_suffix: str) -> None:
        self._catalog = catalog
        self._guard = guard
        self._suffix = login_server_suffix

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request."""
        registry = self._guard.registry(request)
        path = request.rel_url.raw_path
        if path == "/acr/v1/_catalog":
            await self._guard.demand(request, registry, "registry", "catalog", "*")
            count, after = page(request)
            found = self._catalog.repositories(registry.key, after, count + 1)
            return paged({"repositories": found[:count]}, found, count, path)
        match = _PATH.fullmatch(path)
        if match is None:
            raise OciError(404, "NAME_INVALID", f"there is nothing at {path[:200]}")
        name = names.repository(match["name"])
        if request.method == "DELETE":
            return await self._delete(request, registry, name, match["kind"], match["reference"])
        if request.method not in ("GET", "HEAD"):
            raise OciError(405, "UNSUPPORTED", f"{request.method} is not supported here")
        await self._guard.demand(request, registry, "repository", name, "metadata_read")
        repository = self._catalog.repository(registry.key, name)
        if repository is None:
            raise not_found("NAME_UNKNOWN", f"repository {name} is not found")
        head = {"registry": f"{registry.key}.{self._suffix}", "imageName": name}
        match match["kind"]:
            case "_tags":
                return self._tags(request, registry, name, match["reference"], head)
            case "_manifests":
                return self._manifests(request, registry, name, match["reference"], head)
        return json_response(
            {
                **head,
                "createdTime": repository.created,
                "lastUpdateTime": repository.updated,
                "manifestCount": repository.manifests,
                "tagCount": repository.tags,
                "changeableAttributes": repository.attributes,
            }
        )

    def _tags(
        self, request: web.Request, registry: Registry, name: str, tag: str | None, head: dict[str, Any]
    ) -> web.Response:
        count, after = page(request)
        found = self._catalog.tags(registry.key, name, "" if tag else after, -1 if tag else count + 1, tag)
        shown = [
            {
                "name": row.name,
                "digest": row.digest,
                "createdTime": row.created,
                "lastUpdateTime": row.updated,
                "signed": False,
                "changeableAttributes": row.attributes,
            }
            for row in found
        ]
        if tag is None:
            return paged({**head, "tags": shown[:count]}, [row[0] for row in found], count, request.path)
        if not shown:
            raise not_found("TAG_UNKNOWN", f"the specified tag {tag} does not exist")
        return json_response({**head, "tag": shown[0]})

    def _manifests(
        self, request: web.Request, registry: Registry, name: str, digest: str | None, head: dict[str, Any]
    ) -> web.Response:
        labels: dict[str, list[str]] = {}
        for label, tagged, *_ in self._catalog.tags(registry.key, name):
            labels.setdefault(tagged, []).append(label)
        if digest is not None:
            manifest = self._catalog.manifest(registry.key, name, names.digest(digest))
            if manifest is None:
                raise not_found("MANIFEST_UNKNOWN", f"manifest {digest} is not found")
            return json_response({**head, "manifest": _show(manifest, labels)})
        count, after = page(request)
        found = self._catalog.manifests(registry.key, name, after, count + 1)
        body = {**head, "manifests": [_show(manifest, labels) for manifest in found[:count]]}
        return paged(body, [manifest.digest for manifest in found], count, request.path)

    async def _delete(
        self, request: web.Request, registry: Registry, name: str, kind: str | None, reference: str | None
    ) -> web.Response:
        await self._guard.demand(request, registry, "repository", name, "delete")
        if kind is None:
            gone = await self._catalog.remove_repository(registry.key, name)
        elif kind == "_tags" and reference is not None:
            gone = await self._catalog.remove_tag(registry.key, name, names.tag(reference))
        else:
            raise OciError(405, "UNSUPPORTED", "delete manifests by /v2/")
        if not gone:
            raise not_found("NAME_UNKNOWN", f"{reference or name} is not found")
        return web.Response(status=202)


def _show(manifest: Manifest, labels: dict[str, list[str]]) -> dict[str, Any]:
    document = msgspec.json.decode(manifest.body)
    config = document.get("config") or {}
    size = (
        len(manifest.body)
        + config.get("size", 0)
        + sum(layer.get("size", 0) for layer in document.get("layers") or [])
    )
    return {
        "digest": manifest.digest,
        "imageSize": size,
        "createdTime": manifest.created,
        "lastUpdateTime": manifest.created,
        "mediaType": manifest.media_type,
        "configMediaType": config.get("mediaType"),
        "tags": labels.get(manifest.digest, []),
        "changeableAttributes": manifest.attributes,
    }
