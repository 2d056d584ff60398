"""Blobs on the file system, as an OCI image layout has them (`blobs/<algorithm>/<hex>`), and uploads on their way.

A blob is visible under its digest only when it is whole, verified and on disk. Uploads are files named after their
session; their digest is computed while the bytes stream in, and again from the file where a restart lost it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any

_CHUNK = 1024 * 1024


class DigestMismatchError(Exception):
    """What was uploaded has another digest; the message has the real one."""


class Content:
    """The store of bytes of one registry room."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        for folder in (self._blobs / "sha256", self._blobs / "sha512", self._uploads):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        self._hashes: dict[str, Any] = {}

    def path(self, digest: str) -> Path:
        """The file of a blob; the digest must have been checked against the grammar."""
        algorithm, _, value = digest.partition(":")
        return self._blobs / algorithm / value

    def size(self, digest: str) -> int | None:
        """Bytes of a blob, or `None` where there is no such blob."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def start(self) -> str:
        """Begin an upload; the name of its session."""
        session = str(uuid.uuid4())
        self._upload(session).touch(mode=0o600)
        self._hashes[session] = hashlib.sha256()
        return session

    def offset(self, session: str) -> int:
        """Bytes received so far. Raises `FileNotFoundError` where there is no such upload."""
        return self._upload(session).stat().st_size

    async def append(self, session: str, chunks: AsyncIterable[bytes]) -> int:
        """Append bytes as they come; the number received in all. What came before a broken connection is kept."""
        digest = await self._hash(session)
        with self._upload(session).open("ab", buffering=0) as file:
            async for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
            return file.tell()

    async def finish(self, session: str, digest: str) -> int:
        """Verify an upload and make it visible as a blob; its size. Raises `DigestMismatchError`."""
        upload = self._upload(session)
        algorithm = digest.partition(":")[0]
        computed = await self._hash(session) if algorithm == "sha256" else await _hash_file(upload, algorithm)
        actual = f"{algorithm}:{computed.hexdigest()}"
        if actual != digest:
            raise DigestMismatchError(actual)
        size = upload.stat().st_size
        await asyncio.to_thread(_publish, upload, self.path(digest))
        self._hashes.pop(session, None)
        return size

    def cancel(self, session: str) -> None:
        """Forget an upload; one that is not there is fine."""
        self._hashes.pop(session, None)
        self._upload(session).unlink(missing_ok=True)

    def remove(self, digest: str) -> None:
        """Delete a blob's bytes."""
        self.path(digest).unlink(missing_ok=True)

    def _upload(self, session: str) -> Path:
        return self._uploads / str(uuid.UUID(session))

    async def _hash(self, session: str) -> Any:
        if session not in self._hashes:
            self._hashes[session] = await _hash_file(self._upload(session), "sha256")
        return self._hashes[session]


async def _hash_file(path: Path, algorithm: str) -> Any:
    def work() -> Any:
        digest = hashlib.new(algorithm)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        return digest

    return await asyncio.to_thread(work)


def _publish(upload: Path, blob: Path) -> None:
    descriptor = os.open(upload, os.O_RDONLY)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    upload.rename(blob)
    folder = os.open(blob.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
