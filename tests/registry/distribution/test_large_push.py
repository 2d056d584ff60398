"""A push and pull of 5 GB does not use more memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import pytest

from tests.registry.client import Registry

SIZE = 5 * 1024**3
PIECE = bytes(4 * 1024**2)
GROWTH = 80 * 1024**2

pytestmark = [pytest.mark.clients, pytest.mark.timeout(1200)]


def pieces() -> Iterator[bytes]:
    for _ in range(SIZE // len(PIECE)):
        yield PIECE


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_memory_stays_flat(make_registry: Callable[[], Registry], algorithm: str) -> None:
    registry = make_registry()
    before = registry.cloud.peak_memory("registry")  # a room starts with the memory of this process
    state = hashlib.new(algorithm)
    for piece in pieces():
        state.update(piece)
    digest = f"{algorithm}:{state.hexdigest()}"
    location = registry.start("large")
    answer = registry.call("PATCH", location, pieces())
    assert answer.headers["Range"] == f"0-{SIZE - 1}"
    assert registry.call("PUT", f"{location}?digest={digest}").status == 201
    size = 0
    with registry.get("large", digest) as response:
        while piece := response.read(len(PIECE)):
            size += len(piece)
    assert size == SIZE
    growth = registry.cloud.peak_memory("registry") - before
    assert growth < GROWTH, f"{growth / 1024**2:.0f} MiB"
    assert registry.call("DELETE", f"/v2/large/blobs/{digest}").status == 202
