"""Thousands of odd requests to the front door, and through it to the providers: it never fails, and nobody gets in."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.common.config import RoomName
from cumulet.instances.cleanup import cleanup
from tests.cloud import Cloud
from tests.installation import free_pod_cidr
from tests.security import test_fuzz_identity, test_fuzz_registry
from tests.security.fuzzing import Reply, Request, Stream, Wire, check
from tests.security.routes import RecordingCloud, of_the_door

SEED = 20261132
COUNT = 2500
PROVIDERS: tuple[RoomName, ...] = ("identity", "registry", "instances")
CONTAINER_GROUP = {
    "location": "eastus",
    "tags": {"a": "b"},
    "properties": {
        "osType": "Linux",
        "restartPolicy": "Never",
        "containers": [
            {
                "name": "main",
                "properties": {
                    "image": "127.0.0.1:1/nothing:v1",
                    "resources": {"requests": {"cpu": 1.0, "memoryInGB": 1.0}},
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                    "environmentVariables": [{"name": "A", "value": "b"}, {"name": "B", "secureValue": "c"}],
                },
            }
        ],
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "imageRegistryCredentials": [{"server": "127.0.0.1:1", "username": "u", "password": "p"}],
    },
}
BODIES = (
    *test_fuzz_identity.BODIES,
    *test_fuzz_registry.BODIES,
    CONTAINER_GROUP,
    {"command": "sh -c 'x", "terminalSize": {"rows": 1, "cols": 1}},
    {"identity": {"type": "UserAssigned", "userAssignedIdentities": {"/subscriptions/x": {}}}, "location": "eastus"},
)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RecordingCloud]:
    made = RecordingCloud(
        tmp_path_factory.mktemp("fuzz") / "data", "arm", "registry", "instances", pod_cidr=free_pod_cidr()
    )
    try:
        assert made.arm("PUT", f"{made.subscription}/resourceGroups/group", {"location": "eastus"}).status == 201
        yield made
    finally:
        made.close()
        cleanup(made.config)


@pytest.fixture(scope="module")
def paths(cloud: RecordingCloud) -> list[tuple[str, str]]:
    values = {
        "subscription": cloud.config.subscription_id,
        "scope": f"{cloud.subscription[1:]}/resourceGroups/group/",
        "group": "group",
        "registry": "fuzzed",
        "name": "3fa85f64-5717-4562-b3fc-2c963f66afa6",
    }
    provided = [
        (route.method, route.path)
        for room in PROVIDERS
        for route in cloud.routes(room, values)
        if "/providers/" in route.path
    ]
    own = [(method, path) for path in of_the_door(cloud.subscription) for method in ("GET", "PUT", "PATCH", "POST")]
    return [*provided, *own, ("GET", "/metadata/endpoints"), ("GET", "/healthz"), ("GET", "/metrics")]


def _run(cloud: RecordingCloud, stream: Stream, count: int) -> Iterator[tuple[Request, Reply]]:
    wire = Wire(cloud.config.addresses["arm"], cloud.tls("arm"))
    try:
        for request in stream.take(count):
            reply = wire.send(request)
            assert (wrong := check(reply, request)) is None, wrong
            yield request, reply
    finally:
        wire.close()


def _bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")]


def test_nobody_gets_in(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    answered = 0
    for request, reply in _run(cloud, Stream(SEED, paths, BODIES), COUNT):
        answered += reply.status > 0
        if 200 <= reply.status < 300:
            plain = [part for part in request.path.lower().split("/") if part]
            known = request.path in ("/healthz", "/readyz") or plain == ["metadata", "endpoints"]
            assert known, f"{reply.status} to {request}"
    assert answered > COUNT * 0.9


def test_a_principal_without_a_role_changes_and_sees_nothing(
    cloud: RecordingCloud, paths: list[tuple[str, str]]
) -> None:
    token = cloud.token(cloud.principal("nobody"))
    for request, reply in _run(cloud, Stream(SEED + 1, paths, BODIES, _bearer(token)), COUNT):
        if not 200 <= reply.status < 300:
            continue
        path = "/".join(part for part in request.path.lower().split("/") if part)
        known = path in ("healthz", "readyz", "metadata/endpoints", "tenants", "subscriptions")
        assert request.method in ("GET", "HEAD"), f"{reply.status} to {request}"
        assert known or "/roledefinitions" in f"/{path}", f"{reply.status} to {request}"
    assert cloud.arm("GET", f"{cloud.subscription}/resources").body["value"] == []


def test_the_owner_breaks_nothing(cloud: RecordingCloud, paths: list[tuple[str, str]]) -> None:
    """With every right, so that what is odd reaches the providers."""
    gentle = [(method, path) for method, path in paths if method != "DELETE"]
    answers: dict[int, int] = {}
    for _, reply in _run(cloud, Stream(SEED + 2, gentle, BODIES, _bearer(cloud.token())), COUNT):
        answers[reply.status] = answers.get(reply.status, 0) + 1
    assert answers.get(200, 0) > 50, answers
    assert answers.get(400, 0) > 200, answers
    for room in PROVIDERS:
        assert cloud.call(room, "GET", "/healthz").status == 200


def test_no_group_is_left_in_the_making(cloud: Cloud) -> None:
    """Whatever of what the owner sent was taken in can be seen and deleted."""
    listed = f"{cloud.subscription}/providers/Microsoft.ContainerInstance/containerGroups"
    for group in cloud.arm("GET", listed).body["value"]:
        assert cloud.arm("DELETE", f"{group['id']}?gracePeriodSeconds=0").status in (200, 202, 204)
    assert cloud.arm("GET", listed).body["value"] == []
