"""Client authentication: with Microsoft's own libraries, with curl, and with invalid credentials."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import msal
import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import CertificateCredential, ClientSecretCredential
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cumulet.common.entra import ARM_AUDIENCE, Credential
from tests.cloud import Answer, Cloud
from tests.identity.certificates import Signer

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def with_certificate(cloud: Cloud, signer: Signer) -> Credential:
    made = cloud.principal("with-certificate")
    path = f"/applications(appId='{made.client_id}')"
    assert cloud.graph("PATCH", path, {"keyCredentials": [{"key": signer.der}]}).status == 204
    return made


def assert_token(cloud: Cloud, token: str, who: Credential) -> dict[str, object]:
    """Verify a token with the published keys, as any client does, and return its claims."""
    found = cloud.call("identity", "GET", f"/{cloud.config.tenant_id}/discovery/v2.0/keys").body
    keys = jwt.PyJWKSet.from_dict(found)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims: dict[str, Any] = jwt.decode(token, key, algorithms=["RS256"], audience=ARM_AUDIENCE)
    assert claims["iss"] == f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/v2.0"
    assert (claims["oid"], claims["appid"]) == (who.object_id, who.client_id)
    assert claims["tid"] == cloud.config.tenant_id
    return claims


def test_discovery_names_what_is_there(cloud: Cloud) -> None:
    for tenant in (cloud.config.tenant_id, cloud.config.tenant_id.upper(), "common"):
        found = cloud.call("identity", "GET", f"/{tenant}/v2.0/.well-known/openid-configuration")
        assert found.status == 200
        assert found.body["issuer"] == f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/v2.0"
        for name in ("token_endpoint", "jwks_uri"):
            assert found.body[name].startswith(cloud.config.url("identity"))
    unknown = cloud.call("identity", "GET", "/other/v2.0/.well-known/openid-configuration")
    assert (unknown.status, unknown.body["error_codes"]) == (400, [90002])


def test_msal_gets_a_token_with_a_secret(cloud: Cloud) -> None:
    client = msal.ConfidentialClientApplication(
        cloud.owner.client_id,
        authority=f"{cloud.config.url('identity')}/{cloud.config.tenant_id}",
        client_credential=cloud.owner.client_secret,
        instance_discovery=False,
    )
    answer = client.acquire_token_for_client([f"{ARM_AUDIENCE}/.default"])
    assert_token(cloud, answer["access_token"], cloud.owner)


def test_azure_identity_gets_a_token_with_a_certificate(cloud: Cloud, signer: Signer) -> None:
    who = with_certificate(cloud, signer)
    with CertificateCredential(
        cloud.config.tenant_id,
        who.client_id,
        certificate_data=signer.pem,
        authority=cloud.config.url("identity"),
        disable_instance_discovery=True,
    ) as credential:
        assert_token(cloud, credential.get_token(f"{ARM_AUDIENCE}/.default").token, who)


def test_azure_identity_says_why_a_secret_is_wrong(cloud: Cloud) -> None:
    with (
        ClientSecretCredential(
            cloud.config.tenant_id,
            cloud.principal("mistaken").client_id,
            "wrong",
            authority=cloud.config.url("identity"),
            disable_instance_discovery=True,
        ) as credential,
        pytest.raises(ClientAuthenticationError, match="AADSTS7000215"),
    ):
        credential.get_token(f"{ARM_AUDIENCE}/.default")


def test_curl_gets_a_token_with_basic(cloud: Cloud) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    who = f"{cloud.owner.client_id}:{cloud.owner.client_secret}"
    url = f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/oauth2/v2.0/token"
    form = ["-d", "grant_type=client_credentials", "--data-urlencode", f"scope={ARM_AUDIENCE}/.default"]
    done = subprocess.run(
        [curl, "--silent", "--fail", "--cacert", str(cloud.config.ca_file), "--user", who, *form, url],
        stdout=subprocess.PIPE,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 3600)
    assert_token(cloud, answer["access_token"], cloud.owner)


def test_a_token_is_not_kept_on_the_way_and_has_the_audience_that_was_asked_for(cloud: Cloud) -> None:
    for audience in (ARM_AUDIENCE, f"{ARM_AUDIENCE}/", "api://any"):
        answer = cloud.ask_token(
            client_id=cloud.owner.client_id, client_secret=cloud.owner.client_secret, scope=f"{audience}/.default"
        )
        assert answer.headers["Cache-Control"] == "no-store"
        claims = jwt.decode(answer.body["access_token"], options={"verify_signature": False})
        assert claims["aud"] == audience


@pytest.mark.parametrize(
    ("form", "status", "error", "code"),
    [
        ({"grant_type": "password"}, 400, "unsupported_grant_type", 70003),
        ({"grant_type": ""}, 400, "unsupported_grant_type", 70003),
        ({"scope": ""}, 400, "invalid_scope", 1002012),
        ({"scope": ARM_AUDIENCE}, 400, "invalid_scope", 1002012),
        ({"scope": "/.default"}, 400, "invalid_scope", 1002012),
        ({"scope": "a/.default b/.default"}, 400, "invalid_scope", 1002012),
        ({"scope": "x" * 5000 + "/.default"}, 400, "invalid_scope", 1002012),
        ({"client_id": ""}, 400, "invalid_request", 900144),
        ({"client_id": "no-such"}, 400, "unauthorized_client", 700016),
        ({"client_secret": ""}, 401, "invalid_client", 7000218),
        ({"client_secret": "wrong"}, 401, "invalid_client", 7000215),
        ({"client_secret": "x" * 100_000}, 401, "invalid_client", 7000215),
        ({"client_assertion": "x"}, 400, "invalid_request", 900144),
        ({"client_assertion": "x", "client_assertion_type": ASSERTION}, 401, "invalid_client", 700027),
    ],
)
def test_refusals(cloud: Cloud, form: dict[str, str], status: int, error: str, code: int) -> None:
    who = cloud.principal("refused")
    answer = cloud.ask_token(**{"client_id": who.client_id, "client_secret": who.client_secret, **form})
    assert (answer.status, answer.body["error"], answer.body["error_codes"]) == (status, error, [code])
    assert answer.body["error_description"].startswith(f"AADSTS{code}: ")
    assert who.client_secret not in json.dumps(answer.body)


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"\xff\xfe=1", {}),
        (b"a&b&c", {}),
        (b"grant_type=client_credentials&grant_type=x", {}),
        (b"&".join(b"a%d=1" % number for number in range(100)), {}),
        (b"a=" + b"x" * 2_000_000, {}),
        (b"[" * 100_000, {"Content-Type": "application/json"}),
        (b"--x\r\n", {"Content-Type": "multipart/form-data; boundary=x"}),
        (b"grant_type=client_credentials", {"Content-Type": "application/x-www-form-urlencoded; charset=none"}),
        (b"grant_type=client_credentials", {"Authorization": "Basic !!!"}),
        (b"grant_type=client_credentials", {"Authorization": "Basic /////w=="}),
        (b"", {}),
    ],
)
def test_a_body_that_is_no_form_is_refused(cloud: Cloud, body: bytes, headers: dict[str, str]) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded", **headers}
    answer = cloud.call("identity", "POST", f"/{cloud.config.tenant_id}/oauth2/v2.0/token", body=body, headers=form)
    assert 400 <= answer.status < 500
    assert answer.body["error"] in ("invalid_request", "unsupported_grant_type", "invalid_client", "invalid_scope")


def test_the_room_counts_what_it_gives_and_refuses(cloud: Cloud) -> None:
    assert cloud.ask_token(client_id="no-such").status == 400
    assert cloud.token()
    counted = cloud.call("identity", "GET", "/metrics", show="metrics").body.decode()
    assert "identity_tokens_issued_total" in counted
    assert 'identity_requests_refused_total{error="unauthorized_client"}' in counted


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.sampled_from(
            ["grant_type", "client_id", "client_secret", "scope", "client_assertion", "client_assertion_type"]
        ),
        st.one_of(
            st.sampled_from(["client_credentials", f"{ARM_AUDIENCE}/.default", ASSERTION, "a.b.c"]),
            st.text(max_size=30),
        ),
    )
)
def test_no_form_breaks_it(cloud: Cloud, fuzzed: Credential, form: dict[str, str]) -> None:
    answer = cloud.ask_token(**{"client_id": fuzzed.client_id, **form})
    assert 400 <= answer.status < 500
    assert answer.body["error_codes"]


@pytest.fixture(scope="module")
def fuzzed(cloud: Cloud) -> Credential:
    """A principal that a test may lock out."""
    return cloud.principal("fuzzed")


# Assertions.


def ask_with(cloud: Cloud, who: Credential, assertion: str) -> Answer:
    return cloud.ask_token(client_id=who.client_id, client_assertion=assertion, client_assertion_type=ASSERTION)


def test_assertions_are_checked_in_every_part(cloud: Cloud, signer: Signer) -> None:
    who = with_certificate(cloud, signer)
    here = f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/oauth2/v2.0/token"
    now = int(time.time())
    good = signer.assertion(who.client_id, here)
    assert ask_with(cloud, who, good).status == 200
    assert ask_with(cloud, who, signer.assertion(who.client_id, here, "RS256")).status == 200
    head, body, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    stranger = Signer(key=signer.key)
    wrong = {
        "of another audience": signer.assertion(who.client_id, "https://elsewhere"),
        "of another issuer": signer.assertion(who.client_id, here, iss="other"),
        "of another subject": signer.assertion(who.client_id, here, sub=cloud.owner.client_id),
        "expired": signer.assertion(who.client_id, here, exp=now - 3600),
        "without an end": signer.assertion(who.client_id, here, exp=None),
        "good for ever": signer.assertion(who.client_id, here, exp=now + 10**9),
        "of endless time": signer.assertion(who.client_id, here, exp=float("inf")),
        "not yet good": signer.assertion(who.client_id, here, nbf=now + 3600),
        "for the owner": signer.assertion(cloud.owner.client_id, here),
        "with a certificate that is not registered": stranger.assertion(who.client_id, here),
        "unsigned": f"{none}.{body}.",
        "tampered": f"{head}.{body[:-2]}AA.{signature}",
        "cut": f"{head}.{body}",
        "deep": f"{base64.urlsafe_b64encode(b'[' * 50_000).decode()}.{body}.{signature}",
    }
    refused = {name: ask_with(cloud, who, assertion) for name, assertion in wrong.items()}
    assert {name: answer.status for name, answer in refused.items()} == dict.fromkeys(wrong, 401)
    codes = dict.fromkeys(wrong, 700027)
    codes |= dict.fromkeys(("expired", "good for ever", "not yet good"), 700024)
    # The token of somebody else needs a federated credential.
    codes |= dict.fromkeys(("of another issuer", "for the owner"), 70025)
    assert {name: answer.body["error_codes"][0] for name, answer in refused.items()} == codes
    assert ask_with(cloud, cloud.owner, good).status == 401


def test_a_certificate_is_good_while_it_is_valid_and_registered(cloud: Cloud, signer: Signer) -> None:
    here = f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/oauth2/v2.0/token"
    for early in (Signer(-3, -1, signer.key), Signer(1, 3, signer.key)):
        who = with_certificate(cloud, early)
        answer = ask_with(cloud, who, early.assertion(who.client_id, here))
        assert "not valid now" in answer.body["error_description"]
    who = with_certificate(cloud, signer)
    assert ask_with(cloud, who, signer.assertion(who.client_id, here)).status == 200
    path = f"/applications(appId='{who.client_id}')"
    assert cloud.graph("PATCH", path, {"keyCredentials": []}).status == 204
    assert ask_with(cloud, who, signer.assertion(who.client_id, here)).status == 401


# Secrets.


def add_secret(cloud: Cloud, who: Credential, starts: float, ends: float) -> dict[str, Any]:
    now = datetime.now(UTC)
    life = {
        "startDateTime": (now + timedelta(hours=starts)).isoformat(),
        "endDateTime": (now + timedelta(hours=ends)).isoformat(),
    }
    path = f"/applications(appId='{who.client_id}')/addPassword"
    answer = cloud.graph("POST", path, {"passwordCredential": life})
    assert answer.status == 200, answer.body
    secret: dict[str, Any] = answer.body
    return secret


def test_each_of_several_secrets_is_good_from_its_start_to_its_end(cloud: Cloud) -> None:
    who = cloud.principal("several")
    secrets = {
        "now": add_secret(cloud, who, -1, 1),
        "over": add_secret(cloud, who, -2, -1),
        "later": add_secret(cloud, who, 1, 2),
    }
    answers = {
        name: cloud.ask_token(client_id=who.client_id, client_secret=secret["secretText"])
        for name, secret in secrets.items()
    }
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 200
    assert {name: answer.status for name, answer in answers.items()} == {"now": 200, "over": 401, "later": 401}
    assert answers["over"].body["error_codes"] == [7000222]


def test_a_secret_that_was_taken_away_is_refused_at_once(cloud: Cloud) -> None:
    who = cloud.principal("renewed")
    new = add_secret(cloud, who, -1, 1)
    shown = cloud.graph("GET", f"/applications(appId='{who.client_id}')").body["passwordCredentials"]
    (old,) = (secret for secret in shown if secret["keyId"] != new["keyId"])
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 200
    path = f"/applications(appId='{who.client_id}')/removePassword"
    assert cloud.graph("POST", path, {"keyId": old["keyId"]}).status == 204
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 401
    assert cloud.ask_token(client_id=who.client_id, client_secret=new["secretText"]).status == 200


def test_a_secret_is_shown_once_and_kept_as_a_hash(cloud: Cloud) -> None:
    who = cloud.principal("hidden")
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 200
    shown = cloud.graph("GET", f"/applications(appId='{who.client_id}')").body
    assert shown["passwordCredentials"][0]["secretText"] is None
    assert shown["passwordCredentials"][0]["hint"] == who.client_secret[:3]
    kept = b"".join(path.read_bytes() for path in (cloud.config.data_dir / "identity").rglob("*") if path.is_file())
    assert who.client_id.encode() in kept
    assert who.client_secret.encode() not in kept
    assert b"$argon2id$" in kept
    cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret, scope="wrong")
    assert "AADSTS1002012" in cloud.log("identity")
    assert who.client_secret not in cloud.log("identity")


def test_guessing_is_slowed_down_and_disturbs_nobody_who_knows(cloud: Cloud) -> None:
    known, other = cloud.principal("guessed"), cloud.principal("bystander")
    assert cloud.ask_token(client_id=known.client_id, client_secret=known.client_secret).status == 200
    guesses = [cloud.ask_token(client_id=known.client_id, client_secret=f"guess{number}") for number in range(15)]
    assert {answer.status for answer in guesses[:10]} == {401}
    slowed = [answer for answer in guesses if answer.status == 429]
    assert slowed
    assert slowed[0].body["error_codes"] == [50196]
    assert int(slowed[0].headers["Retry-After"]) > 0
    for who in (known, other):
        assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 200
