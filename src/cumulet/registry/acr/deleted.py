"""Listing and restoring soft-deleted manifests, as `az acr manifest list-deleted|restore` do."""

from __future__ import annotations

import re

import msgspec
from aiohttp import web
from msgspec import UNSET

from cumulet.common.arm import json_response
from cumulet.common.ascii import fold
from cumulet.registry.access.guard import Guard
from cumulet.registry.acr import representations
from cumulet.registry.acr.bodies import read_body
from cumulet.registry.acr.pagination import Page, link
from cumulet.registry.catalog.store import Catalog, Registry
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, not_found, unsupported

_PATH = re.compile(r"(?P<name>.+?)/(?P<kind>_tags|_manifests)(?:/(?P<digest>[^/]+))?")


class _Restore(msgspec.Struct):
    tag: str | None = None


class Deleted:
    """Serves `/acr/v1/_deleted/`."""

    def __init__(self, catalog: Catalog, guard: Guard) -> None:
        self._catalog = catalog
        self._guard = guard

    async def handle(self, request: web.Request, registry: Registry, path: str) -> web.Response:
        """Answer one request. `path` is the part after the prefix. Raises `OciError`."""
        match = _PATH.fullmatch(path)
        if request.method == "POST" and match is not None and match["kind"] == "_manifests" and match["digest"]:
            return await self._restore(request, registry, match["name"], match["digest"])
        if request.method not in ("GET", "HEAD"):
            await self._guard.demand(request, registry, "registry", "", "pull")
            raise unsupported(request.method)
        page = Page.of(request)
        if path == "_catalog":
            await self._guard.demand(request, registry, "registry", "deleted_catalog", "*")
            repositories = self._catalog.deleted_repositories(registry.key, page.last, page.count + 1)
            body = representations.RepositoriesDocument(repositories[: page.count])
            return json_response(body, headers=link(request, page, repositories))
        if match is None or match["digest"]:
            raise OciError(404, "NAME_INVALID", f"no resource has the path {path[:200]!r}")
        name = names.repository(match["name"])
        await self._guard.demand(request, registry, "repository", name, "deleted_read")
        if match["kind"] == "_tags":
            tags = self._catalog.deleted_tags(registry.key, name, page.last, page.count + 1)
            return json_response(
                representations.DeletedTagsDocument(
                    [representations.deleted_tag(item) for item in tags[: page.count]]
                ),
                headers=link(request, page, [item.name for item in tags]),
            )
        manifests = self._catalog.deleted_manifests(registry.key, name, page.last, page.count + 1)
        return json_response(
            representations.DeletedManifestsDocument(
                [representations.deleted_manifest(item) for item in manifests[: page.count]]
            ),
            headers=link(request, page, [item.digest for item in manifests]),
        )

    async def _restore(self, request: web.Request, registry: Registry, name: str, digest: str) -> web.Response:
        """Restore a manifest with the tag in the body, or its former tags. `force` moves tags of other manifests."""
        name, digest = names.repository(name), names.digest(digest)
        await self._guard.demand(request, registry, "repository", name, "deleted_restore")
        tag = (await read_body(request, _Restore)).tag
        force = fold(request.query.get("force", "")) == "true"
        tags = [names.tag(tag)] if tag else []
        if not await self._catalog.restore_manifest(registry.key, name, digest, tags, force=force):
            raise not_found("MANIFEST_UNKNOWN", f"no deleted manifest {digest} is in {name}")
        return json_response(representations.RestorationDocument(name, digest, tag if tag is not None else UNSET))
