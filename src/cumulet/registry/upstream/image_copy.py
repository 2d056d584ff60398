"""Copying images from other registries: blobs first, then the manifests that name them, so that no partial image is visible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

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

#: The deepest nesting of indexes. Deeper ones are an attack.
_DEEPEST = 4


class Origin(Protocol):
    """A source of images."""

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """Read a manifest. Raises `UpstreamError`."""
        ...

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """Store a blob in the repository `target`. Raises `UpstreamError`."""
        ...


class OtherRegistry:
    """A registry on another server. Its blobs are verified while they stream in."""

    def __init__(self, upstream: Upstream, content: Content, links: Links) -> None:
        self._upstream = upstream
        self._content = content
        self._links = links

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """Read a manifest from the other registry. Raises `UpstreamError`."""
        return await self._upstream.manifest(repository, reference)

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """Download a blob. Bytes with another digest are dropped. Raises `UpstreamError`."""
        session = await self._content.start()
        try:
            async with self._upstream.blob(repository, digest) as chunks:
                await self._content.append(session, Part(chunks), digest.partition(":")[0])
            await self._links.commit(session, registry.key, target, digest)
        except DigestMismatchError as actual:
            raise UpstreamError(
                self._upstream.server, 502, f"the content sent as {digest} has the digest {actual}"
            ) from None
        finally:
            await self._content.cancel(session)


class OwnRegistry:
    """A registry of this room: no byte is copied. The caller has checked the right to pull."""

    def __init__(self, source: Registry, catalog: Catalog, links: Links) -> None:
        self._source = source
        self._catalog = catalog
        self._links = links

    async def manifest(self, repository: str, reference: str) -> Fetched:
        """Read a manifest from the catalog. Raises `UpstreamError`."""
        manifest = self._catalog.manifest(self._source.key, repository, reference)
        if manifest is None or not manifest.readable:
            raise UpstreamError(self._source.name, 404, f"404 MANIFEST_UNKNOWN: {repository} has no {reference}")
        return Fetched(manifest.body, manifest.media_type, names.digest(manifest.digest))

    async def blob(self, repository: str, digest: Digest, registry: Registry, target: str) -> None:
        """Link a blob to `target`. Raises `UpstreamError`."""
        if not await self._links.mount(registry.key, repository, target, digest, of=self._source.key):
            raise UpstreamError(self._source.name, 404, f"404 BLOB_UNKNOWN: {repository} has no {digest}")


class Progress:
    """The bytes copied so far, and the total as far as it is known."""

    def __init__(self) -> None:
        self.done = 0
        self.total = 0

    @property
    def percent(self) -> float:
        """The progress from 0 to 100."""
        return round(100 * self.done / self.total, 1) if self.total else 0.0


class Copier:
    """Copies complete images, and for an index all images in it."""

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
        """Copy an image to `target` under `tags` and return its manifest.

        `source` is a repository and a reference. Raises `UpstreamError`, `OciError`, `MissingPartsError`.
        """
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
    """Parse a manifest of another registry by the rules for pushed ones. Raises `OciError` 400."""
    return manifest_parser.read(fetched.body, fetched.media_type, fetched.digest, clock.rfc3339_micro())


def _split(manifest: Manifest, parts: Parts) -> tuple[list[Digest], dict[Digest, int]]:
    """The manifests that a manifest names, and its blobs with their sizes in bytes."""
    document = manifest_parser.document(manifest.body)
    children = [part.digest for part in document.manifests or [] if part.digest in parts.required]
    needed = set(parts.required) - set(children)
    return children, {part.digest: part.size for part in document.contents if part.digest in needed}


#: Creates the origin for another registry from its server and credentials.
Elsewhere = Callable[[str, tuple[str, str] | None], Origin]
