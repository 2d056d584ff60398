"""Thousands of odd requests to the registry: its data plane and its provider never fail, and nobody gets in."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import pytest

from tests.registry.login_server import AcrRegistry
from tests.security.fuzzing import Reply, Request, Stream, Wire, check
from tests.security.routes import RecordingCloud

SEED = 20261131
COUNT = 2000
_DIGEST = "sha256:" + "0" * 64
BODIES = (
    {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": _DIGEST, "size": 2},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": _DIGEST, "size": 2}],
        "subject": {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": _DIGEST, "size": 2},
        "annotations": {"a": "b"},
    },
    {
        "schemaVersion": 2,
        "manifests": [{"mediaType": "x/y", "digest": _DIGEST, "size": 1, "platform": {"os": "linux"}}],
    },
    {"changeableAttributes": {"deleteEnabled": False}, "deleteEnabled": True, "listEnabled": True},
    {"location": "eastus", "sku": {"name": "Premium"}, "properties": {"adminUserEnabled": True, "policies": {}}},
    {"properties": {"actions": ["repositories/x/content/read"], "description": "x"}},
    {"properties": {"scopeMapId": "x", "status": "enabled", "credentials": {"passwords": [{"name": "password1"}]}}},
    {"location": "eastus", "properties": {"serviceUri": "http://127.0.0.1:1/", "actions": ["push"], "scope": "x:*"}},
    {"properties": {"sourceRepository": "docker.io/library/*", "targetRepository": "x/*"}},
    {"properties": {"loginServer": "docker.io", "authCredentials": [{"username": "u", "password": "p"}]}},
    {"tokenId": "x", "name": "password1", "expiry": "2030-01-01T00:00:00Z"},
    {"name": "password", "dryRun": True, "type": "Microsoft.ContainerRegistry/registries"},
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingCloud]:
    made = RecordingCloud(tmp_path_factory.mktemp("fuzz") / "data", "arm", "registry")
    assert made.arm("PUT", f"{made.subscription}/resourceGroups/group", {"location": "eastus"}).status == 201
    yield made
    made.close()


@pytest.fixture(scope="module")
def acr(cloud: RecordingCloud) -> AcrRegistry:
    made = AcrRegistry(cloud, "fuzzed", adminUserEnabled=True)
    made.push("some/repository", "v1")
    return made


@pytest.fixture(scope="module")
def paths(cloud: RecordingCloud) -> list[tuple[str, str]]:
    values = {
        "subscription": cloud.config.subscription_id,
        "group": "group",
        "registry": "fuzzed",
        "name": "something",
    }
    return [(route.method, route.path) for route in cloud.routes("registry", values)]


def _run(cloud: RecordingCloud, stream: Stream, count: int, *, show: bool = False) -> Iterator[tuple[Request, Reply]]:
    wire = Wire(cloud.config.addresses["registry"], cloud.tls("registry", "arm" if show else None))
    try:
        for request in stream.take(count):
            reply = wire.send(request)
            assert (wrong := check(reply, request)) is None, wrong
            yield request, reply
    finally:
        wire.close()


def _data_plane(paths: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(method, path) for method, path in paths if path.startswith(("/v2", "/acr", "/oauth2"))]


def test_nobody_gets_in(cloud: RecordingCloud, acr: AcrRegistry, paths: list[tuple[str, str]]) -> None:
    answered = 0
    for request, reply in _run(cloud, Stream(SEED, paths, BODIES), COUNT):
        answered += reply.status > 0
        if 200 <= reply.status < 300:
            assert request.path in ("/healthz", "/readyz"), f"{reply.status} to {request}"
    assert answered > COUNT * 0.9
    assert acr.arm("GET").body["properties"]["adminUserEnabled"] is True


def test_a_wrong_password_gets_nobody_in(
    cloud: RecordingCloud, acr: AcrRegistry, paths: list[tuple[str, str]]
) -> None:
    headers = [("Authorization", f"Basic {base64.b64encode(b'fuzzed:wrong').decode()}")]
    for request, reply in _run(cloud, Stream(SEED + 1, _data_plane(paths), BODIES, headers), 500):
        assert not 200 <= reply.status < 300 or request.path in ("/healthz", "/readyz"), (
            f"{reply.status} to {request}"
        )


def test_a_token_for_one_repository_breaks_nothing_and_reaches_no_other(
    cloud: RecordingCloud, acr: AcrRegistry, paths: list[tuple[str, str]]
) -> None:
    token = acr.admin_token("repository:some/repository:pull,push,delete,metadata_read,metadata_write")
    headers = [("Authorization", f"Bearer {token}")]
    for request, reply in _run(cloud, Stream(SEED + 2, _data_plane(paths), BODIES, headers), COUNT):
        if 200 <= reply.status < 300:
            known = request.path in ("/healthz", "/readyz", "/v2/", "/v2")
            assert known or "/some/repository" in request.path, f"{reply.status} to {request}"


def test_the_front_door_is_answered_whatever_it_hands_on(
    cloud: RecordingCloud, acr: AcrRegistry, paths: list[tuple[str, str]]
) -> None:
    provider = [(method, path) for method, path in paths if path.startswith("/subscriptions")]
    for _ in _run(cloud, Stream(SEED + 3, provider, BODIES), COUNT, show=True):
        pass
    assert cloud.call("registry", "GET", "/readyz").status == 200
