"""Federated credentials, of managed identities and of applications, and the tokens that they are good for."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.identity import WorkloadIdentityCredential
from azure.mgmt.msi import ManagedServiceIdentityClient
from cryptography.hazmat.primitives.asymmetric import ec

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.cloud import Answer, Cloud
from tests.identity.issuer import AUDIENCE, SUBJECT, Issuer, ask, running, trust
from tests.microsoft import management

IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"


@pytest.fixture
def issuer(cloud: Cloud, tmp_path: Path) -> Iterator[Issuer]:
    """An issuer on an address of its own."""
    with running(cloud, tmp_path) as made:
        yield made


@pytest.fixture
def identity(cloud: Cloud) -> dict[str, Any]:
    """A user-assigned identity."""
    group = f"{cloud.subscription}/resourceGroups/federated"
    assert cloud.arm("PUT", group, {"location": "eastus"}).status in (200, 201)
    answer = cloud.arm("PUT", f"{group}/{IDENTITIES}/id-{uuid.uuid4()}", {"location": "eastus"})
    made: dict[str, Any] = answer.body
    return made


@pytest.fixture
def client(cloud: Cloud) -> Credential:
    """An application."""
    return cloud.principal(f"federated-{uuid.uuid4()}")


def put(cloud: Cloud, identity: dict[str, Any], name: str, **properties: Any) -> Answer:
    body = {"issuer": "https://issuer.example", "subject": SUBJECT, "audiences": [AUDIENCE], **properties}
    return cloud.arm("PUT", f"{identity['id']}/federatedIdentityCredentials/{name}", {"properties": body})


def test_their_life_with_microsofts_client(cloud: Cloud, identity: dict[str, Any]) -> None:
    with management(ManagedServiceIdentityClient, cloud) as made:
        credentials = made.federated_identity_credentials
        of = ("federated", identity["name"])
        body = {"properties": {"issuer": "https://a.example", "subject": SUBJECT, "audiences": [AUDIENCE]}}
        created: Any = credentials.create_or_update(*of, "Pod", body)
        assert (created.name, created.issuer, created.subject, created.audiences) == (
            "Pod",
            "https://a.example",
            SUBJECT,
            [AUDIENCE],
        )
        body["properties"]["issuer"] = "https://b.example"
        assert credentials.create_or_update(*of, "pod", body).issuer == "https://b.example"
        assert [item.id for item in credentials.list(*of, top=1)] == [created.id]
        credentials.delete(*of, "POD")
        with pytest.raises(ResourceNotFoundError):
            credentials.get(*of, "pod")
        with pytest.raises(HttpResponseError, match="userAssignedIdentities/none"):
            credentials.list("federated", "none").next()


@pytest.mark.parametrize(
    ("name", "properties"),
    [
        ("ab", {}),
        ("-abc", {}),
        ("a" * 121, {}),
        ("good", {"issuer": "http://issuer.example"}),
        ("good", {"issuer": "https://a@issuer.example"}),
        ("good", {"issuer": "https://issuer.example?a=b"}),
        ("good", {"issuer": "https://[::1"}),
        ("good", {"issuer": None}),
        ("good", {"issuer": 5}),
        ("good", {"subject": ""}),
        ("good", {"subject": "repo:*"}),
        ("good", {"subject": "a" * 601}),
        ("good", {"audiences": []}),
        ("good", {"audiences": ["a", "b"]}),
        ("good", {"audiences": AUDIENCE}),
    ],
)
def test_bad_credentials(cloud: Cloud, identity: dict[str, Any], name: str, properties: dict[str, Any]) -> None:
    assert put(cloud, identity, name, **properties).status == 400
    assert cloud.arm("GET", f"{identity['id']}/federatedIdentityCredentials").body["value"] == []


def test_at_most_twenty_of_different_issuer_and_subject(cloud: Cloud, identity: dict[str, Any]) -> None:
    for number in range(20):
        assert put(cloud, identity, f"number-{number}", subject=f"s{number}").status == 201
    assert put(cloud, identity, "one-more", subject="more").status == 400
    again = put(cloud, identity, "number-1", subject="s0")
    assert (again.status, again.code) == (409, "Conflict")
    assert put(cloud, identity, "number-1", subject="other").status == 200
    assert cloud.arm("DELETE", f"{identity['id']}/federatedIdentityCredentials/number-0").status == 200
    assert cloud.arm("DELETE", f"{identity['id']}/federatedIdentityCredentials/number-0").status == 204


def test_a_right_of_its_own_is_needed(cloud: Cloud, identity: dict[str, Any]) -> None:
    who = cloud.principal("reader", Reader=cloud.subscription)
    path = f"{identity['id']}/federatedIdentityCredentials"
    assert cloud.arm("GET", path, as_=who).status == 200
    refused = cloud.arm("PUT", f"{path}/pod", {"properties": {}}, as_=who)
    assert (refused.status, refused.code) == (403, "AuthorizationFailed")


def test_those_of_applications_in_graph(cloud: Cloud, client: Credential) -> None:
    path = f"/applications(appId='{client.client_id}')/federatedIdentityCredentials"
    made = trust(cloud, client.client_id, "https://issuer.example", name="pod").body
    assert cloud.graph("GET", path).body["value"] == [made]
    for key in (made["id"], "POD"):
        assert cloud.graph("GET", f"{path}/{key}").body == made
    assert cloud.graph("PATCH", f"{path}/pod", {"subject": "other", "description": "a pod"}).status == 204
    assert cloud.graph("GET", f"{path}/pod").body == {**made, "subject": "other", "description": "a pod"}
    assert trust(cloud, client.client_id, "https://issuer.example", name="POD").status == 409
    assert trust(cloud, client.client_id, "https://issuer.example", subject="other").status == 409
    for issuer, wrong in (
        ("ftp://a", {}),
        ("https://other.example", {"name": "x"}),
        ("https://other.example", {"claimsMatchingExpression": {"value": "x"}}),
    ):
        assert trust(cloud, client.client_id, issuer, **wrong).status == 400
    assert cloud.graph("PATCH", f"{path}/pod", {"name": "renamed"}).status == 400
    assert cloud.graph("POST", path, {"name": "mine"}, as_=client).status == 403
    assert cloud.graph("DELETE", f"{path}/pod").status == 204
    assert cloud.graph("GET", f"{path}/pod").status == 404


def test_microsofts_client_exchanges_the_token_of_a_pod(
    cloud: Cloud, identity: dict[str, Any], issuer: Issuer, tmp_path: Path
) -> None:
    properties = identity["properties"]
    assert put(cloud, identity, "pod", issuer=issuer.url).status == 201
    (tmp_path / "token").write_text(issuer.token())
    with WorkloadIdentityCredential(
        tenant_id=cloud.config.tenant_id,
        client_id=properties["clientId"],
        token_file_path=str(tmp_path / "token"),
        authority=cloud.config.url("identity"),
        disable_instance_discovery=True,
    ) as credential:
        token = credential.get_token(f"{ARM_AUDIENCE}/.default").token
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["oid"], claims["xms_mirid"]) == (properties["principalId"], identity["id"])


def test_an_issuer_changes_its_keys(cloud: Cloud, client: Credential, issuer: Issuer) -> None:
    assert trust(cloud, client.client_id, issuer.url).status == 201
    issuer.keys["elliptic"] = ec.generate_private_key(ec.SECP256R1())
    for kid in ("first", "elliptic", "first"):
        assert ask(cloud, client.client_id, issuer.token(kid)).status == 200
    assert issuer.asked == ["/.well-known/openid-configuration", "/keys"]
    # An unknown key is looked for at most every ten seconds.
    issuer.keys["second"] = ec.generate_private_key(ec.SECP256R1())
    for _ in range(3):
        assert ask(cloud, client.client_id, issuer.token("second")).body["error_codes"] == [50013]
    assert len(issuer.asked) == 2


def test_an_issuer_that_does_not_answer(cloud: Cloud, client: Credential, issuer: Issuer) -> None:
    for number, (configuration, reason) in enumerate(
        (
            ({}, "issuer"),
            ({"issuer": "https://other.example", "jwks_uri": f"{issuer.url}/keys"}, "of another issuer"),
            ({"issuer": f"{issuer.url}/2", "jwks_uri": "http://127.0.0.2/keys"}, "only https"),
            ({"issuer": f"{issuer.url}/3", "jwks_uri": f"{issuer.url}/none"}, "404"),
            ({"issuer": f"{issuer.url}/4", "jwks_uri": "https://169.254.169.254/keys"}, "address is not allowed"),
        )
    ):
        url = f"{issuer.url}/{number}"
        issuer.documents[f"/{number}/.well-known/openid-configuration"] = configuration
        assert trust(cloud, client.client_id, url, name=f"number-{number}").status == 201
        refused = ask(cloud, client.client_id, issuer.token(iss=url))
        assert (refused.status, refused.body["error_codes"]) == (400, [50166])
        assert reason in refused.body["error_description"]
