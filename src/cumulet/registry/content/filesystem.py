"""Content on a file system, as an OCI image layout has it (OCI Image Specification 1.1, "Image Layout").

`blobs/<algorithm>/<hex>` are the blobs of all repositories; manifests are in the catalog, and `index.json` names none. An
upload is a file in `uploads/` that grows; it is committed by renaming it, once it is on disk.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

from cumulet.common import digests
from cumulet.common.config import private_folder
from cumulet.common.digests import Digest
from cumulet.registry.content.store import Content, DigestMismatchError, Part, UnknownUploadError

_CHUNK = 1024 * 1024
#: How much is written before the disk is to begin with it, so that little is left for the end.
_WRITE_BACK = 8 * 1024 * 1024
_ALGORITHMS = ("sha256", "sha512")


class _Hash(NamedTuple):
    """A digest of the first `offset` bytes of an upload."""

    algorithm: str
    state: Any
    offset: int


class FileContent(Content):
    """One folder; only one process writes to it."""

    def __init__(self, root: Path) -> None:
        self._blobs = root / "blobs"
        self._uploads = root / "uploads"
        for folder in (*(self._blobs / algorithm for algorithm in _ALGORITHMS), self._uploads):
            private_folder(folder)
        (root / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        (root / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
        self._hashes: dict[str, _Hash] = {}

    def path(self, digest: Digest) -> Path:
        return self._blobs / digests.algorithm(digest) / digests.encoded(digest)

    async def size(self, digest: Digest) -> int | None:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    async def read(self, digest: Digest, first: int, after: int) -> AsyncIterator[bytes]:
        with self.path(digest).open("rb", buffering=0) as file:
            file.seek(first)
            while first < after and (piece := await asyncio.to_thread(file.read, min(_CHUNK, after - first))):
                first += len(piece)
                yield piece

    async def digests(self) -> AsyncIterator[Digest]:
        for algorithm in _ALGORITHMS:
            for name in await asyncio.to_thread(os.listdir, self._blobs / algorithm):
                if digests.is_digest(found := f"{algorithm}:{name}"):
                    yield Digest(found)

    async def remove(self, digest: Digest) -> None:
        self.path(digest).unlink(missing_ok=True)

    async def start(self) -> str:
        session = str(uuid.uuid4())
        self._upload(session).touch(mode=0o600)
        return session

    async def offset(self, session: str) -> int:
        return self._size(session)

    async def append(self, session: str, part: Part, algorithm: str) -> int:
        offset = self._size(session)
        known = await self._hash(session, algorithm if offset == 0 else None)
        taker = _Taker(self._upload(session), known.state, offset)
        try:
            await part.into(taker.take)
        finally:
            taker.close()
            self._hashes[session] = known._replace(offset=taker.offset)
        return taker.offset

    async def commit(self, session: str, digest: Digest) -> int:
        size = self._size(session)
        algorithm = digests.algorithm(digest)
        actual = f"{algorithm}:{(await self._hash(session, algorithm)).state.hexdigest()}"
        if actual != digest:
            raise DigestMismatchError(actual)
        await asyncio.to_thread(_publish, self._upload(session), self.path(digest))
        self._hashes.pop(session, None)
        return size

    async def cancel(self, session: str) -> None:
        self._hashes.pop(session, None)
        self._upload(session).unlink(missing_ok=True)

    async def uploads(self) -> AsyncIterator[tuple[str, float]]:
        now = time.time()
        for path in list(self._uploads.iterdir()):
            try:
                yield path.name, now - path.stat().st_mtime
            except FileNotFoundError:
                continue  # finished meanwhile

    def _upload(self, session: str) -> Path:
        return self._uploads / str(uuid.UUID(session))

    def _size(self, session: str) -> int:
        try:
            return self._upload(session).stat().st_size
        except FileNotFoundError:
            raise UnknownUploadError(session) from None

    async def _hash(self, session: str, algorithm: str | None) -> _Hash:
        """The digest of what was received, by `algorithm` or else by any; read again where it is not at hand."""
        size = self._size(session)
        known = self._hashes.get(session)
        if known is None or known.offset != size or algorithm not in (None, known.algorithm):
            wanted = algorithm or "sha256"
            known = _Hash(wanted, await asyncio.to_thread(_hash_file, self._upload(session), wanted), size)
        return known


class _Taker:
    """Appends to a file and to a digest of it, without the interpreter's lock. `offset` counts what is in both."""

    def __init__(self, path: Path, state: Any, offset: int) -> None:
        self.offset = offset
        self._state = state
        self._file = path.open("r+b", buffering=0)
        self._file.seek(offset)
        self._leaving = offset

    def take(self, piece: bytes | memoryview) -> None:
        """In a thread. Raises `OSError` where it cannot be written."""
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        self._state.update(piece)
        self.offset += len(piece)
        if self.offset - self._leaving >= _WRITE_BACK:
            # Of pages that are not on disk yet this begins to write them, and forgets none.
            os.posix_fadvise(self._file.fileno(), self._leaving, self.offset - self._leaving, os.POSIX_FADV_DONTNEED)
            self._leaving = self.offset

    def close(self) -> None:
        """When no thread takes any more."""
        self._file.close()


def _hash_file(path: Path, algorithm: str) -> Any:
    state = hashlib.new(algorithm)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state


def _publish(upload: Path, blob: Path) -> None:
    """Give an upload the name of its blob, both on disk. A blob that is there already has the same bytes, and stays."""
    if blob.exists():
        upload.unlink()
        return
    _sync(upload)
    upload.rename(blob)
    _sync(blob.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
