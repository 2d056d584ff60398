"""Unusual and ambiguous request paths: each is parsed in one way or refused, and none bypasses a right."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cumulet.common.entra import Credential
from tests.cloud import Cloud


@pytest.fixture(scope="module")
def group(cloud: Cloud) -> str:
    """The id of a resource group."""
    path = f"{cloud.subscription}/resourceGroups/paths"
    assert cloud.arm("PUT", path, {"location": "eastus"}).status in (200, 201)
    return path


def test_the_cloud_describes_itself_to_anybody(cloud: Cloud) -> None:
    for path in ("/metadata/endpoints?api-version=2022-09-01", "//metadata/endpoints"):
        found = cloud.call("arm", "GET", path).body
        assert found["resourceManager"] == cloud.config.url("arm")
        assert found["authentication"]["loginEndpoint"] == cloud.config.url("identity")
        assert found["suffixes"]["acrLoginServer"] == "azurecr.io"
    assert [each["name"] for each in cloud.call("arm", "GET", "/metadata/endpoints?api-version=2019-05-01").body] == [
        "Cumulet"
    ]


def test_doubled_slashes_and_case_mean_the_same(cloud: Cloud, group: str) -> None:
    for path in (group, f"/{group}", group.replace("/", "//"), f"{group}/", group.upper(), f"{group}?x=1"):
        answer = cloud.arm("GET", path.replace("/SUBSCRIPTIONS/", "/subscriptions/"))
        assert (answer.status, answer.body["name"]) == (200, "paths")


@pytest.mark.parametrize(
    "wrong",
    [
        "..",
        ".",
        "%2e%2e",
        "a%2fb",
        "a%5cb",
        "a%00b",
        "a%0ab",
        "a%252fb",
        "%ff",
        "a%3fb",
        "a%23b",
        "%c3%28",
        "a%E2%80%AEb",
    ],
)
def test_names_that_could_be_read_in_two_ways(cloud: Cloud, group: str, wrong: str) -> None:
    registries = f"{group}/providers/Microsoft.ContainerRegistry/registries"
    for path in (f"{cloud.subscription}/resourceGroups/{wrong}", f"{registries}/{wrong}", f"{registries}/{wrong}/x"):
        answer = cloud.arm("GET", path)
        assert (answer.status, answer.code) == (400, "InvalidRequestUri"), path


def test_addresses_that_are_too_long(cloud: Cloud) -> None:
    answer = cloud.arm("GET", f"{cloud.subscription}/resourceGroups/{'x' * 5000}")
    assert (answer.status, answer.code) == (414, "RequestUriTooLong")
    assert 400 <= cloud.arm("GET", f"{cloud.subscription}/resourceGroups/{'x' * 20_000}").status < 500


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/", 404, "NotFound"),
        ("/a%0ab", 400, "InvalidRequestUri"),
        ("/nothing", 404, "NotFound"),
        ("/subscriptions/other", 404, "SubscriptionNotFound"),
        ("/subscriptions/other/resourceGroups/g", 404, "SubscriptionNotFound"),
        ("{s}/nothing", 404, "NotFound"),
        ("{s}/resourceGroups/none", 404, "ResourceGroupNotFound"),
        ("{s}/resourceGroups/none/resources", 404, "ResourceGroupNotFound"),
        ("{s}/operationresults/none", 404, "NotFound"),
        ("{s}/providers/Microsoft.Nothing", 404, "InvalidResourceNamespace"),
        ("{s}/providers/Microsoft.Nothing/things", 404, "InvalidResourceNamespace"),
        ("{g}/providers/Microsoft.Nothing/things/x", 404, "InvalidResourceNamespace"),
        ("{g}/providers/Microsoft.ContainerRegistry/registries/none", 404, "ResourceNotFound"),
        ("{s}/resourceGroups?$filter=x", 400, "InvalidFilterInQueryString"),
        ("{s}/resourceGroups?$top=x", 400, "InvalidFilterInQueryString"),
        ("{s}/resources?$filter=principalId%20eq%20'x'", 400, "InvalidFilterInQueryString"),
    ],
)
def test_what_is_not_there(cloud: Cloud, group: str, path: str, status: int, code: str) -> None:
    answer = cloud.arm("GET", path.format(s=cloud.subscription, g=group))
    assert (answer.status, answer.code) == (status, code)


def test_what_is_read_only_is_not_written(cloud: Cloud, group: str) -> None:
    paths = [
        "/tenants",
        "/subscriptions",
        cloud.subscription,
        f"{cloud.subscription}/resources",
        f"{group}/resources",
    ]
    providers = f"{cloud.subscription}/providers"
    for path in (*paths, providers, f"{providers}/Microsoft.ContainerRegistry", f"{cloud.subscription}/locations"):
        for method in ("PUT", "DELETE", "POST"):
            assert cloud.arm(method, path, {}).code == "MethodNotAllowed", f"{method} {path}"
    register = f"{providers}/Microsoft.ContainerRegistry/register"
    assert cloud.arm("POST", register).body["registrationState"] == "Registered"
    assert cloud.arm("GET", register).code == "MethodNotAllowed"


def test_every_answer_can_be_traced(cloud: Cloud, group: str) -> None:
    sent = cloud.arm("GET", group, headers={"x-ms-correlation-request-id": "mine"})
    assert sent.headers["x-ms-correlation-request-id"] == "mine"
    assert sent.headers["x-ms-request-id"]
    refused = cloud.call("arm", "GET", group, headers={"x-ms-correlation-request-id": "x" * 1000})
    assert refused.status == 401
    assert refused.headers["x-ms-correlation-request-id"] == refused.headers["x-ms-request-id"]


def test_what_was_changed_is_in_the_log_and_no_token_is(cloud: Cloud, group: str) -> None:
    token = cloud.token()
    headers = {"x-ms-correlation-request-id": "in-the-log"}
    assert cloud.call("arm", "PATCH", group, token=token, body={"tags": {}}, headers=headers).status == 200
    line = next(line for line in cloud.log("arm").splitlines() if "in-the-log" in line)
    assert cloud.owner.object_id in line
    assert f"PATCH {group}: 200" in line
    assert token not in cloud.log("arm")


def test_the_room_counts_and_says_that_it_is_well(cloud: Cloud, group: str) -> None:
    assert cloud.arm("GET", group).status == 200
    assert cloud.call("arm", "PROPFIND", group).status == 401
    counted = cloud.call("arm", "GET", "/metrics", show="metrics").body.decode()
    for line in ('arm_requests_total{method="GET",status="200"}', 'arm_requests_total{method="other",status="401"}'):
        assert line in counted
    for path in ("/healthz", "/readyz"):
        assert cloud.call("arm", "GET", path).body == b"ok"


def test_bodies_that_are_too_large_or_no_json(cloud: Cloud, group: str) -> None:
    registry = f"{group}/providers/Microsoft.ContainerRegistry/registries/bodies"
    for path in (group, registry):
        for body in (b"[" * 100_000, b'{"tags":' * 50_000, b"\xff", b"[]", b"x", b'{"location":5}'):
            answer = cloud.arm("PUT", path, body)
            assert answer.status == 400, (path, body[:20])
        answer = cloud.arm("PUT", path, b'{"location":"' + b"x" * 5_000_000 + b'"}')
        assert (answer.status, answer.code) in ((413, "RequestContentTooLarge"), (413, "RequestEntityTooLarge"))
    assert cloud.arm("GET", registry).status == 404


_WORDS = (
    "subscriptions resourceGroups providers resources paths registries register operationresults roleAssignments "
    "roleDefinitions Microsoft.Authorization Microsoft.ContainerRegistry %2f"
)
segments = st.one_of(
    st.sampled_from(["", *_WORDS.split()]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="?#"), max_size=8),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS", "PROPFIND"]),
    st.booleans(),
    st.lists(segments, max_size=8).map("/".join),
)
@example("GET", True, "providers")
@example("POST", True, "providers/Microsoft.ContainerRegistry/unregister")
@example("DELETE", True, "resourceGroups/paths/resources")
def test_no_address_breaks_it_and_none_opens_it(cloud: Cloud, method: str, below: bool, path: str) -> None:
    path = f"{cloud.subscription if below else ''}/{path}"
    token = cloud.token(_nobody(cloud))
    answer = cloud.call("arm", method, path, token=token, body={} if method in ("PUT", "PATCH", "POST") else None)
    assert answer.status < 500
    if method not in ("GET", "HEAD"):
        assert answer.status >= 400, f"{method} {path} was let through"


def _nobody(cloud: Cloud) -> Credential:
    """A principal without a role, created once."""
    if cloud not in _MADE:
        _MADE[cloud] = cloud.principal("nobody")
    return _MADE[cloud]


_MADE: dict[Cloud, Credential] = {}
