"""Invalid tokens, forms and hosts at the token endpoints and the data plane."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import jwt
import pytest

from cumulet.common.entra import GRAPH_AUDIENCE, Credential
from tests.cloud import Cloud
from tests.registry.login_server import AcrRegistry, basic, claims_of, codes

NULL_GUID = "00000000-0000-0000-0000-000000000000"
PULL = "repository:base/image:pull"


def resigned(token: str, key: bytes = b"k" * 32, **changed: object) -> str:
    return jwt.encode(
        {**claims_of(token), **changed}, key, "HS256", headers={"kid": jwt.get_unverified_header(token)["kid"]}
    )


def unsigned(token: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps(claims_of(token)).encode()).rstrip(b"=").decode()
    kid = jwt.get_unverified_header(token)["kid"]
    head = base64.urlsafe_b64encode(json.dumps({"alg": "none", "kid": kid}).encode()).rstrip(b"=").decode()
    return f"{head}.{claims}."


def flipped(token: str) -> str:
    head, claims, signature = token.split(".")
    return ".".join((head, claims, ("A" if signature[0] != "A" else "B") + signature[1:]))


def widened(token: str) -> str:
    head, _, signature = token.split(".")
    claims = {**claims_of(token), "access": [{"type": "repository", "name": "base/image", "actions": ["push"]}]}
    return ".".join((head, base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode(), signature))


@pytest.mark.parametrize(
    "spoil", [unsigned, flipped, widened, resigned, lambda token: token[:-9], lambda _: "x", lambda _: "a.b.c"]
)
def test_tampered_tokens(acr: AcrRegistry, puller: Credential, spoil: object) -> None:
    assert callable(spoil)
    bad = spoil(acr.token_of(puller, PULL))
    for path in ("/v2/", "/v2/base/image/manifests/v1", "/acr/v1/base/image"):
        answer = acr.call("GET", path, token=bad)
        assert (answer.status, codes(answer)) == (401, ["UNAUTHORIZED"])
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]
    refresh = spoil(acr.exchange(puller).body["refresh_token"])
    for answer in (
        acr.form("/oauth2/token", grant_type="refresh_token", scope=PULL, refresh_token=refresh),
        acr.ask(NULL_GUID, refresh, PULL),
        acr.form("/oauth2/exchange", grant_type="access_token", access_token=spoil(acr.cloud.token())),
    ):
        assert (answer.status, codes(answer)) == (401, ["UNAUTHORIZED"])


def test_tokens_in_the_wrong_place(cloud: Cloud, acr: AcrRegistry, puller: Credential) -> None:
    other = AcrRegistry(cloud, "acrother")
    access, refresh = acr.token_of(puller, PULL), acr.exchange(puller).body["refresh_token"]
    refused = [
        other.manifest("base/image", "v1", token=access),
        other.ask(NULL_GUID, refresh, PULL),
        acr.manifest("base/image", "v1", token=refresh),
        acr.ask(NULL_GUID, access, PULL),
        acr.exchange(puller, GRAPH_AUDIENCE),
        acr.call("GET", "/v2/", token=cloud.token(puller)),
    ]
    assert [(answer.status, codes(answer)) for answer in refused] == [(401, ["UNAUTHORIZED"])] * len(refused)


@pytest.mark.parametrize(
    ("method", "path", "more", "status"),
    [
        ("GET", "/oauth2/token", {"headers": {"Authorization": "Basic !!"}}, 401),
        ("GET", "/oauth2/token", {"headers": {"Authorization": "Basic YQ=="}}, 401),
        ("GET", "/oauth2/token", {"headers": {"Authorization": "Basic /////w=="}}, 401),
        ("GET", "/oauth2/token", {"headers": {"Authorization": "Negotiate x"}}, 401),
        ("GET", "/oauth2/token", {"headers": basic("\0", "\0")}, 401),
        ("GET", "/oauth2/token", {"headers": basic("a" * 3000, "b" * 3000)}, 401),
        ("GET", "/v2/", {"headers": {"Authorization": "Basic"}}, 401),
        ("GET", "/v2/", {"headers": {"Authorization": "Bearer"}}, 401),
        ("GET", "/v2/", {"headers": {"Authorization": "Digest x"}}, 401),
        ("POST", "/oauth2/token", {"form": {"grant_type": "client_credentials"}}, 400),
        ("POST", "/oauth2/token", {"form": {}}, 400),
        ("POST", "/oauth2/token", {}, 415),
        ("POST", "/oauth2/token", {"body": {"grant_type": "password"}}, 415),
        ("POST", "/oauth2/exchange", {"form": {"grant_type": "access_token"}}, 400),
        ("POST", "/oauth2/exchange", {"form": {"grant_type": "password", "access_token": "x"}}, 400),
        ("GET", "/oauth2/exchange", {}, 405),
        ("PUT", "/oauth2/token", {}, 405),
        ("POST", "/oauth2/token", {"form": {"grant_type": "refresh_token", "refresh_token": ""}}, 401),
        ("POST", "/oauth2/token", {"form": {f"f{number}": "x" for number in range(500)}}, 400),
        ("POST", "/oauth2/token", {"form": {"grant_type": "x" * 2_000_000}}, 413),
    ],
)
def test_bad_requests(acr: AcrRegistry, method: str, path: str, more: dict[str, Any], status: int) -> None:
    answer = acr.call(method, path, **more)
    assert answer.status == status
    assert codes(answer)


def test_invalid_forms(acr: AcrRegistry) -> None:
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"\xff\xfe", b"a&b", b"grant_type=password&grant_type=refresh_token"):
        assert acr.call("POST", "/oauth2/token", body=body, headers=headers).status == 400


def test_an_unknown_registry(acr: AcrRegistry) -> None:
    for path in ("/v2/", "/oauth2/token", "/acr/v1/_catalog"):
        answer = acr.call("GET", path, headers={"Host": "nowhere.azurecr.io"})
        assert (answer.status, codes(answer)) == (404, ["NAME_UNKNOWN"])


def test_a_host_with_quotes_is_not_in_the_challenge(acr: AcrRegistry) -> None:
    answer = acr.call("GET", "/v2/", headers={"Host": 'x",evil="'})
    assert re.fullmatch(
        r'Bearer realm="https://[a-z0-9.]+/oauth2/token",service="[a-z0-9.]+"', answer.headers["WWW-Authenticate"]
    )
