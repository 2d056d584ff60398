"""Pushing blobs (OCI Distribution Specification 1.1, end-4 to end-6, end-11, end-13): in one request, in chunks, by mount."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine

from aiohttp import web

from cumulet.common.digests import Digest
from cumulet.common.limits import RegistryLimits
from cumulet.registry.access.guard import Guard
from cumulet.registry.catalog.blob_links import Links
from cumulet.registry.catalog.store import Catalog, Registry, Upload
from cumulet.registry.catalog.transactions import no_room
from cumulet.registry.content.store import Content, DigestMismatchError, UnknownUploadError
from cumulet.registry.distribution import request_bodies
from cumulet.registry.distribution.upload_sessions import Sessions
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError, not_found, unsupported

log = logging.getLogger(__name__)

_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/.*)?", re.ASCII)

#: The repositories to try for a mount without a source. Checking the right to each one may be expensive.
_SOURCES = 20


class Uploads:
    """The request handlers. `Distribution` has checked the caller's right to push."""

    def __init__(
        self,
        catalog: Catalog,
        content: Content,
        links: Links,
        sessions: Sessions,
        guard: Guard,
        limits: RegistryLimits,
    ) -> None:
        self._catalog = catalog
        self._content = content
        self._links = links
        self._sessions = sessions
        self._guard = guard
        self._limits = limits
        self._finishing: set[asyncio.Task[web.Response]] = set()

    async def start(self, request: web.Request, registry: Registry, repository: str, principal: str) -> web.Response:
        """Answer POST: mount a blob, push one in a single request, or start an upload. Raises `OciError`."""
        query = request.query
        digest = names.digest(query["digest"]) if "digest" in query else None
        algorithm = names.algorithm(query.get("digest-algorithm", "sha256"))
        mount = names.digest(query["mount"]) if "mount" in query else None
        if mount and await self._mount(request, registry, repository, mount, query.get("from")):
            return _created(repository, mount)
        self._demand_size(registry, 0, request.content_length or 0)
        upload = await self._sessions.begin(registry.key, repository, principal, algorithm)
        if digest is None:
            return _progress(202, repository, upload.session, 0)
        try:
            await self._append(request, registry, upload, 0, digest)
        except BaseException:  # the client does not have the name of the session
            await self._sessions.forget(upload.session)
            raise
        return await self._uninterrupted(self._finish(upload, digest))

    async def resume(
        self, request: web.Request, registry: Registry, repository: str, principal: str, session: str
    ) -> web.Response:
        """Answer GET, PATCH, PUT and DELETE of an upload session, for the principal that started it. Raises `OciError`.

        Requests that change the upload run one after the other. GET does not wait for them: a client that lost its
        connection may read the offset before the server detects the end of the old request.
        """
        upload = self._demand_upload(registry, repository, principal, session)
        if request.method in ("GET", "HEAD"):
            return _progress(204, repository, upload.session, await self._offset(upload))
        async with self._sessions.lock(upload.session):
            offset = await self._offset(upload)
            match request.method:
                case "PATCH":
                    offset = await self._append(request, registry, upload, offset)
                    return _progress(202, repository, upload.session, offset)
                case "PUT":
                    digest = names.digest(request.query.get("digest", ""))
                    await self._append(request, registry, upload, offset, digest)
                case "DELETE":
                    await self._sessions.forget(upload.session)
                    return web.Response(status=204)
                case _:
                    raise unsupported(request.method, "on an upload")
        return await self._uninterrupted(self._finish(upload, digest))

    async def _offset(self, upload: Upload) -> int:
        try:
            return await self._content.offset(upload.session)
        except UnknownUploadError:
            raise _unknown(upload.repository, upload.session) from None

    async def _mount(
        self, request: web.Request, registry: Registry, repository: str, digest: Digest, source: str | None
    ) -> bool:
        """Mount a blob from `source`, or from any repository without one, if the caller may pull it.

        Returns whether it was mounted. By the specification, a mount that is not possible or not allowed becomes an upload.
        """
        sources = [names.repository(source)] if source else self._catalog.repositories_with(registry.key, digest)
        for candidate in sources[:_SOURCES]:
            try:
                await self._guard.demand(request, registry, "repository", candidate, "pull")
            except OciError:
                continue
            if await self._links.mount(registry.key, candidate, repository, digest):
                return True
        return False

    def _demand_upload(self, registry: Registry, repository: str, principal: str, session: str) -> Upload:
        upload = self._catalog.upload(session)
        if upload is None or (upload.registry, upload.repository) != (registry.key, repository):
            raise _unknown(repository, session)
        if upload.principal != principal:
            raise OciError(403, "DENIED", "the upload belongs to another principal")
        return upload

    def _demand_size(self, registry: Registry, offset: int, size: int) -> None:
        """Raises `OciError` 413 where the upload would be too large, or 403 where it would exceed the quota."""
        if offset + size > self._limits.blob_bytes:
            raise OciError(413, "SIZE_INVALID", f"the blob is larger than {self._limits.blob_bytes} bytes")
        quota = registry.resource.storage_quota
        if quota is not None and size > 0 and (held := self._catalog.usage(registry.key)) + offset + size > quota:
            raise no_room(registry.name, held, quota)

    async def _append(
        self, request: web.Request, registry: Registry, upload: Upload, offset: int, digest: Digest | None = None
    ) -> int:
        """Append the body of a request. An interrupted upload is kept. An upload that is refused is deleted."""
        expected = _expected(request, upload, offset)

        wrong = OciError(400, "SIZE_INVALID", "Content-Range does not describe the content")

        def check(received: int) -> None:
            self._demand_size(registry, offset, received)
            if expected is not None and received > expected:
                raise wrong

        algorithm = digest.partition(":")[0] if digest is not None else upload.algorithm
        try:
            self._demand_size(registry, offset, request.content_length or 0)
            body = request_bodies.Body(request, self._limits, check)
            after = await self._content.append(upload.session, body, algorithm)
            if expected not in (None, after - offset):
                raise wrong
        except request_bodies.BrokenBodyError:
            raise
        except OciError:
            await self._sessions.forget(upload.session)
            raise
        return after

    async def _uninterrupted(self, work: Coroutine[object, object, web.Response]) -> web.Response:
        """Finish work that must not be interrupted when the client disconnects."""
        task = asyncio.ensure_future(work)
        self._finishing.add(task)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_failure)
            raise
        finally:
            task.add_done_callback(self._finishing.discard)

    async def _finish(self, upload: Upload, digest: Digest) -> web.Response:
        async with self._sessions.lock(upload.session):
            try:
                await self._links.commit(upload.session, upload.registry, upload.repository, digest)
            except UnknownUploadError:
                raise _unknown(upload.repository, upload.session) from None
            except DigestMismatchError as actual:
                await self._sessions.forget(upload.session)
                raise OciError(
                    400,
                    "DIGEST_INVALID",
                    f"provided digest {digest} did not match uploaded content, which is {actual}",
                ) from None
            except OciError:
                await self._sessions.forget(upload.session)
                raise
            await self._catalog.remove_upload(upload.session)
        return _created(upload.repository, digest)


