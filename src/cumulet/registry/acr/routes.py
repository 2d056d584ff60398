"""The paths of `/acr/v1/…`: what each names, the right that it takes, and its answer."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common.arm import json_response
from cumulet.registry.access.guard import Guard
from cumulet.registry.acr import representations
from cumulet.registry.acr.deleted import Deleted
from cumulet.registry.acr.pagination import Page, by_time, link
from cumulet.registry.acr.platforms import Platforms
from cumulet.registry.catalog.locks import AttributeChanges
from cumulet.registry.catalog.store import Catalog, Manifest, Registry, Tag
from cumulet.registry.content.store import Content
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, not_found
from cumulet.registry.webhooks.events import Events

_PATH = re.compile(r"/acr/v1/(?P<name>.+?)(?:/(?P<kind>_tags|_manifests)(?:/(?P<reference>[^/]+))?)?")
_DELETED = "/acr/v1/_deleted/"
_RIGHTS = {"GET": "metadata_read", "HEAD": "metadata_read", "PATCH": "metadata_write", "DELETE": "delete"}
_BODY_LIMIT = 64 * 1024


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
        """Answer one request."""
        registry = self._guard.registry(request)
        path = names.decoded(request.rel_url.raw_path)
        if path == "/acr/v1/_catalog":
            return await self._repositories(request, registry)
        if path.startswith(_DELETED):
            return await self._deleted.handle(request, registry, path.removeprefix(_DELETED))
        match = _PATH.fullmatch(path)
        if match is None:
            raise OciError(404, "NAME_INVALID", f"there is nothing at {path[:200]!r}")
        name, kind = names.repository(match["name"]), match["kind"]
        reference = _reference(kind, match["reference"])
        right = _RIGHTS.get(request.method)
        if right is None:
            await self._guard.demand(request, registry, "registry", "", "pull")
            raise _unsupported(request)
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
            raise _unsupported(request)
        wanted = Page.of(request)
        found = self._catalog.repositories(registry.key, wanted.last, wanted.count + 1)
        body = {"repositories": found[: wanted.count]}
        return json_response(body, headers=link(request, wanted, found))

    async def _get(
        self, request: web.Request, registry: Registry, name: str, kind: str | None, reference: str | None
    ) -> web.Response:
        repository = self._catalog.repository(registry.key, name)
        if repository is None:
            raise not_found("NAME_UNKNOWN", f"repository {name} is not found")
        head = self._head(registry, name)
        if kind is None:
            return json_response({**head, **representations.repository(repository)})
        if reference is not None:
            one = "tag" if kind == "_tags" else "manifest"
            return json_response({**head, one: await self._show(registry, name, reference)})
        wanted = Page.of(request)
        if kind == "_tags":
            tags = self._page_of_tags(request, registry, name, wanted)
            body = {**head, "tags": [representations.tag(item) for item in tags[: wanted.count]]}
            return json_response(body, headers=link(request, wanted, [item.name for item in tags]))
        manifests = self._page_of_manifests(registry, name, wanted)
        shown = await self._forms(registry, name, manifests[: wanted.count])
        more = link(request, wanted, [item.digest for item in manifests])
        return json_response({**head, "manifests": shown}, headers=more)

    def _page_of_tags(self, request: web.Request, registry: Registry, name: str, wanted: Page) -> list[Tag]:
        digest = request.query.get("digest")
        if not wanted.order and digest is None:
            return self._catalog.tags(registry.key, name, wanted.last, wanted.count + 1)
        found = self._catalog.tags(registry.key, name)
        if digest is not None:
            found = [item for item in found if item.digest == digest]
        if wanted.order:
            return by_time(found, wanted, lambda item: item.name, lambda item: item.updated)
        return [item for item in found if item.name > wanted.last][: wanted.count + 1]

    def _page_of_manifests(self, registry: Registry, name: str, wanted: Page) -> list[Manifest]:
        if not wanted.order:
            return self._catalog.manifests(registry.key, name, wanted.last, wanted.count + 1)
        times = self._catalog.manifest_times(registry.key, name)
        found = by_time(times, wanted, lambda item: item[0], lambda item: item[1])
        manifests = (self._catalog.manifest(registry.key, name, digest) for digest, _ in found)
        return [item for item in manifests if item is not None]

    async def _show(self, registry: Registry, name: str, reference: str) -> dict[str, Any]:
        """One tag or manifest. Raises `OciError` 404."""
        if not names.is_digest(reference):
            for tag in self._catalog.tags(registry.key, name, name=reference):
                return representations.tag(tag)
            raise not_found("TAG_UNKNOWN", f"the specified tag {reference} does not exist")
        manifest = self._catalog.manifest(registry.key, name, reference)
        if manifest is None:
            raise not_found("MANIFEST_UNKNOWN", f"manifest {reference} is not found")
        return (await self._forms(registry, name, [manifest]))[0]

    async def _forms(self, registry: Registry, name: str, manifests: Sequence[Manifest]) -> list[dict[str, Any]]:
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
        """Lock or unlock; what is shown then is the whole of it."""
        if kind is not None and reference is None:
            raise _unsupported(request)
        changes = await _changes(request)
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
            raise _unsupported(request)
        remove = self._catalog.remove_tag if kind == "_tags" else self._catalog.remove_manifest
        if not await remove(registry.key, name, reference):
            unknown = "TAG_UNKNOWN" if kind == "_tags" else "MANIFEST_UNKNOWN"
            raise not_found(unknown, f"{reference} is not found in {name}")
        # Taking a tag off deletes nothing.
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
        return json_response({"manifestsDeleted": digests, "tagsDeleted": tags}, 202)

    def _head(self, registry: Registry, name: str) -> dict[str, str]:
        return {"registry": f"{registry.key}.{self._suffix}", "imageName": name}


async def _changes(request: web.Request) -> AttributeChanges:
    """The body of a PATCH. Raises `OciError` 400."""
    if (request.content_length or 0) > _BODY_LIMIT:
        raise OciError(413, "SIZE_INVALID", f"the body is larger than {_BODY_LIMIT} bytes")
    try:
        return msgspec.json.decode(await request.read() or b"{}", type=AttributeChanges)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OciError(400, "UNSUPPORTED", f"the body is not valid: {error}") from None


def _reference(kind: str | None, text: str | None) -> str | None:
    """The tag or digest in a path. Raises `OciError` 400."""
    if text is None:
        return None
    return names.tag(text) if kind == "_tags" else names.digest(text)


def _unsupported(request: web.Request) -> OciError:
    return OciError(405, "UNSUPPORTED", f"{request.method} is not supported here")
