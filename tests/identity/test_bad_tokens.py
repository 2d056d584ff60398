"""Invalid access tokens: the front door and Graph answer 401, each in its own form."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cumulet.common.entra import ARM_AUDIENCE, GRAPH_AUDIENCE
from tests.cloud import Answer, Cloud


def ask(cloud: Cloud, room: str, token: str) -> Answer:
    if room == "arm":
        return cloud.call("arm", "GET", f"{cloud.subscription}/resourceGroups", token=token)
    return cloud.call("identity", "GET", "/v1.0/applications", token=token)


def signing_key(cloud: Cloud) -> tuple[str, str]:
    """Return the id and the PEM of the signing key, from the room's own file, which no client can read."""
    connection = sqlite3.connect(f"file:{cloud.config.data_dir}/identity/identity.db?mode=ro", uri=True)
    try:
        kid, pem = connection.execute("SELECT kid, pem FROM signing_key").fetchone()
        return kid, pem
    finally:
        connection.close()


def signed(cloud: Cloud, room: str, **changed: object) -> str:
    """Return a token with the room's own signature and changed claims. A claim that is `None` is omitted."""
    now = int(time.time())
    claims = {
        "aud": ARM_AUDIENCE if room == "arm" else GRAPH_AUDIENCE,
        "iss": f"{cloud.config.url('identity')}/{cloud.config.tenant_id}/v2.0",
        "exp": now + 600,
        "nbf": now,
        "oid": cloud.owner.object_id,
        "appid": cloud.owner.client_id,
        **changed,
    }
    kid, pem = signing_key(cloud)
    sent = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(sent, pem, "RS256", headers={"kid": kid})


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("room", ["arm", "graph"])
def test_forged_and_stale_tokens(cloud: Cloud, room: str) -> None:
    good = signed(cloud, room)
    assert ask(cloud, room, good).status == 200
    head, body, signature = good.split(".")
    kid, pem = signing_key(cloud)
    public = rsa_public(pem)
    own = rsa.generate_private_key(65537, 2048)
    claims = jwt.decode(good, options={"verify_signature": False})
    now = int(time.time())
    wrong = {
        "none": f"{part({'alg': 'none', 'kid': kid})}.{body}.",
        "none with a signature": f"{part({'alg': 'none', 'kid': kid})}.{body}.{signature}",
        "the public key as a secret": hmac_with(public, {"alg": "HS256", "kid": kid}, body),
        "another key": jwt.encode(claims, own, "RS256", headers={"kid": kid}),
        "a key that is not known": jwt.encode(claims, own, "RS256", headers={"kid": "other"}),
        "no key named": jwt.encode(claims, own, "RS256"),
        "a key of its own in the header": jwt.encode(
            claims,
            own,
            "RS256",
            headers={"kid": kid, "jwk": json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(own.public_key()))},
        ),
        "tampered body": f"{head}.{part({**claims, 'oid': 'somebody'})}.{signature}",
        "tampered signature": f"{head}.{body}.{signature[:-4]}AAAA",
        "no signature": f"{head}.{body}.",
        "expired": signed(cloud, room, exp=now - 3600),
        "not yet good": signed(cloud, room, nbf=now + 3600),
        "without an end": signed(cloud, room, exp=None),
        "without a principal": signed(cloud, room, oid=None),
        "for another audience": signed(cloud, room, aud="https://vault.azure.net"),
        "without an audience": signed(cloud, room, aud=None),
        "of another tenant": signed(cloud, room, iss="https://elsewhere/v2.0"),
        "of an endless life": signed(cloud, room, exp=float("inf")),
        "a kid that is no text": f"{part({'alg': 'RS256', 'kid': {}})}.{body}.{signature}",
        "a header that is no object": f"{part([])}.{body}.{signature}",
        "deep": f"{base64.urlsafe_b64encode(b'[' * 3999).decode()}.{body}.{signature}",
        "crit": f"{part({'alg': 'RS256', 'kid': kid, 'crit': ['x'], 'x': 1})}.{body}.{signature}",
        "dots": "....",
        "nothing": "x",
    }
    answers = {name: ask(cloud, room, token) for name, token in wrong.items()}
    assert {name: answer.status for name, answer in answers.items()} == dict.fromkeys(wrong, 401)
    assert {answer.code for answer in answers.values()} == {"InvalidAuthenticationToken"}


def hmac_with(secret: bytes, header: dict[str, object], body: str) -> str:
    """Return a token that a verifier accepts if it lets the token choose the algorithm."""
    signed_part = f"{part(header)}.{body}"
    digest = hmac.digest(secret, signed_part.encode(), hashlib.sha256)
    return f"{signed_part}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def rsa_public(pem: str) -> bytes:
    key = serialization.load_pem_private_key(pem.encode(), None).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def test_the_front_door_says_where_a_token_is_to_be_had(cloud: Cloud) -> None:
    for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer"}):
        answer = cloud.call("arm", "GET", "/subscriptions", headers=headers)
        assert (answer.status, answer.code) == (401, "AuthenticationFailed")
        assert (
            f'authorization_uri="{cloud.config.url("identity")}/{cloud.config.tenant_id}"'
            in (answer.headers["WWW-Authenticate"])
        )


def test_a_token_of_a_principal_that_was_deleted_opens_nothing(cloud: Cloud) -> None:
    who = cloud.principal("deleted", Reader=cloud.subscription)
    tokens = {"arm": cloud.token(who), "graph": cloud.token(who, GRAPH_AUDIENCE)}
    assert {room: ask(cloud, room, token).status for room, token in tokens.items()} == {"arm": 200, "graph": 200}
    assert cloud.graph("DELETE", f"/applications(appId='{who.client_id}')").status == 204
    assert ask(cloud, "graph", tokens["graph"]).status == 401
    assert cloud.ask_token(client_id=who.client_id, client_secret=who.client_secret).status == 400
    # A change of roles through the front door is effective immediately and clears its cache.
    cloud.principal("another", Reader=cloud.subscription)
    assert ask(cloud, "arm", tokens["arm"]).status == 403


printable = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=60)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["arm", "graph"]), st.lists(printable, max_size=5).map(".".join))
@example("arm", "e30.e30.e30")
def test_no_text_is_taken_for_a_token(cloud: Cloud, room: str, token: str) -> None:
    assert ask(cloud, room, token).status == 401


def test_a_token_that_was_accepted_expires(cloud: Cloud) -> None:
    token = signed(cloud, "arm", exp=int(time.time()) - 28)  # clocks may differ by 30 seconds
    assert ask(cloud, "arm", token).status == 200
    until = time.monotonic() + 30
    while time.monotonic() < until and (answer := ask(cloud, "arm", token)).status == 200:
        pass
    assert (answer.status, answer.code) == (401, "InvalidAuthenticationToken")
