"""Pulling, pushing and deleting manifests and tags, and referrers (OCI Distribution Specification 1.1)."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec
from aiohttp import web

from cumulet.common import clock
from cumulet.registry import names
from cumulet.registry.blobs import Blobs
from cumulet.registry.errors import OciError, not_found
from cumulet.registry.store import Catalog, Manifest, Registry

MANIFEST_LIMIT = 4 * 1024 * 1024

_IMAGE_TYPES = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_INDEX = _INDEX_TYPES[0]
_FOREIGN = ("foreign", "nondistributable")
_PAGE = 1000


class Manifests:
    """Handlers; the caller's right has been checked by then."""

    def __init__(self, catalog: Catalog, blobs: Blobs) -> None:
        self._catalog = catalog
        self._blobs = blobs

    async def get(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """GET and HEAD, by tag or digest, byte for byte as pushed."""
        manifest = self._find(registry, repository, reference)
        headers = {
            "Content-Type": manifest.media_type,
            "Docker-Content-Digest": manifest.digest,
            "ETag": f'"{manifest.digest}"',
        }
        if request.headers.get("If-None-Match", "") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=manifest.body, headers=headers)

    def _find(self, registry: Registry, repository: str, reference: str) -> Manifest:
        reference = names.digest(reference) if names.is_digest(reference) else names.tag(reference)
        manifest = self._catalog.manifest(registry.key, repository, reference)
        if manifest is None:
            if not self._catalog.repository_exists(registry.key, repository):
                raise not_found("NAME_UNKNOWN", f"repository {repository} is not known to registry {registry.name}")
            raise not_found(
                "MANIFEST_UNKNOWN", f"manifest unknown: {repository} has no {_kind(reference)} {reference}"
            )
        return manifest

    async def put(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """Push a manifest whose parts are all there, under its digest and perhaps a tag."""
        by_digest = names.is_digest(reference)
        reference = names.digest(reference) if by_digest else names.tag(reference)
        body = await _read(request)
        algorithm = reference.partition(":")[0] if by_digest else "sha256"
        digest = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}"
        if by_digest and digest != reference:
            raise OciError(
                400, "DIGEST_INVALID", f"provided digest {reference} did not match uploaded content, {digest}"
            )
        document = _decode(body)
        media_type = _media_type(request, document)
        self._check_parts(registry, repository, document, media_type)
        subject = _subject(document)
        manifest = Manifest(
            digest=digest,
            media_type=media_type,
            body=body,
            subject=subject,
            artifact_type=document.get("artifactType") or (document.get("config") or {}).get("mediaType"),
            annotations=document.get("annotations"),
            created=clock.rfc3339_micro(),
        )
        await self._catalog.put_manifest(registry.key, repository, manifest, None if by_digest else reference)
        headers = {"Location": f"/v2/{repository}/manifests/{digest}", "Docker-Content-Digest": digest}
        if subject is not None:
            headers["OCI-Subject"] = subject
        return web.Response(status=201, headers=headers)

    async def delete(self, request: web.Request, registry: Registry, repository: str, reference: str) -> web.Response:
        """Delete a tag, or a manifest with the tags that name it and the blobs that nothing else has."""
        if not names.is_digest(reference):
            if not await self._catalog.remove_tag(registry.key, repository, names.tag(reference)):
                raise not_found("MANIFEST_UNKNOWN", f"manifest unknown: {repository} has no tag {reference}")
            return web.Response(status=202)
        if not await self._catalog.remove_manifest(registry.key, repository, names.digest(reference)):
            raise not_found("MANIFEST_UNKNOWN", f"manifest unknown: {repository} has no digest {reference}")
        return web.Response(status=202)

    async def tags(self, request: web.Request, registry: Registry, repository: str) -> web.Response:
        """The tags in order, in pages."""
        if not self._catalog.repository_exists(registry.key, repository):
            raise not_found("NAME_UNKNOWN", f"repository {repository} is not known to registry {registry.name}")
        count, after = page(request)
        found = [name for name, *_ in self._catalog.tags(registry.key, repository, after, count + 1)]
        return paged({"name": repository, "tags": found[:count]}, found, count, f"/v2/{repository}/tags/list")

    async def catalog(self, request: web.Request, registry: Registry) -> web.Response:
        """The repositories in order, in pages."""
        count, after = page(request)
        found = self._catalog.repositories(registry.key, after, count + 1)
        return paged({"repositories": found[:count]}, found, count, "/v2/_catalog")

    async def referrers(self, request: web.Request, registry: Registry, repository: str, digest: str) -> web.Response:
        """An index of the manifests whose subject is `digest`, narrowed by artifact type."""
        found = self._catalog.referrers(registry.key, repository, names.digest(digest))
        headers = {"Content-Type": _INDEX}
        if wanted := request.query.get("artifactType"):
            found = [manifest for manifest in found if manifest.artifact_type == wanted]
            headers["OCI-Filters-Applied"] = "artifactType"
        index = {"schemaVersion": 2, "mediaType": _INDEX, "manifests": [_descriptor(manifest) for manifest in found]}
        return web.Response(body=msgspec.json.encode(index), headers=headers)

    def _check_parts(self, registry: Registry, repository: str, document: dict[str, Any], media_type: str) -> None:
        """What a manifest names must be in the same repository: blobs of an image, manifests of an index."""
        if media_type in _INDEX_TYPES:
            missing = [
                part
                for part in _descriptors(document, "manifests")
                if self._catalog.manifest(registry.key, repository, part["digest"]) is None
            ]
            if missing:
                raise OciError(
                    404,
                    "MANIFEST_BLOB_UNKNOWN",
                    f"the index names manifests that {repository} does not have",
                    missing,
                )
            return
        config = document.get("config")
        if media_type in _IMAGE_TYPES and not isinstance(config, dict):
            raise OciError(400, "MANIFEST_INVALID", "the manifest has no config")
        parts = _descriptors({"config": [config]} if config else {}, "config")
        parts += _descriptors(document, "layers") + _descriptors(document, "blobs")
        missing = [
            part
            for part in parts
            if not any(word in part.get("mediaType", "") for word in _FOREIGN)
            and not self._catalog.has_blob(registry.key, repository, part["digest"])
        ]
        if missing:
            raise OciError(
                404, "MANIFEST_BLOB_UNKNOWN", f"the manifest names blobs that {repository} does not have", missing
            )


