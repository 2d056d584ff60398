"""The routes of `/acr/v1/…`: the resource of a path, the right that it requires, and its response."""

from __future__ import annotations

import re
from collections.abc import Sequence

from aiohttp import web

from cumulet.common.arm import json_response
from cumulet.registry.access.guard import Guard
from cumulet.registry.acr import representations
from cumulet.registry.acr.bodies import read_body
from cumulet.registry.acr.deleted import Deleted
from cumulet.registry.acr.pagination import Page, by_time, link
from cumulet.registry.acr.platforms import Platforms
from cumulet.registry.acr.representations import (
    ManifestAttributes,
    ManifestDocument,
    ManifestsDocument,
    TagAttributes,
    TagDocument,
    TagsDocument,
)
from cumulet.registry.catalog.locks import AttributeChanges
from cumulet.registry.catalog.store import Catalog, Manifest, Registry, Tag
from cumulet.registry.content.store import Content
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, not_found, unsupported
from cumulet.registry.webhooks.events import Events

_PATH = re.compile(r"/acr/v1/(?P<name>.+?)(?:/(?P<kind>_tags|_manifests)(?:/(?P<reference>[^/]+))?)?")
_DELETED = "/acr/v1/_deleted/"
_RIGHTS = {"GET": "metadata_read", "HEAD": "metadata_read", "PATCH": "metadata_write", "DELETE": "delete"}


