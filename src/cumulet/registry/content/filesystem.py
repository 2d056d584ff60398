"""A content store on a file system, as an OCI image layout (OCI Image Specification 1.1, "Image Layout").

`blobs/<algorithm>/<hex>` are the blobs of all repositories. Manifests are in the catalog, and `index.json` names none. An
upload is a growing file in `uploads/`. A commit syncs the file to disk and renames it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple, Protocol

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.common.private_files import private_folder
from cumulet.registry.content.store import Content, DigestMismatchError, Part, UnknownUploadError

_CHUNK = 1024 * 1024
#: Bytes after which write-back to disk starts, so that the final sync has little to write.
_WRITE_BACK = 8 * 1024 * 1024
_ALGORITHMS = ("sha256", "sha512")


class _HashState(Protocol):
    """A hash of `hashlib`, whose own type has no public name."""

    def update(self, data: bytes | memoryview, /) -> None: ...

    def hexdigest(self) -> str: ...


class _Hash(NamedTuple):
    """The state of a hash over the first `offset` bytes of an upload."""

    algorithm: str
    state: _HashState
    offset: int


class FileContent(Content):
    """A content store in one folder, to which only one process writes."""

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
                if digests.is_digest(text := f"{algorithm}:{name}"):
                    yield Digest(text)

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
        writer = _Writer(self._upload(session), known.state, offset)
        try:
            await part.into(writer.write)
        finally:
            writer.close()
            self._hashes[session] = known._replace(offset=writer.offset)
        return writer.offset

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
                continue  # finished in the meantime

    def _upload(self, session: str) -> Path:
        return self._uploads / str(uuid.UUID(session))

    def _size(self, session: str) -> int:
        try:
            return self._upload(session).stat().st_size
        except FileNotFoundError:
            raise UnknownUploadError(session) from None

    async def _hash(self, session: str, algorithm: str | None) -> _Hash:
        """The hash over the received bytes, by `algorithm` or by any. Without a matching state the file is read again."""
        size = self._size(session)
        known = self._hashes.get(session)
        if known is None or known.offset != size or algorithm not in (None, known.algorithm):
            name = algorithm or "sha256"
            known = _Hash(name, await asyncio.to_thread(_hash_file, self._upload(session), name), size)
        return known


class _Writer:
    """Appends to a file and to its hash, without the interpreter's lock. `offset` is the number of bytes in both."""

    def __init__(self, path: Path, state: _HashState, offset: int) -> None:
        self.offset = offset
        self._state = state
        self._file = path.open("r+b", buffering=0)
        self._file.seek(offset)
        self._flushed = offset

    def write(self, piece: bytes | memoryview) -> None:
        """Append a piece, in a thread. Raises `OSError`."""
        view = memoryview(piece)
        while view:
            view = view[os.write(self._file.fileno(), view) :]
        self._state.update(piece)
        self.offset += len(piece)
        if self.offset - self._flushed >= _WRITE_BACK:
            # For dirty pages this starts their write-back and drops none.
            os.posix_fadvise(self._file.fileno(), self._flushed, self.offset - self._flushed, os.POSIX_FADV_DONTNEED)
            self._flushed = self.offset

    def close(self) -> None:
        """Close the file, once no thread writes any more."""
        self._file.close()


def _hash_file(path: Path, algorithm: str) -> _HashState:
    state = hashlib.new(algorithm)
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state


def _publish(upload: Path, blob: Path) -> None:
    """Sync an upload and rename it to its blob. A blob that exists already has the same bytes and is kept."""
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
