"""The token of an external issuer is accepted for exactly what a credential of the client says, and never by its own word."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cumulet.common.entra import Credential
from tests.cloud import Cloud
from tests.identity.issuer import AUDIENCE, SUBJECT, Issuer, ask, published, running, trust


@pytest.fixture(scope="module")
def issuer(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    """An issuer that a client trusts."""
    with running(cloud, tmp_path_factory.mktemp("issuer")) as made:
        made.keys["elliptic"] = ec.generate_private_key(ec.SECP256R1())
        yield made


@pytest.fixture(scope="module")
def client(cloud: Cloud, issuer: Issuer) -> Credential:
    """A client that trusts the issuer."""
    made = cloud.principal("federated")
    assert trust(cloud, made.client_id, issuer.url).status == 201
    return made


def code(cloud: Cloud, client: Credential, assertion: str) -> int:
    """The code of the refusal of an assertion, 0 if it is accepted."""
    answer = ask(cloud, client.client_id, assertion)
    if answer.status == 200:
        return 0
    assert answer.status == 401, answer.body
    found: int = answer.body["error_codes"][0]
    return found


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"x") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"iss": "https://other.example"}, 700211),
        ({"sub": f"{SUBJECT}2"}, 700213),
        ({"sub": SUBJECT.upper()}, 700213),
        ({"aud": ["https://kubernetes.default.svc"]}, 700212),
        ({"aud": AUDIENCE.upper()}, 700212),
        ({"aud": None}, 50027),
        ({"iss": None}, 700027),
        ({"sub": None}, 50027),
        ({"aud": {AUDIENCE: 1}}, 50027),
        ({"exp": None}, 50027),
        ({"exp": "never"}, 50027),
        ({"exp": int(time.time()) - 3600}, 700024),
        ({"nbf": int(time.time()) + 3600}, 700024),
    ],
)
def test_claims_are_compared_exactly(
    cloud: Cloud, client: Credential, issuer: Issuer, changed: dict[str, Any], expected: int
) -> None:
    # PyJWT refuses to make some of these tokens, and signs nothing that is not a text.
    if any(isinstance(changed.get(name), dict) for name in changed):
        now = int(time.time())
        claims = {"iss": issuer.url, "sub": SUBJECT, "aud": AUDIENCE, "exp": now + 600, **changed}
        assertion = forged({"alg": "RS256", "kid": "first"}, claims)
    else:
        assertion = issuer.token(**changed)
    assert code(cloud, client, assertion) == expected


def test_who_signed_is_decided_by_the_issuers_keys(cloud: Cloud, client: Credential, issuer: Issuer) -> None:
    stranger = rsa.generate_private_key(65537, 2048)
    assert code(cloud, client, issuer.token()) == 0
    assert code(cloud, client, issuer.token("elliptic")) == 0
    now = int(time.time())
    claims = {"iss": issuer.url, "sub": SUBJECT, "aud": AUDIENCE, "exp": now + 600}
    first = issuer.keys["first"]
    for assertion in (
        issuer.token("first", stranger),
        # The header brings a key, or names where one is.
        issuer.token("first", stranger, headers={"jwk": published("first", stranger)}),
        issuer.token("first", stranger, headers={"jku": "https://127.0.0.2/keys", "x5u": "https://127.0.0.2/x"}),
        # A key under the name of another, a path, and no name.
        issuer.token("elliptic", first, "RS256"),
        issuer.token("first", issuer.keys["elliptic"], "ES256"),
        issuer.token("../keys", first),
        issuer.token("FIRST", first),
        forged({"alg": "none", "kid": "first"}, claims, b""),
        forged({"alg": "RS256", "kid": "first"}, claims),
    ):
        assert code(cloud, client, assertion) == 50013, assertion
    for algorithm in ("HS256", "HS512"):  # the public key as a secret
        assert _hmac(cloud, client, first, claims, algorithm) == 50013
    for header in (
        {"alg": "RS256"},
        {"alg": "RS256", "kid": 5},
        {"alg": "RS256", "kid": ["first"]},
        {"kid": "first"},
    ):
        assert code(cloud, client, forged(header, claims)) in (50027, 700027)
    for nonsense in ("", "x", "..", "a.b.c", "[" * 9000):
        assert code(cloud, client, nonsense) in (50027, 7000218, 700027)


def _hmac(cloud: Cloud, client: Credential, key: Any, claims: dict[str, Any], algorithm: str) -> int:
    unsigned = forged({"alg": algorithm, "kid": "first"}, claims, b"").removesuffix(".")
    digest = hmac.new(pem(key), unsigned.encode(), hashlib.sha256 if algorithm == "HS256" else hashlib.sha512)
    return code(cloud, client, f"{unsigned}.{base64.urlsafe_b64encode(digest.digest()).rstrip(b'=').decode()}")


@pytest.mark.filterwarnings("ignore:The RSA key is 1024 bits long")
def test_weak_and_other_keys_are_not_used(cloud: Cloud, tmp_path: Path) -> None:
    with running(cloud, tmp_path) as other:
        weak = rsa.generate_private_key(65537, 1024)
        curve = ec.generate_private_key(ec.SECP384R1())
        secret = {"kty": "oct", "kid": "secret", "k": base64.urlsafe_b64encode(b"x" * 32).decode()}
        used = rsa.generate_private_key(65537, 2048)
        other.extra = [secret, published("weak", weak), published("curve", curve), {"kty": "RSA", "kid": "broken"}]
        other.extra.append({**published("encrypts", used), "use": "enc"})
        client = cloud.principal("weak")
        assert trust(cloud, client.client_id, other.url).status == 201
        assert code(cloud, client, other.token()) == 0
        assert code(cloud, client, other.token("weak", weak)) == 50013
        assert code(cloud, client, other.token("curve", curve, "ES384")) == 50013
        assert code(cloud, client, other.token("secret", b"x" * 32, "HS256")) == 50013
        assert code(cloud, client, other.token("encrypts", used)) == 50013


def test_an_issuer_is_asked_only_for_who_trusts_it(cloud: Cloud, client: Credential, tmp_path: Path) -> None:
    with running(cloud, tmp_path) as other:
        assert code(cloud, client, other.token()) == 700211
        assert code(cloud, cloud.principal("trusts nobody"), other.token()) == 70025
        assert other.asked == []


def test_the_directorys_own_tokens_are_no_assertions(cloud: Cloud, client: Credential) -> None:
    own = f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/v2.0"
    assert trust(cloud, client.client_id, own, name="itself", subject=cloud.owner.object_id).status == 201
    assert code(cloud, client, cloud.token(audience=AUDIENCE)) == 700222


def test_a_credential_is_good_for_its_own_client(cloud: Cloud, client: Credential, issuer: Issuer) -> None:
    other = cloud.principal("other")
    assert trust(cloud, other.client_id, issuer.url, subject="somebody else").status == 201
    assert code(cloud, other, issuer.token()) == 700213
    assert code(cloud, cloud.owner, issuer.token()) == 70025
    path = f"/applications(appId='{other.client_id}')/federatedIdentityCredentials/external"
    assert code(cloud, other, issuer.token(sub="somebody else")) == 0
    assert cloud.graph("DELETE", path).status == 204
    assert code(cloud, other, issuer.token(sub="somebody else")) == 70025
