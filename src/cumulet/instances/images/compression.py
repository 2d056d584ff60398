"""Decompresses untrusted layers as streams: gzip (RFC 1952), Zstandard (RFC 8878) or none, recognized by the first bytes.

Builders and registries confuse media types, so these are not consulted, as in containerd. A stream can have many parts:
some tools write a gzip member or a Zstandard frame for each file, and frames that a decoder skips (eStargz, zstd:chunked).
"""

from __future__ import annotations

import hashlib
import sys
import threading
import zlib
from collections.abc import Callable
from typing import Protocol

from cumulet.common.digests import Digest
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.errors import Fault

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: The most bytes that are decompressed at once.
CHUNK = 1024 * 1024
#: Parts of a stream, and parts without content.
_PARTS, _EMPTY_PARTS = 1_000_000, 1000
#: Bytes of the first piece that a part gets; each further piece is twice as large.
_FIRST_PIECE = 512
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
#: Bytes 2 to 4 of a frame that a decoder skips. The first byte is 0x50 to 0x5f.
_SKIPPABLE = b"\x2a\x4d\x18"
_UNSUPPORTED = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz", b"\x04\x22\x4d\x18": "lz4"}
_LONGEST_MAGIC = 6
#: The most bytes of the header of a frame.
_FRAME_HEADER = 18
#: The largest window of a frame, as a power of two: the limit of the program zstd. A decoder keeps it in memory.
_WINDOW_LOG = 27
#: RFC 8878 asks every decoder for windows of 8 MiB. A few larger ones are in memory at the same time.
_SMALL_WINDOW = 8 * 1024 * 1024
_large_windows = threading.BoundedSemaphore(4)


class _Decoder(Protocol):
    """Decompresses one part. It keeps input that it has not used yet."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: memoryview, max_length: int) -> bytes: ...


class _GzipMember:
    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(wbits=31)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def unused_data(self) -> bytes:
        return self._inflate.unused_data

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: memoryview, max_length: int) -> bytes:
        return self._inflate.decompress(data if self.needs_input else self._inflate.unconsumed_tail, max_length)


class Decompressed:
    """The archive of a layer, with its size and its digest (the `diff_id`). Close it at the end."""

    def __init__(self, source: Callable[[], bytes], algorithm: str, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._raw = self._given = memoryview(b"")
        self._fill(_LONGEST_MAGIC)
        self._kind = _recognize(bytes(self._raw[:_LONGEST_MAGIC]))
        self._decoder: _Decoder | None = None
        self._piece = _FIRST_PIECE
        self._parts = self._empty_parts = 0
        self._part_is_empty = False
        self._has_large_window = False
        self._buffer = memoryview(b"")
        self._size = 0
        self._digest = hashlib.new(algorithm)

    @property
    def size(self) -> int:
        """The number of unpacked bytes."""
        return self._size

    def digest(self) -> Digest:
        """Return the digest of the unpacked bytes."""
        return Digest(f"{self._digest.name}:{self._digest.hexdigest()}")

    def close(self) -> None:
        """Release the memory of the decoder."""
        self._decoder = None
        if self._has_large_window:
            self._has_large_window = False
            _large_windows.release()

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end. Raises `LayerError`."""
        if size <= len(self._buffer):
            found, self._buffer = self._buffer[:size], self._buffer[size:]
            return bytes(found)
        parts: list[memoryview] = []
        while size:
            if not self._buffer:
                self._buffer = memoryview(self._next())
                if not self._buffer:
                    break
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _fill(self, count: int) -> None:
        """Read until there are `count` bytes of input, fewer at its end."""
        while len(self._raw) < count and (more := self._source()):
            self._raw = memoryview(bytes(self._raw) + more) if self._raw else memoryview(more)

    def _next(self) -> bytes | memoryview:
        found: bytes | memoryview = b""
        while not found:
            if self._kind == "":
                self._fill(1)
                found, self._raw = self._raw, memoryview(b"")
                if not found:
                    return b""
                break
            decoder = self._decoder
            if decoder is None or decoder.eof:
                self._fill(1)
                if not self._raw:
                    return b""
                decoder = self._decoder = self._next_part()
            found = self._decompressed(decoder)
        self._budget.add_bytes(len(found))
        self._size += len(found)
        self._digest.update(found)
        return found

    def _decompressed(self, decoder: _Decoder) -> bytes:
        """Decompress the next piece, to at most `CHUNK` bytes: the ratio can be many thousands.

        A decoder copies the input behind the end of its part. Parts can have a few bytes, so a new one gets a small piece,
        and then larger ones. That bounds the copies to a few times the input.
        """
        piece = memoryview(b"")
        if decoder.needs_input:
            self._fill(1)
            if not self._raw:
                raise LayerError("the layer ends in the middle")
            self._given, piece = self._raw, self._raw[: self._piece]
            self._raw = self._raw[len(piece) :]
            self._piece = min(2 * self._piece, CHUNK)
        try:
            found = decoder.decompress(piece, CHUNK)
        except (zlib.error, zstd.ZstdError) as error:
            raise LayerError(f"the layer cannot be decompressed: {error}") from None
        if decoder.eof and (unused := len(decoder.unused_data)):
            self._raw = self._given[len(self._given) - len(self._raw) - unused :]
        self._part_is_empty = self._part_is_empty and not found
        return found

    def _next_part(self) -> _Decoder:
        self._parts += 1
        self._empty_parts += self._part_is_empty
        if self._parts > _PARTS or self._empty_parts > _EMPTY_PARTS:
            raise LayerError(f"the layer has too many {self._kind} members")
        self._part_is_empty = True
        self._piece = _FIRST_PIECE
        self.close()
        if self._kind == "gzip":
            return _GzipMember()
        self._fill(_FRAME_HEADER)
        self._reserve(_window(bytes(self._raw[:_FRAME_HEADER])))
        return zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _WINDOW_LOG})

    def _reserve(self, window: int) -> None:
        if window > 1 << _WINDOW_LOG:
            raise LayerError(
                f"the zstd layer needs a window of {window} bytes, and a layer may have {1 << _WINDOW_LOG}: "
                "compress it with a smaller window, without --long",
                Fault.FORMAT,
            )
        if window > _SMALL_WINDOW:
            if not _large_windows.acquire(blocking=False):
                raise LayerError("other layers with large zstd windows are being unpacked", Fault.BUSY)
            self._has_large_window = True


def _recognize(first: bytes) -> str:
    """Return the compression of a stream by its first bytes: `gzip`, `zstd` or nothing. Raises `LayerError`."""
    if first.startswith(_GZIP):
        return "gzip"
    if first.startswith(_ZSTD) or (first[1:4] == _SKIPPABLE and first[0] & 0xF0 == 0x50):
        return "zstd"
    for magic, name in _UNSUPPORTED.items():
        if first.startswith(magic):
            raise LayerError(f"layers in {name} are not supported", Fault.FORMAT)
    return ""


def _window(header: bytes) -> int:
    """Return the window in bytes of a Zstandard frame (RFC 8878, 3.1.1.1); 0 if the header is not one."""
    if not header.startswith(_ZSTD) or len(header) < 6:
        return 0
    descriptor = header[4]
    if not descriptor & 0x20:
        base = 1 << (10 + (header[5] >> 3))
        return base + base // 8 * (header[5] & 7)
    # A single segment: its window is its content.
    start = 5 + (0, 1, 2, 4)[descriptor & 3]
    width = (1, 2, 4, 8)[descriptor >> 6]
    return int.from_bytes(header[start : start + width], "little") + (256 if width == 2 else 0)
