"""The interface of a content store: blobs by digest, and uploads that become blobs.

The contract, which `tests/registry/content/test_content.py` checks for every back end:

- **A blob** has a digest, never changes, and is visible only when it is complete, verified and durable. Committing the
  same digest again, from any repository, gives the same blob.
- **An upload** is a sequence of parts, each the bytes of one `append`. One `commit` makes it a blob. A back end need not
  append to files or rename them. With multipart uploads of a service, a part is a part and a commit is the completion.
  Elsewhere a commit may write an object that lists the parts.
- When an `append` is interrupted, the bytes before that are kept, so that a client continues from `offset`. An upload
  survives a kill of the process with all bytes that `offset` counts. A power failure may lose bytes, which the digest over
  the whole upload then detects.
- `commit` verifies the digest over all bytes in order. It is computed as they stream in where possible, and never with
  the blob in memory. On a mismatch nothing becomes visible, and the upload stays until it is cancelled.
- `remove` is final for readers that open the blob afterwards. Earlier readers may be cut off.
- **The caller serializes** calls for one upload, and `commit` and `remove` for one digest. All other calls may overlap.
  The caller has checked digests and sessions against their grammar.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

from cumulet.common.digests import Digest


class DigestMismatchError(Exception):
    """The uploaded bytes have another digest, which is the message."""


class UnknownUploadError(Exception):
    """The upload does not exist."""


class Part:
    """The bytes of one `append`, readable once: piece by piece on the event loop, or in threads."""

    def __init__(self, pieces: AsyncIterable[bytes]) -> None:
        self._pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        """The pieces. Raises the error that interrupts them."""
        return aiter(self._pieces)

    async def into(self, take: Callable[[bytes | memoryview], None]) -> None:
        """Pass all pieces to `take`, in order and in threads, and return after the last call.

        A piece is valid only during its call. Raises the error that interrupts the pieces, once `take` has had those before
        it, and the errors of `take`.
        """
        step: asyncio.Future[None] | None = None
        try:
            async for piece in self:
                if step is not None:
                    await through(step)
                step = asyncio.get_running_loop().run_in_executor(None, take, piece)  # while the next piece arrives
        finally:
            if step is not None:
                await through(step)


async def through(step: asyncio.Future[None]) -> None:
    """Wait for a thread, also when cancelled: the file that it writes must not be closed earlier."""
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
    """The content store of the room."""

    # Blobs.

    @abstractmethod
    async def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes, or `None` where it does not exist."""

    @abstractmethod
    def path(self, digest: Digest) -> Path | None:
        """A file with exactly this blob, for the kernel to send, or `None` where the back end has no such files."""

    @abstractmethod
    def read(self, digest: Digest, first: int, after: int) -> AsyncIterator[bytes]:
        """The bytes of a blob from `first` up to `after`, in pieces of at most a few MiB."""

    @abstractmethod
    def digests(self) -> AsyncIterator[Digest]:
        """Every stored blob, in no order."""

    @abstractmethod
    async def remove(self, digest: Digest) -> None:
        """Delete a blob, if it exists."""

    # Uploads.

    @abstractmethod
    async def start(self) -> str:
        """Begin an upload and return the name of its session, a UUID."""

    @abstractmethod
    async def offset(self, session: str) -> int:
        """The bytes received so far. Raises `UnknownUploadError`."""

    @abstractmethod
    async def append(self, session: str, part: Part, algorithm: str) -> int:
        """Store a part as it arrives and return the bytes received in total.

        `algorithm` is the expected algorithm of the digest. The right one saves reading the upload again at the end.
        Raises `UnknownUploadError`, and the errors of `part`.
        """

    @abstractmethod
    async def commit(self, session: str, digest: Digest) -> int:
        """Verify an upload, make it a blob, and return its size. Raises `DigestMismatchError`, `UnknownUploadError`."""

    @abstractmethod
    async def cancel(self, session: str) -> None:
        """Delete an upload, if it exists."""

    @abstractmethod
    def uploads(self) -> AsyncIterator[tuple[str, float]]:
        """Every upload, with the seconds since it last received bytes."""
