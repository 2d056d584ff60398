"""Cached responses are identical to first responses, and require the same rights."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from cumulet.common.database import Database
from cumulet.common.logs import AccessLog
from cumulet.registry.access import request_context
from cumulet.registry.catalog.running_pushes import RunningPushes
from cumulet.registry.instrumentation import Observer
from cumulet.registry.response_cache import ResponseCache
from tests.registry.login_server import AcrRegistry


@pytest.fixture
def token(acr: AcrRegistry, repository: str) -> str:
    """A token with all rights on the repository of the test."""
    acr.push(repository, "v1", b"first")
    return acr.admin_token(f"repository:{repository}:pull,push,delete,metadata_read,metadata_write")


def test_a_cached_response_is_identical(acr: AcrRegistry, repository: str, token: str) -> None:
    first, *others = [acr.manifest(repository, "v1", token=token) for _ in range(3)]
    assert first.status == 200
    for other in others:
        assert other.body == first.body
        assert _but_date(other.headers) == _but_date(first.headers)
        assert "Date" in other.headers


def test_blobs_and_ranges(acr: AcrRegistry, repository: str, token: str) -> None:
    content = bytes(range(256)) * 4096
    path = f"/v2/{repository}/blobs/{acr.blob(repository, content, token)['digest']}"
    for _ in range(3):
        whole = acr.call("GET", path, token=token)
        assert (whole.status, whole.body) == (200, content)
        part = acr.call("GET", path, token=token, headers={"Range": "bytes=1000-1999"})
        assert (part.status, part.body) == (206, content[1000:2000])
        head = acr.call("HEAD", path, token=token)
        assert (head.status, head.headers["Content-Length"]) == (200, str(len(content)))
        assert acr.call("GET", path, token=token, headers={"If-None-Match": whole.headers["ETag"]}).status == 304


def test_every_write_invalidates_the_cache(acr: AcrRegistry, repository: str, token: str) -> None:
    for content in (b"second", b"third"):
        acr.manifest(repository, "v1", token=token)
        digest = acr.push(repository, "v1", content)
        assert acr.manifest(repository, "v1", token=token).headers["Docker-Content-Digest"] == digest
    assert acr.call("DELETE", f"/v2/{repository}/manifests/v1", token=token).status == 202
    assert acr.manifest(repository, "v1", token=token).status == 404


def test_a_cached_response_requires_the_right(acr: AcrRegistry, repository: str, token: str) -> None:
    other = acr.admin_token("repository:another:pull,push", "repository:catalog:pull")
    pusher = acr.admin_token(f"repository:{repository}:push")
    catalog = acr.admin_token("registry:catalog:*")
    paths = [f"/v2/{repository}/manifests/v1", f"/v2/{repository}/tags/list"]
    for _ in range(3):
        for path in paths:
            assert acr.call("GET", path, token=token).status == 200
            assert acr.call("GET", path).status == 401
            for wrong in (other, pusher, catalog, token[:-2]):
                assert acr.call("GET", path, token=wrong).status == 401
        assert acr.call("GET", "/v2/_catalog", token=catalog).status == 200
        assert acr.call("GET", "/v2/_catalog", token=other).status == 401


def test_a_cached_response_belongs_to_its_registry(acr: AcrRegistry, repository: str, token: str) -> None:
    second = AcrRegistry(acr.cloud, "acrsecond", adminUserEnabled=True)
    assert acr.manifest(repository, "v1", token=token).status == 200
    assert acr.manifest(repository, "v1", token=token).status == 200
    assert second.manifest(repository, "v1", token=token).status == 401
    assert second.manifest(repository, "v1", token=second.admin_token(f"repository:{repository}:pull")).status == 404


def test_other_spellings_of_a_path(acr: AcrRegistry, repository: str, token: str) -> None:
    encoded = f"/v2/{quote(repository, safe='')}/manifests/v1"
    for _ in range(2):
        assert acr.call("GET", encoded, token=token).status == 200
        assert acr.manifest(repository, "v1/", token=token).status == 404
        assert acr.manifest(repository, "v1?x=1", token=token).status == 200


class _Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def handled(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[tuple[str, list[str], _Clock]]:
    """A server behind `ResponseCache` that records its requests. Its token expires at 1060."""
    reached: list[str] = []
    clock = _Clock()
    database = Database(tmp_path / "db", ["CREATE TABLE t (a)"])
    database.open()
    access = AccessLog("registry")
    answers = ResponseCache(database, RunningPushes(60.0), Observer(CollectorRegistry(), access), clock)

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        reached.append(request.path)
        context = request_context.of(request)
        context.token_ends, context.scope, context.place = 1060.0, "repository:a:pull", ("r", "a")
        return web.Response(body=b"x" * int(request.path.rpartition("/")[2]), headers={"Docker-Content-Digest": "d"})

    runner = web.ServerRunner(web.Server(answers.around(handle)))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", unused_tcp_port).start()
    yield f"http://127.0.0.1:{unused_tcp_port}/v2/a/manifests/", reached, clock
    await runner.cleanup()
    access.close()
    database.close()


async def test_an_expired_token_is_checked_again(handled: tuple[str, list[str], _Clock]) -> None:
    url, reached, clock = handled
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session:
        for now, expected in ((1000.0, 1), (1000.0, 1), (1059.9, 1), (1060.0, 2), (1061.0, 3)):
            clock.now = now
            await _get(session, url, 10)
            assert len(reached) == expected


async def test_large_bodies_are_not_cached(handled: tuple[str, list[str], _Clock]) -> None:
    url, reached, _ = handled
    async with aiohttp.ClientSession(headers={"Authorization": "Bearer t"}) as session:
        for _ in range(4):
            await _get(session, url, 65_537)
        assert len(reached) == 4
        for _ in range(3):
            await _get(session, url, 65_536)
        assert len(reached) == 5


async def _get(session: aiohttp.ClientSession, url: str, size: int) -> None:
    async with session.get(f"{url}{size}") as response:
        assert response.status == 200
        assert len(await response.read()) == size


def _but_date(headers: object) -> dict[str, str]:
    return {key: value for key, value in dict(headers).items() if key not in ("Date", "Server")}  # type: ignore[call-overload]
