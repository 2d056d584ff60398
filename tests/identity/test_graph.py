"""Microsoft Graph: applications, service principals and their credentials, in the calls that `az ad` makes."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cloud import Answer, Cloud
from tests.identity.certificates import Signer


def find(cloud: Cloud, collection: str, filter_: str, **more: str) -> list[dict[str, object]]:
    query = "&".join([f"$filter={quote(filter_)}", *(f"${key}={quote(value)}" for key, value in more.items())])
    answer = cloud.graph("GET", f"/{collection}?{query}")
    assert answer.status == 200, answer.body
    found: list[dict[str, object]] = answer.body["value"]
    return found


def test_the_calls_of_create_for_rbac(cloud: Cloud) -> None:
    name = f"rbac {uuid.uuid4()} o'clock"
    quoted = name.replace("'", "''")
    assert find(cloud, "servicePrincipals", f"displayName eq '{quoted}'") == []
    assert find(cloud, "applications", f"startswith(displayName,'{quoted}')") == []
    application = cloud.graph("POST", "/applications", {"displayName": name, "keyCredentials": []})
    assert application.status == 201
    assert application.body["passwordCredentials"] == []
    life = {
        "displayName": "rbac",
        "startDateTime": "2026-11-24T00:00:00Z",
        "endDateTime": "2046-11-24T00:00:00+02:00",
    }
    secret = cloud.graph("POST", f"/applications/{application.body['id']}/addPassword", {"passwordCredential": life})
    assert secret.body["endDateTime"] == "2046-11-23T22:00:00Z"
    assert secret.body["secretText"][:3] == secret.body["hint"]
    app_id = application.body["appId"]
    principal = cloud.graph("POST", "/servicePrincipals", {"appId": app_id.upper()})
    assert principal.status == 201
    assert find(cloud, "servicePrincipals", f"servicePrincipalNames/any(c:c eq '{app_id}')") == [principal.body]
    assert find(cloud, "servicePrincipals", f"displayName eq '{quoted}'") == [principal.body]
    found = cloud.graph("POST", "/directoryObjects/getByIds", {"ids": [principal.body["id"], "x"], "types": ["user"]})
    assert [item["@odata.type"] for item in found.body["value"]] == ["#microsoft.graph.servicePrincipal"]
    again = cloud.graph("POST", "/servicePrincipals", {"appId": app_id})
    assert (again.status, again.code) == (409, "Request_MultipleObjectsWithSameKeyValue")


def test_lists_are_narrowed_and_paged(cloud: Cloud) -> None:
    marker = str(uuid.uuid4())
    for number in range(5):
        assert cloud.graph("POST", "/applications", {"displayName": f"{marker}-{number}"}).status == 201
    where = f"startswith(displayName,'{marker}')"
    assert len(find(cloud, "applications", where)) == 5
    assert find(cloud, "applications", f"{where} and displayName eq '{marker}-3'", select="displayName")[
        0
    ].keys() == {
        "id",
        "displayName",
    }
    url = f"/applications?$filter={quote(where)}&$top=2"
    names: list[str] = []
    while url:
        page = cloud.graph("GET", url).body
        assert len(page["value"]) <= 2
        names += [item["displayName"] for item in page["value"]]
        url = page.get("@odata.nextLink", "").partition("/v1.0")[2]
    assert sorted(names) == [f"{marker}-{number}" for number in range(5)]


@pytest.mark.parametrize(
    "query",
    [
        "$filter=displayName%20ne%20'x'",
        "$filter=displayName",
        "$filter=passwordCredentials%20eq%20'x'",
        "$filter='",
        "$filter=" + "(" * 500,
        "$top=-1",
        "$top=x",
        "$skiptoken=x",
    ],
)
def test_what_is_asked_in_vain(cloud: Cloud, query: str) -> None:
    answer = cloud.graph("GET", f"/applications?{query}")
    assert (answer.status, answer.code) == (400, "Request_UnsupportedQuery")


def test_a_service_principal_has_credentials_of_its_own(cloud: Cloud, signer: Signer) -> None:
    who = cloud.principal("own-credentials")
    path = f"/servicePrincipals/{who.object_id}"
    secret = cloud.graph("POST", f"{path}/addPassword", {}).body
    assert cloud.graph("PATCH", path, {"keyCredentials": [{"key": signer.der}]}).status == 204
    shown = cloud.graph("GET", path).body
    assert [item["keyId"] for item in shown["passwordCredentials"]] == [secret["keyId"]]
    assert len(shown["keyCredentials"]) == 1
    application = cloud.graph("GET", f"/applications(appId='{who.client_id}')").body
    assert len(application["passwordCredentials"]) == 1
    assert application["keyCredentials"] == []
    assert cloud.ask_token(client_id=who.client_id, client_secret=secret["secretText"]).status == 200
    # A principal cannot remove a credential of its application.
    other = application["passwordCredentials"][0]["keyId"]
    assert cloud.graph("POST", f"{path}/removePassword", {"keyId": other}).status == 400
    assert cloud.graph("DELETE", path).status == 204
    assert cloud.graph("POST", "/servicePrincipals", {"appId": who.client_id}).status == 201
    assert cloud.ask_token(client_id=who.client_id, client_secret=secret["secretText"]).status == 401
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 200


def test_certificates_are_added_to_those_that_are_there(cloud: Cloud, signer: Signer) -> None:
    made = cloud.graph("POST", "/applications", {"displayName": "rolling", "keyCredentials": [{"key": signer.der}]})
    path = f"/applications/{made.body['id']}"
    (first,) = made.body["keyCredentials"]
    second = {"key": Signer(key=signer.key).der, "keyId": str(uuid.uuid4())}
    assert cloud.graph("PATCH", path, {"keyCredentials": [first, second]}).status == 204
    kept = cloud.graph("GET", path).body["keyCredentials"]
    assert [item["keyId"] for item in kept] == [first["keyId"], second["keyId"]]
    wrongs: list[Any] = [[{"keyId": str(uuid.uuid4())}], [{"key": "AAAA"}], [{"key": 1}], [{}], {}, [1], "x"]
    for wrong in wrongs:
        answer = cloud.graph("PATCH", path, {"keyCredentials": wrong})
        assert (answer.status, answer.code) == (400, "Request_BadRequest"), wrong
    taken = cloud.graph("POST", "/applications", {"displayName": "thief", "keyCredentials": [second]})
    assert (taken.status, taken.code) == (400, "Request_BadRequest")
    assert cloud.graph("GET", path).body["keyCredentials"] == kept


def test_a_deleted_application_takes_everything_with_it(cloud: Cloud) -> None:
    who = cloud.principal("gone", Reader=cloud.subscription)
    given = f"{cloud.subscription}/providers/Microsoft.Authorization/roleAssignments"
    filter_ = f"?$filter=principalId%20eq%20'{who.object_id}'"
    assert len(cloud.arm("GET", given + filter_).body["value"]) == 1
    assert cloud.graph("DELETE", f"/applications(appId='{who.client_id}')").status == 204
    assert cloud.arm("GET", given + filter_).body["value"] == []
    assert cloud.graph("GET", f"/servicePrincipals/{who.object_id}").code == "Request_ResourceNotFound"
    assert cloud.graph("DELETE", f"/applications(appId='{who.client_id}')").status == 404


def test_who_may_change_the_directory(cloud: Cloud) -> None:
    reader = cloud.principal("reader", Reader=cloud.subscription)
    contributor = cloud.principal("contributor", Contributor=cloud.subscription)
    giver = cloud.principal("giver", **{"User Access Administrator": cloud.subscription})
    group = f"{cloud.subscription}/resourceGroups/any"
    assert cloud.arm("PUT", group, {"location": "eastus"}).status in (200, 201)
    local = cloud.principal("local", Owner=group)
    victim = f"/applications(appId='{reader.client_id}')"
    for who in (reader, contributor, local):
        assert cloud.graph("GET", "/applications", as_=who).status == 200
        for method, path, body in (
            ("POST", "/applications", {"displayName": "x"}),
            ("POST", "/servicePrincipals", {"appId": reader.client_id}),
            ("DELETE", f"/applications(appId='{cloud.owner.client_id}')", None),
            ("POST", f"/applications(appId='{cloud.owner.client_id}')/addPassword", {}),
            ("PATCH", f"/applications(appId='{cloud.owner.client_id}')", {"displayName": "x"}),
        ):
            answer = cloud.graph(method, path, body, as_=who)
            assert (answer.status, answer.code) == (403, "Authorization_RequestDenied"), (who.display_name, path)
    assert cloud.graph("POST", f"{victim}/addPassword", {}, as_=reader).status == 200  # its own
    assert cloud.graph("POST", f"{victim}/addPassword", {}, as_=giver).status == 200


def test_there_are_no_users_and_nobody_is_me(cloud: Cloud) -> None:
    assert find(cloud, "users", "userPrincipalName eq 'a@b'") == []
    assert cloud.graph("GET", "/groups").body == {"value": []}
    assert cloud.graph("GET", "/me").status == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", {}),
        ("", {"displayName": ""}),
        ("", {"displayName": "x" * 300}),
        ("", {"displayName": "nul\0"}),
        ("", {"displayName": ["x"]}),
        ("", b"[" * 100_000),
        ("", b'{"displayName":' + b"[" * 100_000),
        ("", b"not json"),
        ("", b"[]"),
        ("", b'{"displayName":"\\ud800"}'),
        ("/{id}/addPassword", {"passwordCredential": []}),
        ("/{id}/addPassword", {"passwordCredential": {"endDateTime": "0001-01-01T00:00:00+23:59"}}),
        ("/{id}/addPassword", {"passwordCredential": {"endDateTime": "9999-12-31T23:59:59-23:59"}}),
        ("/{id}/addPassword", {"passwordCredential": {"endDateTime": "2046-11-24"}}),
        ("/{id}/addPassword", {"passwordCredential": {"endDateTime": 5}}),
        ("/{id}/addPassword", {"passwordCredential": {"endDateTime": "2000-01-01T00:00:00Z"}}),
        ("/{id}/addPassword", {"passwordCredential": {"displayName": {}}}),
        ("/{id}/removePassword", {}),
        ("/{id}/removePassword", {"keyId": {"a": 1}}),
    ],
)
def test_bad_bodies(cloud: Cloud, path: str, body: object) -> None:
    made = cloud.graph("POST", "/applications", {"displayName": "bad-bodies"}).body
    answer = cloud.graph("POST", f"/applications{path.format(id=made['id'])}", body)
    assert answer.status == 400
    assert answer.code in ("Request_BadRequest", "InvalidRequestContent")


def test_an_application_has_so_many_secrets_and_no_more(cloud: Cloud) -> None:
    made = cloud.graph("POST", "/applications", {"displayName": "hoarder"}).body
    path = f"/applications/{made['id']}/addPassword"
    answers: list[Answer] = []
    while not answers or answers[-1].status == 200:
        answers.append(cloud.graph("POST", path, {}))
        assert len(answers) < 100
    assert answers[-1].code == "KeyLimitReached"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
fields = st.sampled_from(
    ["displayName", "appId", "keyCredentials", "passwordCredential", "keyId", "ids", "startDateTime", "endDateTime"]
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["POST", "PATCH"]),
    st.sampled_from(
        [
            "/applications",
            "/applications/{id}",
            "/applications/{id}/addPassword",
            "/applications/{id}/removePassword",
            "/servicePrincipals",
            "/servicePrincipals/{id}",
            "/directoryObjects/getByIds",
        ]
    ),
    st.dictionaries(fields, values, max_size=3),
)
def test_no_body_breaks_it(cloud: Cloud, target: str, method: str, path: str, body: object) -> None:
    assert cloud.graph(method, path.format(id=target), body).status < 500


@pytest.fixture(scope="module")
def target(cloud: Cloud) -> str:
    """The object id of an application that may be changed."""
    made: str = cloud.graph("POST", "/applications", {"displayName": "target"}).body["id"]
    return made