class Acr:
    """Serves `/acr/v1/`."""

    def __init__(
        self, catalog: Catalog, content: Content, guard: Guard, events: Events, login_server_suffix: str
    ) -> None:
        self._catalog = catalog
        self._guard = guard
        self._events = events
        self._suffix = login_server_suffix
        self._platforms = Platforms(catalog, content)
        self._deleted = Deleted(catalog, guard)

    async def handle(self, request: web.Request) -> web.Response:
        """Answer one request. Raises `OciError`."""
        registry = self._guard.registry(request)
        path = names.decoded(request.rel_url.raw_path)
        if path == "/acr/v1/_catalog":
            return await self._repositories(request, registry)
        if path.startswith(_DELETED):
            return await self._deleted.handle(request, registry, path.removeprefix(_DELETED))
        match = _PATH.fullmatch(path)
        if match is None:
            raise OciError(404, "NAME_INVALID", f"no resource has the path {path[:200]!r}")
        name, kind = names.repository(match["name"]), match["kind"]
        reference = _reference(kind, match["reference"])
        right = _RIGHTS.get(request.method)
        if right is None:
            await self._guard.demand(request, registry, "registry", "", "pull")
            raise unsupported(request.method)
        await self._guard.demand(request, registry, "repository", name, right)
        match request.method:
            case "DELETE":
                return await self._delete(request, registry, name, kind, reference)
            case "PATCH":
                return await self._patch(request, registry, name, kind, reference)
        return await self._get(request, registry, name, kind, reference)

    async def _repositories(self, request: web.Request, registry: Registry) -> web.Response:
        await self._guard.demand(request, registry, "registry", "catalog", "*")
        if request.method not in ("GET", "HEAD"):
            raise unsupported(request.method)
        page = Page.of(request)
        repositories = self._catalog.repositories(registry.key, page.last, page.count + 1)
        body = representations.RepositoriesDocument(repositories[: page.count])
        return json_response(body, headers=link(request, page, repositories))

    async def _get(
        self, request: web.Request, registry: Registry, name: str, kind: str | None, reference: str | None
    ) -> web.Response:
        repository = self._catalog.repository(registry.key, name)
        if repository is None:
            raise not_found("NAME_UNKNOWN", f"repository {name} is not found")
        server = self._login_server(registry)
        if kind is None:
            return json_response(representations.repository(representations.Head(server, name), repository))
        if kind == "_tags" and reference is not None:
            return json_response(TagDocument(server, name, self._tag(registry, name, reference)))
        if reference is not None:
            return json_response(ManifestDocument(server, name, await self._manifest(registry, name, reference)))
        page = Page.of(request)
        if kind == "_tags":
            tags = self._page_of_tags(request, registry, name, page)
            body = TagsDocument(server, name, [representations.tag(item) for item in tags[: page.count]])
            return json_response(body, headers=link(request, page, [item.name for item in tags]))
        manifests = self._page_of_manifests(registry, name, page)
        attributes = await self._attributes(registry, name, manifests[: page.count])
        more = link(request, page, [item.digest for item in manifests])
        return json_response(ManifestsDocument(server, name, attributes), headers=more)

    def _page_of_tags(self, request: web.Request, registry: Registry, name: str, page: Page) -> list[Tag]:
        digest = request.query.get("digest")
        if not page.order and digest is None:
            return self._catalog.tags(registry.key, name, page.last, page.count + 1)
        tags = self._catalog.tags(registry.key, name)
        if digest is not None:
            tags = [item for item in tags if item.digest == digest]
        if page.order:
            return by_time(tags, page, lambda item: item.name, lambda item: item.updated)
        return [item for item in tags if item.name > page.last][: page.count + 1]

    def _page_of_manifests(self, registry: Registry, name: str, page: Page) -> list[Manifest]:
        if not page.order:
            return self._catalog.manifests(registry.key, name, page.last, page.count + 1)
        times = self._catalog.manifest_times(registry.key, name)
        digests = by_time(times, page, lambda item: item[0], lambda item: item[1])
        manifests = (self._catalog.manifest(registry.key, name, digest) for digest, _ in digests)
        return [item for item in manifests if item is not None]

    def _tag(self, registry: Registry, name: str, tag: str) -> TagAttributes:
        """A tag. Raises `OciError` 404."""
        for item in self._catalog.tags(registry.key, name, name=tag):
            return representations.tag(item)
        raise not_found("TAG_UNKNOWN", f"the specified tag {tag} does not exist")

    async def _manifest(self, registry: Registry, name: str, digest: str) -> ManifestAttributes:
        """A manifest. Raises `OciError` 404."""
        manifest = self._catalog.manifest(registry.key, name, digest)
        if manifest is None:
            raise not_found("MANIFEST_UNKNOWN", f"manifest {digest} is not found")
        return (await self._attributes(registry, name, [manifest]))[0]

    async def _attributes(
        self, registry: Registry, name: str, manifests: Sequence[Manifest]
    ) -> list[ManifestAttributes]:
        tags: dict[str, list[str]] = {}
        for tag in self._catalog.tags(registry.key, name):
            tags.setdefault(tag.digest, []).append(tag.name)
        return [
            representations.manifest(
                item, tags.get(item.digest, []), await self._platforms.of(registry.key, name, item)
            )
            for item in manifests
        ]

    async def _patch(
        self, request: web.Request, registry: Registry, name: str, kind: str | None, reference: str | None
    ) -> web.Response:
        """Lock or unlock, and answer with the complete document."""
        if kind is not None and reference is None:
            raise unsupported(request.method)
        changes = await read_body(request, AttributeChanges)
        changed = await self._catalog.change_attributes(registry.key, name, reference, changes)
        if changed is None:
            unknown = "NAME_UNKNOWN" if kind is None else "TAG_UNKNOWN" if kind == "_tags" else "MANIFEST_UNKNOWN"
            raise not_found(unknown, f"{reference or name} is not found")
        return await self._get(request, registry, name, kind, reference)

    async def _delete(
        self, request: web.Request, registry: Registry, name: str, kind: str | None, reference: str | None
    ) -> web.Response:
        if kind is None:
            return await self._delete_repository(request, registry, name)
        if reference is None:
            raise unsupported(request.method)
        remove = self._catalog.remove_tag if kind == "_tags" else self._catalog.remove_manifest
        if not await remove(registry.key, name, reference):
            unknown = "TAG_UNKNOWN" if kind == "_tags" else "MANIFEST_UNKNOWN"
            raise not_found(unknown, f"{reference} is not found in {name}")
        # Removing a tag deletes no manifest, and causes no event.
        if kind == "_manifests":
            await self._events.deleted(request, registry, name, reference)
        return web.Response(status=202)

    async def _delete_repository(self, request: web.Request, registry: Registry, name: str) -> web.Response:
        tags = [tag.name for tag in self._catalog.tags(registry.key, name)]
        digests = [digest for digest, _ in self._catalog.manifest_times(registry.key, name)]
        if not await self._catalog.remove_repository(registry.key, name):
            raise not_found("NAME_UNKNOWN", f"repository {name} is not found")
        for digest in digests:
            await self._events.deleted(request, registry, name, digest)
        return json_response(representations.DeletionDocument(digests, tags), 202)

    def _login_server(self, registry: Registry) -> str:
        return f"{registry.key}.{self._suffix}"


def _reference(kind: str | None, text: str | None) -> str | None:
    """The tag or digest in a path. Raises `OciError` 400."""
    if text is None:
        return None
    return names.tag(text) if kind == "_tags" else names.digest(text)
