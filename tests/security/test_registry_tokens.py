"""The registry's data plane takes its own tokens, for the registry that was called, and no others."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
import pytest

from cumulet.common.entra import ARM_AUDIENCE, REGISTRY_AUDIENCE
from tests.cloud import Cloud
from tests.registry.login_server import AcrRegistry, basic


@pytest.fixture(scope="module")
def acr(cloud: Cloud, group: str) -> AcrRegistry:
    """A registry with an image, in the resource group that its helper has."""
    assert cloud.arm("PUT", f"{cloud.subscription}/resourceGroups/group", {"location": "eastus"}).status in (200, 201)
    made = AcrRegistry(cloud, "tokenregistry", adminUserEnabled=True)
    made.push("base/image", "v1")
    return made


@pytest.fixture(scope="module")
def other(acr: AcrRegistry) -> AcrRegistry:
    """Another registry, with the same image."""
    made = AcrRegistry(acr.cloud, "otherregistry", adminUserEnabled=True)
    made.push("base/image", "v1")
    return made


def _unsigned(header: dict[str, Any], claims: dict[str, Any], signature: str = "") -> str:
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in (header, claims)]
    return ".".join([*parts, signature])


def test_no_token_but_its_own(acr: AcrRegistry, other: AcrRegistry) -> None:
    good = acr.admin_token("repository:base/image:pull")
    assert acr.manifest("base/image", "v1", token=good).status == 200
    header, claims = jwt.get_unverified_header(good), jwt.decode(good, options={"verify_signature": False})
    head, _, signature = good.split(".")
    wider = {
        **claims,
        "access": [{"type": "repository", "name": "base/image", "actions": ["pull", "push", "delete"]}],
    }
    edited = _unsigned(header, wider).split(".")[1]
    refresh = acr.form(
        "/oauth2/exchange", grant_type="access_token", access_token=acr.cloud.token(audience=REGISTRY_AUDIENCE)
    ).body["refresh_token"]
    forged = {
        "unsigned": _unsigned({**header, "alg": "none"}, claims),
        "signed with an empty key": jwt.encode(claims, "x" * 32, "HS256", headers={"kid": header["kid"]}),
        "of another key": jwt.encode(claims, "0" * 64, "HS256", headers={"kid": "0"}),
        "edited": f"{head}.{edited}.{signature}",
        "a refresh token": refresh,
        "an Entra token": acr.cloud.token(audience=REGISTRY_AUDIENCE),
        "an Entra token for Resource Manager": acr.cloud.token(audience=ARM_AUDIENCE),
        "of another registry": other.admin_token("repository:base/image:pull"),
        "cut": good[:-4],
    }
    for name, token in forged.items():
        assert acr.manifest("base/image", "v1", token=token).status == 401, name
    for scheme in ("bearer", "BEARER"):
        assert acr.manifest("base/image", "v1", headers={"Authorization": f"{scheme} {good}"}).status == 200
    for wrong in ("Bea\u0072er\u00a0", "Bear\u00ebr ", "Digest "):
        headers = {"Authorization": f"{wrong}{good}"}
        assert acr.manifest("base/image", "v1", headers=headers).status == 401, wrong


def test_the_admin_of_one_registry_is_nobody_in_another(acr: AcrRegistry, other: AcrRegistry) -> None:
    user, password = acr.admin()
    for name in (user, other.name, user.upper()):
        assert other.ask(name, password, "repository:base/image:pull").status == 401
    for host in (f"{other.name}.azurecr.io.evil", f"evil.{other.name}.azurecr.io", f"x{other.name}.azurecr.io"):
        answer = acr.cloud.call(
            "registry", "GET", "/v2/base/image/tags/list", headers={"Host": host, **basic(user, password)}
        )
        assert answer.status in (200, 401, 404)
        if (
            answer.status == 200
        ):  # a name that is no login server's means the oldest registry, where the password counts
            assert answer.body["name"] == "base/image"


def test_a_token_of_a_principal_without_a_role_opens_nothing(acr: AcrRegistry) -> None:
    who = acr.cloud.principal("no-role")
    token = acr.token_of(who, "repository:base/image:pull", "registry:catalog:*")
    assert acr.manifest("base/image", "v1", token=token).status == 403
    assert acr.call("GET", "/v2/_catalog", token=token).status == 403
    for path in ("/acr/v1/_catalog", "/acr/v1/base/image", "/acr/v1/base/image/_tags", "/acr/v1/_deleted/_catalog"):
        assert acr.call("GET", path, token=token).status in (401, 403), path


def test_a_deleted_principal_gets_no_further_token(acr: AcrRegistry) -> None:
    cloud = acr.cloud
    who = cloud.principal("leaver", AcrPull=acr.id)
    assert acr.manifest("base/image", "v1", token=acr.token_of(who, "repository:base/image:pull")).status == 200
    refresh = acr.exchange(who).body["refresh_token"]
    entra = cloud.token(who, REGISTRY_AUDIENCE)
    principal = cloud.graph("GET", f"/servicePrincipals(appId='{who.client_id}')").body["id"]
    assert cloud.graph("DELETE", f"/servicePrincipals/{principal}").status == 204
    assert acr.ask(who.client_id, who.client_secret, "repository:base/image:pull").status == 401
    again = acr.form("/oauth2/exchange", grant_type="access_token", access_token=entra)
    for token in (refresh, *([again.body["refresh_token"]] if again.status == 200 else [])):
        scope = "repository:base/image:pull"
        answer = acr.form("/oauth2/token", grant_type="refresh_token", refresh_token=token, scope=scope)
        if answer.status == 200:  # the token is the principal's, who has no right any more
            assert acr.manifest("base/image", "v1", token=answer.body["access_token"]).status == 403
