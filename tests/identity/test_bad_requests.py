"""Graph and the providers of roles and managed identities answer any request with success or an error in their own form."""

from __future__ import annotations

import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cloud import Answer, Cloud

GUID = "11111111-1111-4111-8111-111111111111"
TEXTS = [
    "",
    "x",
    "..",
    "%00",
    "\x00",
    "\n",
    "é",
    GUID,
    "2026-01-01T00:00:00Z",
    "9999-99-99",
    "/",
    "*",
    "/subscriptions/x",
]

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def like(**fields: object) -> st.SearchStrategy[object]:
    """Generate documents with some of these fields, each with a valid or an arbitrary value, and arbitrary documents."""
    return (
        st.fixed_dictionaries({}, optional={key: st.just(value) | anything for key, value in fields.items()})
        | anything
    )


CERTIFICATE = {"type": "AsymmetricX509Cert", "usage": "Verify", "key": "AAAA", "displayName": "CN=x"}
GRAPH = {
    ("POST", "/applications"): like(displayName="x", keyCredentials=[CERTIFICATE], signInAudience="AzureADMyOrg"),
    ("POST", "/servicePrincipals"): like(appId=GUID, tags=["x"]),
    ("PATCH", "/applications/{application}"): like(displayName="y", keyCredentials=[CERTIFICATE]),
    ("POST", "/applications/{application}/addPassword"): like(
        passwordCredential={"displayName": "x", "endDateTime": "2027-01-01T00:00:00Z"}
    ),
    ("POST", "/applications/{application}/removePassword"): like(keyId=GUID),
    ("POST", "/directoryObjects/getByIds"): like(ids=[GUID], types=["user"]),
}
ARM = {
    "Microsoft.Authorization/roleDefinitions": like(
        roleName="x",
        permissions=[{"actions": ["*/read"]}],
        assignableScopes=["/"],
        description="x",
        type="CustomRole",
    ),
    "Microsoft.Authorization/roleAssignments": like(
        roleDefinitionId=GUID,
        principalId=GUID,
        principalType="User",
        condition="@Request[x:y] Z",
        conditionVersion="2.0",
    ),
}


@pytest.fixture(scope="module")
def application(cloud: Cloud) -> str:
    made: str = cloud.graph("POST", "/applications", {"displayName": "fuzzed"}).body["id"]
    return made


@pytest.mark.parametrize("call", GRAPH, ids=" ".join)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_any_document_to_graph(cloud: Cloud, application: str, call: tuple[str, str], data: st.DataObject) -> None:
    method, path = call
    answer = cloud.graph(method, path.format(application=application), data.draw(GRAPH[call]))
    _check(answer)
    if answer.status == 201 and "id" in answer.body:
        assert cloud.graph("DELETE", f"{path}/{answer.body['id']}").status == 204


@pytest.mark.parametrize("kind", ARM)
@given(data=st.data())
@settings(max_examples=15, deadline=None)
def test_any_document_to_a_provider(cloud: Cloud, kind: str, data: st.DataObject) -> None:
    properties = data.draw(ARM[kind])
    document = data.draw(st.sampled_from([{"properties": properties}, properties]))
    path = f"{cloud.subscription}/providers/{kind}/{uuid.uuid4()}"
    _check(cloud.arm("PUT", path, document))
    cloud.arm("DELETE", path)


@pytest.mark.parametrize(
    "body", [b"[" * 100_000, b'{"a":' * 50_000, b"\xff", b'{"displayName": 1e999}', b'{"a": "\\ud800"}']
)
def test_json_that_is_none_or_too_deep(cloud: Cloud, body: bytes) -> None:
    for method, path in GRAPH:
        _check(cloud.graph(method, path.format(application=GUID), body))
    for kind in ARM:
        assert cloud.arm("PUT", f"{cloud.subscription}/providers/{kind}/{uuid.uuid4()}", body).status == 400


def _check(answer: Answer) -> None:
    assert answer.status < 500, answer
    if answer.status >= 400:
        assert set(answer.body["error"]) >= {"code", "message"}, answer
        json.dumps(answer.body)
