"""Thousands of odd requests to identity: it never fails, and nobody gets in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.common.entra import GRAPH_AUDIENCE
from tests.security.fuzzing import Reply, Request, Stream, Wire, check
from tests.security.routes import RecordingCloud

SEED = 20261130
COUNT = 2500
BODIES = (
    {"displayName": "x", "keyCredentials": [{"key": "AAAA", "keyId": "3fa85f64-5717-4562-b3fc-2c963f66afa6"}]},
    {"passwordCredential": {"displayName": "x", "endDateTime": "2030-01-01T00:00:00Z"}},
    {"appId": "3fa85f64-5717-4562-b3fc-2c963f66afa6"},
    {"ids": ["3fa85f64-5717-4562-b3fc-2c963f66afa6"]},
    {"keyId": "3fa85f64-5717-4562-b3fc-2c963f66afa6"},
    {"location": "eastus", "tags": {"a": "b"}},
    {"properties": {"roleName": "x", "permissions": [{"actions": ["*"]}], "assignableScopes": ["/subscriptions/x"]}},
    {
        "properties": {
            "roleDefinitionId": "8e3af657-a8ff-443c-a75c-2fe8c4bcb635",
            "principalId": "x",
            "condition": "x",
        }
    },
)
_PUBLIC = ("/v2.0/.well-known/openid-configuration", "/discovery/v2.0/keys")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingCloud]:
    made = RecordingCloud(tmp_path_factory.mktemp("fuzz") / "data")
    yield made
    made.close()


@pytest.fixture(scope="module")
def paths(cloud: RecordingCloud) -> list[tuple[str, str]]:
    values = {
        "tenant": cloud.config.tenant_id,
        "subscription": cloud.config.subscription_id,
        "scope": f"{cloud.subscription[1:]}/",
        "group": "group",
        "name": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
        "app_id": cloud.owner.client_id,
    }
    return [(route.method, route.path) for route in cloud.routes("identity", values)]


def _run(cloud: RecordingCloud, stream: Stream, count: int, *, show: bool = False) -> Iterator[tuple[Request, Reply]]:
    shown: tuple[Path, ...] = cloud.config.certificate_files("arm") if show else ()
    wire = Wire(cloud.config.addresses["identity"], cloud.tls("identity", "arm" if shown else None))
    try:
        for request in stream.take(count):
            reply = wire.send(request)
            assert (wrong := check(reply, request)) is None, wrong
            yield request, reply
    finally:
        wire.close()


def test_nobody_gets_in(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    answered = 0
    for request, reply in _run(cloud, Stream(SEED, paths, BODIES), COUNT):
        answered += reply.status > 0
        if 200 <= reply.status < 300:
            path = request.path
            assert path in ("/healthz", "/readyz") or path.endswith(_PUBLIC), f"{reply.status} to {request}"
    assert answered > COUNT * 0.9
    assert cloud.call("identity", "GET", "/healthz").status == 200


def test_a_principal_without_a_right_changes_nothing(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    token = _nobody(cloud)
    before = cloud.graph("GET", "/applications").body
    headers = [("Authorization", f"Bearer {token}")]
    for request, reply in _run(cloud, Stream(SEED + 1, paths, BODIES, headers), COUNT):
        if request.method not in ("GET", "HEAD") and 200 <= reply.status < 300:
            assert request.path.lower().rstrip("/").endswith("getbyids"), f"{reply.status} to {request}"
    assert cloud.graph("GET", "/applications").body == before


def test_the_front_door_is_answered_whatever_it_hands_on(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    """With the front door's certificate everything is open, and nothing that comes through breaks it."""
    for _ in _run(cloud, Stream(SEED + 2, paths, BODIES), COUNT, show=True):
        pass


def test_the_owner_breaks_nothing_in_the_directory(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    graph = [
        (method, path) for method, path in paths if path.startswith("/v1.0/") and cloud.owner.client_id not in path
    ]
    headers = [("Authorization", f"Bearer {cloud.token(audience=GRAPH_AUDIENCE)}")]
    for _ in _run(cloud, Stream(SEED + 3, graph, BODIES, headers), COUNT):
        pass
    assert cloud.token()


def test_forms_that_nobody_means(cloud: RecordingCloud) -> None:
    path = f"/{cloud.config.tenant_id}/oauth2/v2.0/token"
    headers = [("Content-Type", "application/x-www-form-urlencoded")]
    for request, reply in _run(cloud, Stream(SEED + 4, [("POST", path)], BODIES, headers), 500):
        assert not 200 <= reply.status < 300 or request.method != "POST", f"{reply.status} to {request}"


def _nobody(cloud: RecordingCloud) -> str:
    application = cloud.graph("POST", "/applications", {"displayName": "nobody"}).body
    cloud.graph("POST", "/servicePrincipals", {"appId": application["appId"]})
    secret = cloud.graph("POST", f"/applications/{application['id']}/addPassword", {}).body
    form = {"client_id": application["appId"], "client_secret": secret["secretText"]}
    token: str = cloud.ask_token(**form, scope=f"{GRAPH_AUDIENCE}/.default").body["access_token"]
    return token
