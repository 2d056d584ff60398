"""Compressed layers are read as streams of any shape, within bounds."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
from collections.abc import Callable

import pytest

from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.compression import Decompressed
from cumulet.instances.images.errors import Fault
from tests.instances.images import zstd

_LIMIT = 32 * 1024 * 1024
_SKIPPED = b"\x53\x2a\x4d\x18\x05\0\0\0abcde"
_chance = random.Random(1)
_CONTENT = b"".join(_chance.randbytes(500) + bytes(3000) for _ in range(40))


def parts(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def decompressed(raw: bytes, *, step: int = 256 * 1024, limit: int = _LIMIT) -> bytes:
    """Read a stream that arrives in pieces of `step` bytes, in reads of odd sizes."""
    source = io.BytesIO(raw)
    stream = Decompressed(lambda: source.read(step), "sha256", Budget(limit))
    found = b""
    try:
        while piece := stream.read(10_007):
            found += piece
    finally:
        stream.close()
    assert stream.size == len(found)
    return found


@pytest.mark.parametrize("step", [3, 700, 256 * 1024])
@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(_CONTENT, id="none"),
        pytest.param(gzip.compress(_CONTENT), id="gzip"),
        pytest.param(b"".join(map(gzip.compress, parts(_CONTENT, 3000))), id="members"),
        pytest.param(zstd(_CONTENT), id="zstd"),
        pytest.param(_SKIPPED + zstd(_CONTENT[:5000]) + _SKIPPED + zstd(_CONTENT[5000:]) + _SKIPPED, id="frames"),
        pytest.param(zstd(_CONTENT, window_log=27), id="large-window"),
    ],
)
def test_a_stream_of_any_shape_is_read(raw: bytes, step: int) -> None:
    assert decompressed(raw, step=step) == _CONTENT


@pytest.mark.parametrize(
    ("raw", "reason", "fault"),
    [
        (zstd(_CONTENT)[:-5], "ends in the middle", Fault.INVALID),
        (gzip.compress(_CONTENT)[:-5], "ends in the middle", Fault.INVALID),
        (zstd(_CONTENT) + b"garbage", "cannot be decompressed", Fault.INVALID),
        (gzip.compress(_CONTENT) + b"garbage", "cannot be decompressed", Fault.INVALID),
        (_SKIPPED * 2000, "too many zstd members", Fault.INVALID),
        (zstd(b"") * 2000, "too many zstd members", Fault.INVALID),
        (zstd(_CONTENT, window_log=30), "needs a window of 1073741824 bytes", Fault.FORMAT),
        (b"BZh91AY&SY", "layers in bzip2 are not supported", Fault.FORMAT),
        (b"\xfd7zXZ\0", "layers in xz are not supported", Fault.FORMAT),
    ],
)
def test_a_stream_that_is_none_is_refused(raw: bytes, reason: str, fault: Fault) -> None:
    with pytest.raises(LayerError, match=reason) as caught:
        decompressed(raw)
    assert caught.value.fault is fault


@pytest.mark.parametrize("compress", [gzip.compress, zstd])
def test_a_bomb_costs_no_more_than_the_limit(compress: Callable[[bytes], bytes]) -> None:
    raw = compress(bytes(40 * 1024 * 1024))
    stream = Decompressed(io.BytesIO(raw).read, "sha256", Budget(_LIMIT))
    tracemalloc.start()
    try:
        with pytest.raises(LayerError, match="unpacks to more than"):
            sum(len(stream.read(1024 * 1024)) for _ in range(40))
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024 * 1024
    finally:
        tracemalloc.stop()
        stream.close()


def test_few_large_windows_are_in_memory_at_once() -> None:
    raw = zstd(_CONTENT, window_log=27)
    streams = [Decompressed(io.BytesIO(raw).read, "sha256", Budget(_LIMIT)) for _ in range(5)]
    try:
        for stream in streams[:4]:
            assert stream.read(10)
        with pytest.raises(LayerError) as caught:
            streams[4].read(10)
        assert caught.value.fault is Fault.BUSY
        streams[0].close()
        assert streams[4].read(10)
    finally:
        for stream in streams:
            stream.close()
