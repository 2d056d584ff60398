"""The state of a room: readiness for every caller, and the reason for `cumulet status`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.up.lifecycle import status
from tests.cloud import Cloud


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A scheduler without an API server."""
    made = Cloud(tmp_path_factory.mktemp("status") / "data", "scheduler")
    yield made
    made.close()


async def test_a_room_says_why_it_is_not_ready_to_those_who_may_know(cloud: Cloud) -> None:
    assert cloud.call("scheduler", "GET", "/healthz").body == b"ok"
    answer = cloud.call("scheduler", "GET", "/readyz")
    assert (answer.status, answer.body) == (503, b"not ready")
    assert cloud.call("scheduler", "GET", "/readyz", show="balancer").body == b"not ready"
    assert b"waiting for" in cloud.call("scheduler", "GET", "/readyz", show="metrics").body
    health = {room.room: room.health for room in await status(cloud.config)}
    assert health["identity"] == "ready"
    assert health["scheduler"].startswith("not ready: waiting for ")
    assert health["arm"].startswith("down: ")


async def test_status_without_the_scrapers_certificate(cloud: Cloud) -> None:
    """The data directory of an earlier version that was not started since has none."""
    files = cloud.config.scraper_files
    kept = [file.read_bytes() for file in files]
    for file in files:
        file.unlink()
    try:
        health = {room.room: room.health for room in await status(cloud.config)}
        assert health["identity"] == "ready"
        assert health["scheduler"] == "not ready"
    finally:
        for file, content in zip(files, kept, strict=True):
            file.write_bytes(content)
