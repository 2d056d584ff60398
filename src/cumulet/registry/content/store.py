"""The store of bytes that a back end provides: blobs under their digests, and uploads that become blobs.

The contract, which `tests/registry/content/test_content.py` holds every back end to:

- **A blob** has a digest, never changes, and is visible only when it is whole, verified and durable. It is one blob however
  often it is committed, from whichever repository.
- **An upload** is a row of parts, each the bytes of one `append`, and becomes a blob by one `commit`. A back end needs
  neither to append to a file nor to rename one: where a service has multipart uploads, a part is a part and a commit is
  its completion; elsewhere a commit may write an object that names the parts.
- Of an `append` that breaks off, what came before is kept, so that a client goes on from `offset`. An upload outlives the
  process that took it: whatever `offset` counts is still there after a kill. (A power cut may lose it; the digest, which is
  checked over the whole, tells.)
- `commit` compares the digest over all bytes in order, computed as they stream in where that can be, and never with
  the blob in memory. Where it does not match nothing becomes visible, and the upload stays until it is cancelled.
- `remove` is final for whoever opens the blob afterwards; a reader that was there before may be cut off.
- **The caller orders** what it asks for one upload, and `commit` and `remove` for one digest: these never overlap.
  Everything else may. Digests and sessions have been checked against their grammar by then.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

from cumulet.common.digests import Digest


class DigestMismatchError(Exception):
    """What was uploaded has another digest; the message has the real one."""


class UnknownUploadError(Exception):
    """There is no such upload."""


class Part:
    """The bytes of one `append`, to be had once: piece by piece on the event loop, or in threads."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces. Raises whatever breaks them off."""
        return aiter(self._pieces)

    async def into(self, take: Callable[[bytes | memoryview], None]) -> None:
        """Hand all of it to `take`, in order and in threads, and return or raise when that is through.

        A piece is good only while `take` runs. Raises what breaks the pieces off, after those before were taken, and what
        `take` raises.
        """
        step: asyncio.Future[None] | None = None
        try:
            async for piece in self:
                if step is not None:
                    await through(step)
                step = asyncio.get_running_loop().run_in_executor(None, take, piece)  # while the next one comes
        finally:
            if step is not None:
                await through(step)


async def through(step: asyncio.Future[None]) -> None:
    """Wait for a thread, also when cancelled: what it works on must not be closed before."""
    cancelled: asyncio.CancelledError | None = None
    while not step.done():
        try:
            await asyncio.wait([step])
        except asyncio.CancelledError as error:
            cancelled = error
    step.result()
    if cancelled is not None:
        raise cancelled


class Content(ABC):
    """The bytes of one registry room."""

    # Blobs.

    @abstractmethod
    async def size(self, digest: Digest) -> int | None:
        """Bytes of a blob, or `None` where there is no such blob."""

    @abstractmethod
    def path(self, digest: Digest) -> Path | None:
        """A file that holds just this blob, for the kernel to send; `None` where the back end has no such files."""

    @abstractmethod
    def read(self, digest: Digest, first: int, after: int) -> AsyncIterator[bytes]:
        """The bytes of a blob from `first` up to `after`, in pieces of at most a few MiB."""

    @abstractmethod
    def digests(self) -> AsyncIterator[Digest]:
        """Every blob that is stored, in no order."""

    @abstractmethod
    async def remove(self, digest: Digest) -> None:
        """Delete a blob; one that is not there is fine."""

    # Uploads.

    @abstractmethod
    async def start(self) -> str:
        """Begin an upload; the name of its session, a UUID."""

    @abstractmethod
    async def offset(self, session: str) -> int:
        """Bytes received so far. Raises `UnknownUploadError`."""

    @abstractmethod
    async def append(self, session: str, part: Part, algorithm: str) -> int:
        """Take a part as it comes; the bytes received in all. Raises `UnknownUploadError`, and what `part` raises.

        `algorithm` is the one that the digest will probably have: to be told the right one saves reading it all again.
        """

    @abstractmethod
    async def commit(self, session: str, digest: Digest) -> int:
        """Verify an upload and make it a blob; its size. Raises `DigestMismatchError`, `UnknownUploadError`."""

    @abstractmethod
    async def cancel(self, session: str) -> None:
        """Forget an upload; one that is not there is fine."""

    @abstractmethod
    def uploads(self) -> AsyncIterator[tuple[str, float]]:
        """Every upload, with the seconds since it last received something."""
