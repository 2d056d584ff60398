"""Taking images over from elsewhere, blobs first and then what names them, so that nothing is visible half."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgspec

from cumulet.common import clock
from cumulet.common.digests import Digest
from cumulet.registry.catalog import manifest_parser
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.records import Manifest, Parts, Registry
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.catalog.store import Catalog
from cumulet.registry.content.store import Content, DigestMismatchError, Part
from cumulet.registry.oci import names
from cumulet.registry.upstream.client import Fetched, Upstream, UpstreamError

#: An index in an index in an index; deeper ones are somebody's bomb.
_DEEPEST = 4


class Origin(Protocol):
    """Where images come from."""

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """A manifest. Raises `UpstreamError`."""
        ...

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """Let the repository `target` have a blob. Raises `UpstreamError`."""
        ...


class OtherRegistry:
    """A registry somewhere, whose blobs are verified while they stream in."""

    def __init__(self, upstream: Upstream, content: Content, links: Links) -> None:
        self._upstream = upstream
        self._content = content
        self._links = links

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """From the other registry."""
        return await self._upstream.manifest(repository, reference)

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """Bytes that do not have the digest are not kept."""
        session = await self._content.start()
        try:
            async with self._upstream.blob(repository, digest) as chunks:
                await self._content.append(session, Part(chunks), digest.partition(":")[0])
            await self._links.commit(session, registry.key, target, digest)
        except DigestMismatchError as actual:
            raise UpstreamError(self._upstream.server, 502, f"what it sent as {digest} is {actual}") from None
        finally:
            await self._content.cancel(session)


class OwnRegistry:
    """Another registry of this room, or the same: no byte is copied. The right to pull has been checked by then."""

    def __init__(self, source: Registry, catalog: Catalog, links: Links) -> None:
        self._source = source
        self._catalog = catalog
        self._links = links

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """From the catalog."""
        found = self._catalog.manifest(self._source.key, repository, reference)
        if found is None or not found.readable:
            raise UpstreamError(self._source.name, 404, f"404 MANIFEST_UNKNOWN: {repository} has no {reference}")
        return Fetched(found.body, found.media_type, names.digest(found.digest))

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """A link more."""
        if not await self._links.mount(registry.key, repository, target, digest, of=self._source.key):
            raise UpstreamError(self._source.name, 404, f"404 BLOB_UNKNOWN: {repository} has no {digest}")


class Progress:
    """Bytes that are there, of those that are known to be needed."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    @property
    def percent(self) -> float:
        """0 to 100."""
        return round(100 * self.done / self.total, 1) if self.total else 0.0


class Copier:
    """Copies whole images: with an index, everything that it names."""

    def __init__(self, catalog: Catalog, links: Links, pushes: RunningPushes) -> None:
        self._catalog = catalog
        self._links = links
        self._pushes = pushes

    async def copy(
        self,
        origin: Origin,
        source: tuple[str, str],
        registry: Registry,
        target: str,
        tags: Sequence[str],
        principal: str,
        progress: Progress,
    ) -> Manifest:
        """The manifest that `target` has then, under `tags`. Raises `UpstreamError`, `OciError`, `MissingPartsError`."""
        with self._pushes.request((registry.key, target), principal):
            repository, reference = source
            return await self._copy(origin, repository, reference, registry, target, tags, progress, 0)

    async def _copy(
        self,
        origin: Origin,
        repository: str,
        reference: str,
        registry: Registry,
        target: str,
        tags: Sequence[str],
        progress: Progress,
        depth: int,
    ) -> Manifest:
        fetched = await origin.manifest(repository, reference)
        manifest, parts = read(fetched)
        if depth > _DEEPEST:
            raise UpstreamError(registry.name, 400, f"an index is nested more than {_DEEPEST} deep")
        children, blobs = _split(manifest, parts)
        progress.total += sum(blobs.values())
        for digest in children:
            await self._copy(origin, repository, digest, registry, target, (), progress, depth + 1)
        for digest, size in blobs.items():
            if self._links.find(registry.key, target, digest) is None:
                await origin.blob(repository, digest, registry, target)
            progress.done += size
        await self._pushes.claim((registry.key, target), manifest.digest)
        await self._catalog.put_manifest(registry.key, target, manifest, parts, tags)
        return manifest


def read(fetched: Fetched) -> tuple[Manifest, Parts]:
    """A manifest from elsewhere, held to the same rules as one that is pushed. Raises `OciError` 400."""
    return manifest_parser.read(fetched.body, fetched.media_type, fetched.digest, clock.rfc3339_micro())


def _split(manifest: Manifest, parts: Parts) -> tuple[list[Digest], dict[Digest, int]]:
    """The manifests that one names, and the blobs with their sizes."""
    document = msgspec.json.decode(manifest.body)
    listed: list[dict[str, Any]] = document.get("manifests") or []
    children = [part["digest"] for part in listed if part["digest"] in parts.required]
    config = document.get("config")
    named = [*([config] if config else []), *(document.get("layers") or []), *(document.get("blobs") or [])]
    needed = set(parts.required) - set(children)
    return children, {part["digest"]: part.get("size", 0) for part in named if part["digest"] in needed}


#: Makes the origin that is another registry, from its server and credentials.
Elsewhere = Callable[[str, tuple[str, str] | None], Origin]