def page(request: web.BaseRequest) -> tuple[int, str]:
    """`n` and `last` of a request for a page. Raises `OciError` `PAGINATION_NUMBER_INVALID`."""
    text = request.query.get("n", str(_PAGE))
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise OciError(400, "PAGINATION_NUMBER_INVALID", f"invalid number of results requested: n={text[:20]}")
    return min(int(text), _PAGE), request.query.get("last", "")


def paged(body: dict[str, Any], found: list[str], count: int, path: str) -> web.Response:
    """A page, with a link to the next one where there is one."""
    headers = {"Content-Type": "application/json"}
    if len(found) > count > 0:
        headers["Link"] = f'<{path}?last={found[count - 1]}&n={count}>; rel="next"'
    return web.Response(body=msgspec.json.encode(body), headers=headers)


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MANIFEST_LIMIT:
            raise OciError(413, "SIZE_INVALID", f"the manifest is larger than {MANIFEST_LIMIT} bytes")
    return bytes(body)


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise OciError(400, "MANIFEST_INVALID", f"the manifest is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise OciError(400, "MANIFEST_INVALID", "the manifest is not a JSON object")
    if document.get("schemaVersion") == 1:
        raise OciError(
            400, "MANIFEST_INVALID", "schema 1 manifests are not supported: push an OCI or Docker schema 2 image"
        )
    if document.get("schemaVersion") != 2:
        raise OciError(400, "MANIFEST_INVALID", "schemaVersion must be 2")
    annotations = document.get("annotations")
    if annotations is not None and not (
        isinstance(annotations, dict) and all(isinstance(value, str) for value in annotations.values())
    ):
        raise OciError(400, "MANIFEST_INVALID", "annotations must be an object of strings")
    for name, kind in (("config", dict), ("artifactType", str), ("mediaType", str), ("subject", dict)):
        if not isinstance(document.get(name), kind | None):
            raise OciError(400, "MANIFEST_INVALID", f"{name} has the wrong type")
    return document


def _media_type(request: web.Request, document: dict[str, Any]) -> str:
    inside = document.get("mediaType")
    outside = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if inside and outside and inside != outside:
        raise OciError(400, "MANIFEST_INVALID", f"Content-Type is '{outside}' and mediaType is '{inside}'")
    if given := inside or outside:
        return str(given)
    return _INDEX if "manifests" in document else _IMAGE_TYPES[0]


def _descriptors(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    entries = document.get(name) or []
    if not isinstance(entries, list):
        raise OciError(400, "MANIFEST_INVALID", f"{name} must be a list")
    for entry in entries:
        if not isinstance(entry, dict) or not isinstance(entry.get("digest"), str):
            raise OciError(400, "MANIFEST_INVALID", f"an entry of {name} has no digest")
        if not isinstance(entry.get("mediaType", ""), str):
            raise OciError(400, "MANIFEST_INVALID", f"an entry of {name} has a mediaType that is not a string")
        names.digest(entry["digest"])
    return entries


def _subject(document: dict[str, Any]) -> str | None:
    subject = document.get("subject")
    if subject is None:
        return None
    return names.digest(str(subject.get("digest", "")))


def _descriptor(manifest: Manifest) -> dict[str, Any]:
    descriptor: dict[str, Any] = {
        "mediaType": manifest.media_type,
        "digest": manifest.digest,
        "size": len(manifest.body),
    }
    if manifest.artifact_type:
        descriptor["artifactType"] = manifest.artifact_type
    if manifest.annotations:
        descriptor["annotations"] = manifest.annotations
    return descriptor


def _kind(reference: str) -> str:
    return "digest" if names.is_digest(reference) else "tag"
