"""Pulling and pushing blobs (OCI Distribution Specification 1.1, end-2, end-4 to end-6, end-9 to end-11, end-13)."""

from __future__ import annotations

import re

from aiohttp import web

from cumulet.common import clock
from cumulet.registry import names
from cumulet.registry.content import Content, DigestMismatchError
from cumulet.registry.errors import OciError, not_found
from cumulet.registry.guard import Guard
from cumulet.registry.store import Catalog, Registry, Upload

_RANGE = re.compile(r"(?:bytes[ =])?(\d+)-(\d+)(?:/.*)?")
_CHUNK = 1024 * 1024


class Blobs:
    """Handlers; the caller's right has been checked by then."""

    def __init__(self, catalog: Catalog, content: Content, guard: Guard) -> None:
        self._catalog = catalog
        self._content = content
        self._guard = guard

    async def get(self, request: web.Request, registry: Registry, repository: str, digest: str) -> web.StreamResponse:
        """GET and HEAD of a blob, with ranges and conditions; the file goes out by `sendfile` where it can."""
        digest = names.digest(digest)
        if not self._catalog.has_blob(registry.key, repository, digest):
            raise not_found("BLOB_UNKNOWN", f"blob {digest} is not known to {repository}")
        etag = f'"{digest}"'
        if request.headers.get("If-None-Match", "") == etag:
            return web.Response(status=304, headers={"ETag": etag, "Docker-Content-Digest": digest})
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": etag,
            "Cache-Control": "max-age=31536000",
        }
        return web.FileResponse(self._content.path(digest), chunk_size=_CHUNK, headers=headers)

    async def delete(self, request: web.Request, registry: Registry, repository: str, digest: str) -> web.Response:
        """Take a blob from a repository."""
        digest = names.digest(digest)
        if not await self._catalog.unlink_blob(registry.key, repository, digest):
            raise not_found("BLOB_UNKNOWN", f"blob {digest} is not known to {repository}")
        self.collect(digest)
        return web.Response(status=202)

    def collect(self, *digests: str) -> None:
        """Delete the bytes of blobs that no repository has any more.

        No request can link one in between: a link is made only of bytes that are found, on this same thread.
        """
        for digest in digests:
            if not self._catalog.is_linked(digest):
                self._content.remove(digest)

    async def start(self, request: web.Request, registry: Registry, repository: str, principal: str) -> web.Response:
        """POST: mount a blob, push one at once, or begin an upload."""
        query = request.query
        if mount := query.get("mount"):
            size = await self._mountable(request, registry, names.digest(mount), query.get("from"))
            if size is not None:
                await self._catalog.link_blob(registry.key, repository, mount, size)
                return _created(repository, "blobs", mount)
        if algorithm := query.get("digest-algorithm"):
            names.digest(f"{algorithm}:{'0' * (128 if algorithm == 'sha512' else 64)}")
        session = self._content.start()
        await self._catalog.put_upload(Upload(session, registry.key, repository, principal, clock.rfc3339()))
        if digest := query.get("digest"):
            await self._content.append(session, request.content.iter_chunked(_CHUNK))
            return await self._finish(registry, repository, session, names.digest(digest))
        return self._progress(repository, session, 0)

    async def upload(
        self, request: web.Request, registry: Registry, repository: str, principal: str, session: str
    ) -> web.Response:
        """GET, PATCH, PUT and DELETE of an upload session, for the principal that began it."""
        upload = self._catalog.upload(session)
        if upload is None or upload.registry != registry.key or upload.repository != repository:
            raise not_found("BLOB_UPLOAD_UNKNOWN", f"upload {session[:40]} is not known to {repository}")
        if upload.principal != principal:
            raise OciError(403, "DENIED", "the upload belongs to another principal")
        offset = self._content.offset(session)
        match request.method:
            case "GET" | "HEAD":
                return self._progress(repository, session, offset, status=204)
            case "PATCH":
                self._check_range(request, repository, session, offset)
                offset = await self._content.append(session, request.content.iter_chunked(_CHUNK))
                return self._progress(repository, session, offset)
            case "PUT":
                digest = names.digest(request.query.get("digest", ""))
                self._check_range(request, repository, session, offset)
                await self._content.append(session, request.content.iter_chunked(_CHUNK))
                return await self._finish(registry, repository, session, digest)
            case "DELETE":
                await self._forget(session)
                return web.Response(status=204)
        raise OciError(405, "UNSUPPORTED", f"{request.method} is not supported on an upload")

    async def _mountable(
        self, request: web.Request, registry: Registry, digest: str, source: str | None
    ) -> int | None:
        """The size of a blob that the caller may read in `source` (or, where none is named, in any repository)."""
        candidates = [names.repository(source)] if source else self._catalog.repositories(registry.key)
        for candidate in candidates:
            if not self._catalog.has_blob(registry.key, candidate, digest):
                continue
            try:
                await self._guard.demand(request, registry, "repository", candidate, "pull")
            except OciError:
                continue  # the specification's answer to a mount that is not allowed is an upload
            return self._content.size(digest)
        return None

    def _check_range(self, request: web.Request, repository: str, session: str, offset: int) -> None:
        """A chunk that does not begin where the last one ended is refused with 416, and says where that is."""
        text = request.headers.get("Content-Range")
        if text is None:
            return
        match = _RANGE.fullmatch(text.strip())
        length = request.content_length
        if match is None or (length is not None and int(match[2]) - int(match[1]) + 1 != length):
            raise OciError(400, "SIZE_INVALID", f"Content-Range '{text[:80]}' does not describe the content")
        if int(match[1]) != offset:
            raise OciError(
                416,
                "BLOB_UPLOAD_INVALID",
                f"the chunk begins at {match[1]} and {offset} is expected",
                headers=_progress_headers(repository, session, offset),
            )

    async def _finish(self, registry: Registry, repository: str, session: str, digest: str) -> web.Response:
        try:
            size = await self._content.finish(session, digest)
        except DigestMismatchError as actual:
            await self._forget(session)
            raise OciError(
                400, "DIGEST_INVALID", f"provided digest {digest} did not match uploaded content, which is {actual}"
            ) from None
        await self._catalog.link_blob(registry.key, repository, digest, size)
        await self._catalog.remove_upload(session)
        return _created(repository, "blobs", digest)

    async def _forget(self, session: str) -> None:
        self._content.cancel(session)
        await self._catalog.remove_upload(session)

    def _progress(self, repository: str, session: str, offset: int, status: int = 202) -> web.Response:
        return web.Response(status=status, headers=_progress_headers(repository, session, offset))


def _progress_headers(repository: str, session: str, offset: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{session}",
        "Docker-Upload-UUID": session,
        "Range": f"0-{max(offset - 1, 0)}",
    }


def _created(repository: str, kind: str, digest: str) -> web.Response:
    return web.Response(
        status=201,
        headers={"Location": f"/v2/{repository}/{kind}/{digest}", "Docker-Content-Digest": digest},
    )
