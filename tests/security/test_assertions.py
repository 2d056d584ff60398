"""A client assertion is good once, for a bounded time, and that survives the room's end."""

from __future__ import annotations

import time
from typing import Any

import pytest
from azure.identity import CertificateCredential

from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE, REGISTRY_AUDIENCE, Credential
from tests.cloud import Answer, Cloud
from tests.identity.certificates import Signer

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@pytest.fixture(scope="module")
def signer() -> Signer:
    return Signer()


@pytest.fixture(scope="module")
def client(cloud: Cloud, signer: Signer) -> Credential:
    made = cloud.principal("signs")
    path = f"/applications(appId='{made.client_id}')"
    assert cloud.graph("PATCH", path, {"keyCredentials": [{"key": signer.der}]}).status == 204
    return made


def _ask(cloud: Cloud, client: Credential, assertion: str, audience: str = ARM_AUDIENCE) -> Answer:
    form = {"client_id": client.client_id, "client_assertion": assertion, "client_assertion_type": TYPE}
    return cloud.ask_token(**form, scope=f"{audience}/.default")


def _assertion(cloud: Cloud, client: Credential, signer: Signer, **changed: Any) -> str:
    audience = f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/oauth2/v2.0/token"
    return signer.assertion(client.client_id, audience, **changed)


@pytest.mark.parametrize("algorithm", ["RS256", "PS256"])
@pytest.mark.parametrize("named", [True, False], ids=["with jti", "without jti"])
def test_an_assertion_is_good_once(
    cloud: Cloud, client: Credential, signer: Signer, algorithm: str, *, named: bool
) -> None:
    assertion = _assertion(cloud, client, signer, algorithm=algorithm, **({} if named else {"jti": None}))
    assert _ask(cloud, client, assertion).status == 200
    head, body, signature = assertion.split(".")
    refused = _ask(cloud, client, assertion)
    assert (refused.status, refused.body["error"]) == (401, "invalid_client")
    assert refused.body["error_description"].startswith("AADSTS700027: Client assertion was used before")
    # The last character of base64 has bits that mean nothing, and padding means nothing.
    for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=":
        for other in (f"{signature[:-1]}{char}", f"{signature}{char}"):
            assert _ask(cloud, client, f"{head}.{body}.{other}").status == 401


def test_a_jti_is_not_used_again_by_another_signature(cloud: Cloud, client: Credential, signer: Signer) -> None:
    assert _ask(cloud, client, _assertion(cloud, client, signer, jti="once")).status == 200
    again = _assertion(cloud, client, signer, jti="once", exp=int(time.time()) + 300)
    assert _ask(cloud, client, again).body["error_codes"] == [700027]
    assert _ask(cloud, client, _assertion(cloud, client, signer, jti="twice")).status == 200


def test_other_names_of_a_resource_are_the_same_resource(cloud: Cloud, client: Credential, signer: Signer) -> None:
    assertion = _assertion(cloud, client, signer)
    assert _ask(cloud, client, assertion).status == 200
    port = cloud.config.addresses["arm"].port
    for name in (
        f"{ARM_AUDIENCE}/",
        ARM_AUDIENCE.upper(),
        "https://management.core.windows.net",
        "https://management.core.windows.net/",
        f"https://localhost:{port}",
        f"https://127.0.0.1:{port}/",
    ):
        assert _ask(cloud, client, assertion, name).status == 401, name


def test_what_was_used_is_known_after_a_restart(cloud: Cloud, client: Credential, signer: Signer) -> None:
    assertion = _assertion(cloud, client, signer)
    assert _ask(cloud, client, assertion).status == 200
    cloud.kill("identity")
    assert _ask(cloud, client, assertion).body["error_codes"] == [700027]


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"exp": lambda now: now + 2 * 24 * 3600}, 700024),
        ({"exp": lambda now: now - 3600}, 700024),
        ({"nbf": lambda now: now + 3600}, 700024),
        ({"jti": lambda _: ""}, 700027),
        ({"jti": lambda _: "x" * 5000}, 700027),
        ({"jti": lambda _: 5}, 700027),
        ({"jti": lambda _: ["a"]}, 700027),
        ({"exp": lambda _: "1" * 400}, 700024),
        ({"iat": lambda _: float("inf")}, 700027),
    ],
)
def test_its_claims_are_bounded(
    cloud: Cloud, client: Credential, signer: Signer, changed: dict[str, Any], code: int
) -> None:
    now = int(time.time())
    assertion = _assertion(cloud, client, signer, **{name: make(now) for name, make in changed.items()})
    answer = _ask(cloud, client, assertion)
    assert (answer.status, answer.body["error_codes"]) == (401, [code])


def test_microsofts_client_calls_several_resources(
    cloud: Cloud, client: Credential, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(cloud.config.ca_file))
    with CertificateCredential(
        cloud.config.tenant_id,
        client.client_id,
        certificate_data=signer.pem,
        authority=cloud.config.url("identity"),
        disable_instance_discovery=True,
    ) as credential:
        for audience in (ARM_AUDIENCE, GRAPH_AUDIENCE, REGISTRY_AUDIENCE):
            assert credential.get_token(f"{audience}/.default").token
