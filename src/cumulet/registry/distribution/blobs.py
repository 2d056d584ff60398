"""Pulling and deleting blobs (OCI Distribution Specification 1.1, end-2 and end-10)."""

from __future__ import annotations

from aiohttp import web

from cumulet.registry.catalog import locks
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.records import Registry
from cumulet.registry.content.store import Content
from cumulet.registry.distribution import conditional_requests
from cumulet.registry.distribution.file_responses import FileResponse
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import not_found


class Blobs:
    """The request handlers. `Distribution` has checked the caller's right."""

    def __init__(self, content: Content, links: Links) -> None:
        self._content = content
        self._links = links

    async def get(self, request: web.Request, registry: Registry, repository: str, text: str) -> web.StreamResponse:
        """Answer GET and HEAD with a blob or a range of it, or with 304. Raises `OciError` 404, 405, 416."""
        digest = names.digest(text)
        blob = self._links.find(registry.key, repository, digest)
        if blob is None:
            raise not_found("BLOB_UNKNOWN", f"blob {digest} is not known to {repository}")
        if not blob.readable:
            raise locks.disallowed(f"Repository {repository}")
        size = blob.size
        headers = {
            "Content-Type": "application/octet-stream",
            "Docker-Content-Digest": digest,
            "ETag": f'"{digest}"',
            "Accept-Ranges": "bytes",
            "Cache-Control": "max-age=31536000",
        }
        if conditional_requests.is_fresh(request, digest):
            return web.Response(status=304, headers=headers)
        part = conditional_requests.byte_range(request, digest, size)
        first, after = part or (0, size)
        headers["Content-Length"] = str(after - first)
        if part is not None:
            headers["Content-Range"] = f"bytes {first}-{after - 1}/{size}"
        status = 200 if part is None else 206
        path = self._content.path(digest)
        if path is not None:
            return FileResponse(status, headers, path, first, after)
        response = web.StreamResponse(status=status, headers=headers)
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in self._content.read(digest, first, after):
                await response.write(piece)
        await response.write_eof()
        return response

    async def delete(self, request: web.Request, registry: Registry, repository: str, text: str) -> web.Response:
        """Delete a blob from a repository. Raises `OciError` 404, 405."""
        digest = names.digest(text)
        if not await self._links.unlink(registry.key, repository, digest):
            raise not_found("BLOB_UNKNOWN", f"blob {digest} is not known to {repository}")
        return web.Response(status=202)
