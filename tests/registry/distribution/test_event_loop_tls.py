"""The registry with the event loop's TLS (`tls: asyncio` in the settings)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.registry.client import Registry, digest_of, noise

#: Larger than one write, and not a multiple of it.
DATA = noise(3_000_001)
DIGEST = digest_of(DATA)
PATH = f"/v2/event-loop-tls/blobs/{DIGEST}"


@pytest.fixture(scope="module")
def registry(make_registry: Callable[[], Registry]) -> Iterator[Registry]:
    """A registry with one blob, in a room that starts with this setting."""
    made = make_registry()
    with made.cloud.changed("registry", tls="asyncio"):
        made.push_blob("event-loop-tls", DATA)
        yield made


def test_a_blob_is_pulled_repeatedly(registry: Registry) -> None:
    for _ in range(3):  # the later responses come from the cache
        answer = registry.call("GET", PATH)
        assert answer.status == 200
        assert answer.body == DATA


def test_a_range(registry: Registry) -> None:
    answer = registry.call("GET", PATH, range="bytes=100-2500000")
    assert answer.status == 206
    assert answer.body == DATA[100:2_500_001]


def test_a_client_that_disconnects_during_a_pull(registry: Registry) -> None:
    with registry.get("event-loop-tls", DIGEST) as response:
        assert response.read(1000) == DATA[:1000]
    assert registry.call("GET", PATH).body == DATA
