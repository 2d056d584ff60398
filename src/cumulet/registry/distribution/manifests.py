"""Pulling, pushing and deleting manifests and tags, and referrers (OCI Distribution Specification 1.1)."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from aiohttp import web
from msgspec import UNSET, UnsetType

from cumulet.common import clock, digests
from cumulet.common.ascii import is_digits
from cumulet.common.limits import RegistryLimits
from cumulet.registry.catalog import locks, manifest_parser
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog, Manifest, MissingPartsError, Registry
from cumulet.registry.distribution import conditional_requests, request_bodies
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, not_found
from cumulet.registry.webhooks.events import Events

_PAGE = 1000
_TAGS_LIMIT = 10


class _Tags(msgspec.Struct):
    name: str
    tags: list[str]


class _Repositories(msgspec.Struct):
    repositories: list[str]


class _Descriptor(msgspec.Struct, rename="camel"):
    """OCI Image Specification 1.1, "OCI Content Descriptors"."""

    media_type: str
    digest: str
    size: int
    artifact_type: str | UnsetType = UNSET
    annotations: dict[str, str] | UnsetType = UNSET


class _Index(msgspec.Struct, rename="camel"):
    """OCI Image Specification 1.1, "OCI Image Index"."""

    schema_version: int
    media_type: str
    manifests: list[_Descriptor]


class Manifests:
    """The request handlers. `Distribution` has checked the caller's right."""

    def __init__(self, catalog: Catalog, pushes: RunningPushes, limits: RegistryLimits, events: Events) -> None:
        self._catalog = catalog
        self._events = events
        self._pushes = pushes
        self._limits = limits

    async def get(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """Answer GET and HEAD by tag or digest with the pushed bytes, or with 304. Raises `OciError` 400, 404, 405."""
        reference = names.reference(reference)
        manifest = self._catalog.manifest(registry.key, repository, reference)
        if manifest is not None and request.method == "HEAD":  # a client may next push an index that names it
            reported = self._pushes.report((registry.key, repository), manifest.digest)
            manifest = manifest if reported else None
        if manifest is None:
            self._demand_repository(registry, repository)
            raise not_found("MANIFEST_UNKNOWN", f"manifest unknown: {repository} has no {_kind(reference)}")
        if not manifest.readable:
            raise locks.disallowed(f"{repository}: {_kind(reference)}")
        headers = {
            "Content-Type": manifest.media_type,
            "Docker-Content-Digest": manifest.digest,
            "ETag": f'"{manifest.digest}"',
        }
        if conditional_requests.is_fresh(request, manifest.digest):
            return web.Response(status=304, headers=headers)
        return web.Response(body=manifest.body, headers=headers)

    async def put(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """Store a manifest under its digest and its tags. The repository must have all parts of it.

        The algorithm is that of the reference or of `digest` in the query, by default sha256. `tag` in the query sets tags
        of a push by digest. Raises `OciError` 400, 403, 404, 405, 413, 414.
        """
        reference = names.reference(reference)
        by_digest = names.is_digest(reference)
        tags = [names.tag(tag) for tag in request.query.getall("tag", [])] if by_digest else [reference]
        if len(tags) > _TAGS_LIMIT:
            raise OciError(414, "TAG_INVALID", f"more than {_TAGS_LIMIT} tags at once")
        expected = reference if by_digest else request.query.get("digest")
        algorithm = digests.algorithm(names.digest(expected)) if expected is not None else "sha256"
        body = await self._read(request)
        digest = digests.of(body, algorithm)
        if expected not in (None, digest):
            raise OciError(
                400, "DIGEST_INVALID", f"provided digest {expected} did not match uploaded content, {digest}"
            )
        content_type = request.headers.get("Content-Type", "")
        manifest, parts = manifest_parser.read(body, content_type, digest, clock.rfc3339_micro())
        await self._pushes.claim((registry.key, repository), digest)
        try:
            await self._catalog.put_manifest(registry.key, repository, manifest, parts, tags)
        except MissingPartsError as missing:
            raise OciError(
                404,
                "MANIFEST_BLOB_UNKNOWN",
                f"the manifest names parts that {repository} does not have: {str(missing)[:500]}",
                [{"digest": part} for part in missing.digests],
            ) from None
        await self._events.pushed(request, registry, repository, manifest, tags)
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        if manifest.subject is not None:
            headers["OCI-Subject"] = manifest.subject
        if by_digest and tags:
            headers["OCI-Tag"] = ", ".join(tags)
        return web.Response(status=201, headers=headers)

    async def delete(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """Delete a tag, or a manifest and its tags. A later collection removes its blobs. Raises `OciError` 404, 405."""
        reference = names.reference(reference)
        digest, tag = (reference, None) if names.is_digest(reference) else (None, reference)
        remove = self._catalog.remove_manifest if digest is not None else self._catalog.remove_tag
        if not await remove(registry.key, repository, reference):
            self._demand_repository(registry, repository)
            raise not_found("MANIFEST_UNKNOWN", f"manifest unknown: {repository} has no {_kind(reference)}")
        await self._events.deleted(request, registry, repository, digest, tag)
        return web.Response(status=202)

    async def tags(self, request: web.Request, registry: Registry, repository: str) -> web.Response:
        """Answer with a page of tags, in order."""
        self._demand_repository(registry, repository)
        if self._catalog.repository_locks(registry.key, repository) & locks.READ:
            raise locks.disallowed(f"Repository {repository}")
        count, after = self._page(request)
        tags = [tag.name for tag in self._catalog.tags(registry.key, repository, after, count + 1)]
        return paged(_Tags(repository, tags[:count]), tags, count, f"/v2/{repository}/tags/list")

    async def catalog(self, request: web.Request, registry: Registry) -> web.Response:
        """Answer with a page of repositories, in order."""
        count, after = self._page(request)
        repositories = self._catalog.repositories(registry.key, after, count + 1)
        return paged(_Repositories(repositories[:count]), repositories, count, "/v2/_catalog")

    async def referrers(self, request: web.Request, registry: Registry, repository: str, digest: str) -> web.Response:
        """Answer with an index of the manifests whose subject is `digest`, filtered by artifact type."""
        subject = names.digest(digest)
        if self._catalog.repository_locks(registry.key, repository) & locks.READ:
            raise locks.disallowed(f"Repository {repository}")
        artifact_type = request.query.get("artifactType")
        count, after = self._page(request)
        manifests = self._catalog.referrers(registry.key, repository, subject, artifact_type, after, count + 1)
        index = _Index(2, manifest_parser.INDEX, [_descriptor(manifest) for manifest in manifests[:count]])
        path = f"/v2/{repository}/referrers/{subject}"
        keys = [manifest.digest for manifest in manifests]
        response = paged(index, keys, count, path, {"artifactType": artifact_type})
        response.content_type = manifest_parser.INDEX
        if artifact_type is not None:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        return response

    def _page(self, request: web.Request) -> tuple[int, str]:
        return page(request, self._limits.page_entries)

    def _demand_repository(self, registry: Registry, repository: str) -> None:
        if not self._catalog.repository_exists(registry.key, repository):
            raise not_found("NAME_UNKNOWN", f"repository {repository} is not known to registry {registry.name}")

    async def _read(self, request: web.Request) -> bytes:
        limit = self._limits.manifest_bytes
        body = bytearray()
        if (request.content_length or 0) <= limit:
            async for piece in request_bodies.pieces(request, self._limits):
                body += piece
                if len(body) > limit:
                    break
            else:
                return bytes(body)
        raise OciError(413, "SIZE_INVALID", f"the manifest is larger than {limit} bytes")


def page(request: web.BaseRequest, most: int = _PAGE) -> tuple[int, str]:
    """The query's `n`, limited to `most`, and `last`. Raises `OciError` 400 where one is not valid."""
    text = request.query.get("n", str(most))
    if not is_digits(text) or len(text) > 9:
        raise OciError(400, "PAGINATION_NUMBER_INVALID", f"invalid number of results requested: n={text[:20]}")
    last = request.query.get("last", "")
    if not last.isascii() or not last.isprintable():
        raise OciError(400, "NAME_INVALID", "last is neither a name, nor a tag, nor a digest")
    return min(int(text), most), last


def paged(
    body: msgspec.Struct, keys: list[str], count: int, path: str, query: Mapping[str, str | None] | None = None
) -> web.Response:
    """A page as a response, with a link to the next page, if any, which keeps the given parts of `query`.

    `keys` are the keys of the items that were read, one more than `count` where there is a next page.
    """
    headers = {"Content-Type": "application/json"}
    if len(keys) > count > 0:
        kept = {name: value for name, value in (query or {}).items() if value is not None}
        following = urlencode({**kept, "last": keys[count - 1], "n": count}, safe="/:")
        headers["Link"] = f'<{path}?{following}>; rel="next"'
    return web.Response(body=msgspec.json.encode(body), headers=headers)


def _descriptor(manifest: Manifest) -> _Descriptor:
    return _Descriptor(
        manifest.media_type,
        manifest.digest,
        len(manifest.body),
        manifest.artifact_type or UNSET,
        manifest.annotations or UNSET,
    )


def _kind(reference: str) -> str:
    return f"digest {reference}" if names.is_digest(reference) else f"tag {reference}"