def _log_failure(task: asyncio.Task[web.Response]) -> None:
    """Log an unexpected error: the client has disconnected, and nothing else would report it."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, OciError):
        log.error("an upload could not be finished", exc_info=error)


def _expected(request: web.Request, upload: Upload, offset: int) -> int | None:
    """The length of `Content-Range`, or `None` without one.

    Raises `OciError`: 400 where it does not match the body, and 416 with the offset where the chunk does not start there.
    """
    text = request.headers.get("Content-Range")
    if text is None:
        return None
    match = _RANGE.fullmatch(text.strip())
    length = int(match[2]) - int(match[1]) + 1 if match is not None else -1
    if match is None or length < 0 or request.content_length not in (None, length):
        raise OciError(400, "SIZE_INVALID", f"Content-Range '{text[:80]}' does not describe the content")
    if int(match[1]) != offset:
        raise OciError(
            416,
            "BLOB_UPLOAD_INVALID",
            f"the chunk begins at {match[1]} and {offset} is expected",
            headers=_progress_headers(upload.repository, upload.session, offset),
        )
    return length


def _unknown(repository: str, session: str) -> OciError:
    return not_found("BLOB_UPLOAD_UNKNOWN", f"upload {session[:40]} is not known to {repository}")


def _progress(status: int, repository: str, session: str, offset: int) -> web.Response:
    return web.Response(status=status, headers=_progress_headers(repository, session, offset))


def _progress_headers(repository: str, session: str, offset: int) -> dict[str, str]:
    return {
        "Location": f"/v2/{repository}/blobs/uploads/{session}",
        "Docker-Upload-UUID": session,
        "Range": f"0-{max(offset - 1, 0)}",
    }


def _created(repository: str, digest: Digest) -> web.Response:
    headers = {"Location": f"/v2/{repository}/blobs/{digest}", "Docker-Content-Digest": digest}
    return web.Response(status=201, headers=headers)
