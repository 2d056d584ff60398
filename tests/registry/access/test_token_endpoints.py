"""Every kind of login, the claims of tokens, and the end of credentials."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from cumulet.common.config import RoomName
from cumulet.common.entra import ARM_AUDIENCE, REGISTRY_AUDIENCE, Credential
from cumulet.registry.access.tokens import REFRESH_LIFE
from tests.cloud import Answer, Cloud
from tests.registry.client import Registry
from tests.registry.login_server import AcrRegistry, basic, claims_of, codes, granted

NULL_GUID = "00000000-0000-0000-0000-000000000000"
PULL = "repository:base/image:pull"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("GET", "/v2/", None),
        ("GET", "/v2/_catalog", "registry:catalog:*"),
        ("GET", "/acr/v1/_catalog", "registry:catalog:*"),
        ("GET", "/v2/app3/acr-app3/manifests/v1", "repository:app3/acr-app3:pull"),
        ("HEAD", "/v2/app3/acr-app3/blobs/sha256:" + "0" * 64, "repository:app3/acr-app3:pull"),
        ("POST", "/v2/app3/acr-app3/blobs/uploads/", "repository:app3/acr-app3:pull,push"),
        ("DELETE", "/v2/app3/acr-app3/manifests/v1", "repository:app3/acr-app3:delete"),
        ("GET", "/acr/v1/app3/acr-app3", "repository:app3/acr-app3:metadata_read"),
        ("GET", "/acr/v1/app3/acr-app3/_tags/v1", "repository:app3/acr-app3:metadata_read"),
    ],
)
def test_the_challenge(acr: AcrRegistry, method: str, path: str, scope: str | None) -> None:
    answer = acr.call(method, path)
    assert answer.status == 401
    expected = f'Bearer realm="https://{acr.server}/oauth2/token",service="{acr.server}"'
    assert answer.headers["WWW-Authenticate"] == expected + (f',scope="{scope}"' if scope else "")
    if method != "HEAD":
        assert codes(answer) == ["UNAUTHORIZED"]
        assert answer.body["errors"][0]["message"] == "authentication required"


def test_basic_for_a_token(acr: AcrRegistry, puller: Credential) -> None:
    answer = acr.ask(puller.client_id.upper(), puller.client_secret, f"{PULL},push", "registry:catalog:*")
    token = answer.body["access_token"]
    assert answer.body["token"] == token
    claims = claims_of(token)
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("Azure Container Registry", acr.server, puller.client_id)
    assert claims["grant_type"] == "access_token"
    assert 60 <= claims["exp"] - claims["iat"] == answer.body["expires_in"] <= 900
    assert claims["access"] == [
        {"type": "repository", "name": "base/image", "actions": ["pull"]},
        {"type": "registry", "name": "catalog", "actions": ["*"]},
    ]
    assert acr.manifest("base/image", "v1", token=token).status == 200
    assert acr.call("GET", "/v2/", token=token).status == 200
    denied = acr.call("POST", "/v2/base/image/blobs/uploads/", token=token)
    assert (denied.status, codes(denied)) == (403, ["DENIED"])
    # An action that was not requested gets another challenge.
    other = acr.manifest("other/image", "v1", token=token)
    assert other.status == 401
    assert 'error="insufficient_scope"' in other.headers["WWW-Authenticate"]


def test_every_grant_of_the_token_endpoint(acr: AcrRegistry, puller: Credential) -> None:
    password = {"username": puller.client_id, "password": puller.client_secret}
    answer = acr.form("/oauth2/token", grant_type="password", access_type="offline", scope=PULL, **password)
    assert granted(answer.body["access_token"]) == {"base/image": ["pull"]}
    refresh = answer.body["refresh_token"]
    answer = acr.form("/oauth2/token", grant_type="refresh_token", scope=PULL, refresh_token=refresh)
    assert granted(answer.body["access_token"]) == {"base/image": ["pull"]}
    assert granted(acr.token(NULL_GUID, refresh, PULL)) == {"base/image": ["pull"]}
    assert "refresh_token" not in acr.form("/oauth2/token", grant_type="password", scope=PULL, **password).body
    again = acr.form("/oauth2/exchange", grant_type="refresh_token", refresh_token=refresh)
    assert claims_of(again.body["refresh_token"])["sub"] == puller.client_id


@pytest.mark.parametrize("audience", ["", ARM_AUDIENCE])
def test_an_entra_token_for_a_refresh_token(acr: AcrRegistry, puller: Credential, audience: str) -> None:
    answer = acr.exchange(puller, *([audience] if audience else []))
    claims = claims_of(answer.body["refresh_token"])
    assert claims["iss"] == "Azure Container Registry"
    assert (claims["aud"], claims["grant_type"], claims["version"]) == (acr.server, "refresh_token", "1.0")
    assert claims["tenant"] == acr.cloud.config.tenant_id
    assert claims["permissions"] == {"actions": ["read"], "notActions": None}
    assert claims["exp"] - claims["iat"] == REFRESH_LIFE
    assert {"jti", "sub", "nbf", "roles"} <= claims.keys()
    token = acr.token(NULL_GUID, answer.body["refresh_token"], f"{PULL},delete")
    assert granted(token) == {"base/image": ["pull"]}


def test_basic_on_the_data_plane(acr: AcrRegistry, puller: Credential) -> None:
    headers = basic(puller.client_id, puller.client_secret)
    assert acr.call("GET", "/v2/", headers=headers).status == 200
    assert acr.manifest("base/image", "v1", headers=headers).status == 200
    assert acr.call("GET", "/acr/v1/base/image/_tags", headers=headers).status == 200
    denied = acr.call("DELETE", "/v2/base/image/manifests/v1", headers=headers)
    assert (denied.status, codes(denied)) == (403, ["DENIED"])
    assert puller.client_id in denied.body["errors"][0]["message"]
    wrong = acr.call("GET", "/v2/", headers=basic(puller.client_id, "wrong"))
    assert (wrong.status, codes(wrong)) == (401, ["UNAUTHORIZED"])
    assert "AADSTS7000215" in wrong.body["errors"][0]["message"]


@pytest.mark.parametrize(
    ("scopes", "expected"),
    [
        ([PULL], {"base/image": ["pull"]}),
        ([f"{PULL} repository:b:pull"], {"base/image": ["pull"], "b": ["pull"]}),
        ([PULL, "repository:base/image:push,pull"], {"base/image": ["pull", "push"]}),
        (["repository(plugin):base/image:pull"], {"base/image": ["pull"]}),
        (["registry:catalog:*"], {"catalog": ["*"]}),
        (["repository:base/image:metadata_read"], {"base/image": ["metadata_read"]}),
        (["repository:base/image:invented"], {"base/image": []}),
        ([], {}),
        ([""], {}),
        (["repository:base/image"], {}),
        (["repository::pull"], {}),
        (["repository:../../etc:pull"], {}),
        (["repository:UPPER:pull"], {}),
        (["registry:other:*"], {}),
        (["nonsense", "a:b:c", ":::", "repository:x:pull,", PULL], {"base/image": ["pull"]}),
    ],
)
def test_scopes(acr: AcrRegistry, scopes: list[str], expected: dict[str, list[str]]) -> None:
    assert granted(acr.admin_token(*scopes)) == expected


def test_a_star_expands_to_the_granted_actions(acr: AcrRegistry, puller: Credential) -> None:
    assert granted(acr.token_of(puller, "repository:a:*")) == {"a": ["metadata_read", "pull"]}
    assert {"pull", "push", "delete", "metadata_write"} <= set(granted(acr.admin_token("repository:a:*"))["a"])
    denied = acr.call("DELETE", "/v2/a/manifests/v1", token=acr.token_of(puller, "repository:a:*"))
    assert denied.status == 403


def test_a_thousand_scopes(acr: AcrRegistry) -> None:
    user, password = acr.admin()
    form = {"grant_type": "password", "username": user, "password": password}
    many = acr.form("/oauth2/token", scope=" ".join(f"repository:r{number}:pull" for number in range(1000)), **form)
    assert (many.status, codes(many)) == (400, ["UNSUPPORTED"])
    long = acr.form(
        "/oauth2/token", scope=" ".join(f"repository:{'r' * 200}{number}:pull" for number in range(90)), **form
    )
    assert (long.status, codes(long)) == (400, ["UNSUPPORTED"])


# The admin user.


def test_the_admin_user(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acradmin")
    refused = registry.arm("POST", "/listCredentials")
    assert (refused.status, refused.code) == (400, "UnAuthorizedForCredentialOperations")
    assert registry.ask("acradmin", "x", PULL).status == 401
    assert registry.arm("PATCH", "", {"properties": {"adminUserEnabled": True}}).status == 200
    first, second = (item["value"] for item in registry.arm("POST", "/listCredentials").body["passwords"])
    assert first != second
    refresh = []
    for password in (first, second):
        assert granted(registry.token("ACRadmin", password, PULL)) == {"base/image": ["pull"]}
        answer = registry.form(
            "/oauth2/token", grant_type="password", access_type="offline", username="acradmin", password=password
        )
        refresh.append(answer.body["refresh_token"])
    renewed = registry.arm("POST", "/regenerateCredential", {"name": "password"}).body["passwords"]
    assert renewed[0]["value"] not in (first, second)
    assert renewed[1]["value"] == second
    assert registry.ask("acradmin", first, PULL).status == 401
    assert registry.ask("acradmin", second, PULL).status == 200
    # A refresh token ends with its password.
    assert registry.ask(NULL_GUID, refresh[0], PULL).status == 401
    assert registry.ask(NULL_GUID, refresh[1], PULL).status == 200
    assert registry.arm("PATCH", "", {"properties": {"adminUserEnabled": False}}).status == 200
    assert registry.ask("acradmin", second, PULL).status == 401
    assert registry.ask(NULL_GUID, refresh[1], PULL).status == 401


# The end of credentials.


def test_a_removed_role_ends_with_the_next_token(cloud: Cloud, acr: AcrRegistry) -> None:
    who = cloud.principal("fired")
    assigned = cloud.assign(who.object_id, "AcrPull", acr.id)
    refresh = acr.exchange(who).body["refresh_token"]
    assert granted(acr.token(NULL_GUID, refresh, PULL)) == {"base/image": ["pull"]}
    assert cloud.arm("DELETE", assigned.body["id"]).status == 200
    assert granted(acr.token(NULL_GUID, refresh, PULL)) == {"base/image": []}
    assert granted(acr.token_of(who, PULL)) == {"base/image": []}
    assert acr.manifest("base/image", "v1", headers=basic(who.client_id, who.client_secret)).status == 403


def test_a_removed_secret_ends_with_the_next_token(cloud: Cloud, acr: AcrRegistry) -> None:
    who = cloud.principal("rotated", AcrPull=acr.id)
    form = {"grant_type": "password", "username": who.client_id, "password": who.client_secret}
    refresh = acr.form("/oauth2/token", access_type="offline", **form).body["refresh_token"]
    assert who.client_secret not in json.dumps(claims_of(refresh))
    assert acr.ask(NULL_GUID, refresh, PULL).status == 200
    application = cloud.graph("GET", f"/applications(appId='{who.client_id}')").body
    key = application["passwordCredentials"][0]["keyId"]
    removed = cloud.graph("POST", f"/applications/{application['id']}/removePassword", {"keyId": key})
    assert removed.status == 204
    assert acr.ask(who.client_id, who.client_secret, PULL).status == 401
    ended = acr.ask(NULL_GUID, refresh, PULL)
    assert (ended.status, codes(ended)) == (401, ["UNAUTHORIZED"])


def test_failures_are_throttled_but_valid_logins_succeed(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acrguessed", adminUserEnabled=True)
    user, password = registry.admin()
    assert registry.ask(user, password, PULL).status == 200
    seen = [registry.ask(user, password[:3] + f"guess{number}", PULL) for number in range(12)]
    assert [answer.status for answer in seen[:9]] == [401] * 9
    assert seen[-1].status == 429
    assert codes(seen[-1]) == ["TOOMANYREQUESTS"]
    assert int(seen[-1].headers["Retry-After"]) >= 1
    assert registry.ask(user, password, PULL).status == 200


def test_a_principal_is_throttled_by_identity(cloud: Cloud, acr: AcrRegistry) -> None:
    who = cloud.principal("guessed")
    seen = [acr.ask(who.client_id, who.client_secret[:3] + "wrong", PULL).status for _ in range(12)]
    assert seen[0] == 401
    assert seen[-1] == 429


def test_nothing_secret_is_logged(cloud: Cloud, acr: AcrRegistry, puller: Credential) -> None:
    user, password = acr.admin()
    token = acr.token(user, password, PULL)
    acr.token_of(puller, PULL)
    acr.ask(user, "a-wrong-password", PULL)
    acr.call("GET", f"/v2/?token={token}", token=token)
    for room in ("registry", "identity", "arm"):
        log = cloud.log(room)
        for secret in (password, puller.client_secret, token, "a-wrong-password"):
            assert secret not in log


# Anonymous pull.


def test_anonymous_pull(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acropen", adminUserEnabled=True)
    registry.push("app", "v1")
    assert registry.call("GET", "/oauth2/token?scope=repository:app:pull").status == 401
    assert registry.arm("PATCH", "", {"properties": {"anonymousPullEnabled": True}}).status == 200
    # A client that pushes still gets a challenge.
    assert registry.call("GET", "/v2/").status == 401
    answer = registry.call("GET", f"/oauth2/token?service={registry.server}&scope=repository:app:pull,push")
    token = answer.body["access_token"]
    assert granted(token) == {"app": ["pull"]}
    assert registry.manifest("app", "v1", token=token).status == 200
    assert registry.call("POST", "/v2/app/blobs/uploads/", token=token).status == 403
    form = registry.form("/oauth2/token", grant_type="password", scope="registry:catalog:*", refresh_token="")
    assert granted(form.body["access_token"]) == {"catalog": []}


def test_an_upload_belongs_to_its_principal(cloud: Cloud, acr: AcrRegistry) -> None:
    scope = "repository:mine:pull,push"
    mine = acr.token_of(cloud.principal("mine", AcrPush=acr.id), scope)
    theirs = acr.token_of(cloud.principal("theirs", AcrPush=acr.id), scope)
    session = acr.call("POST", "/v2/mine/blobs/uploads/", token=mine).headers["Location"]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = acr.call(method, session, token=theirs)
        assert answer.status in (403, 404)
        assert codes(answer)
    assert acr.call("GET", session, token=mine).status == 204


@pytest.mark.parametrize("away", ["identity", "arm"])
def test_logins_are_503_without_identity_or_the_front_door(strict: Registry, away: RoomName) -> None:
    acr = AcrRegistry(strict.cloud, f"without{away}", adminUserEnabled=True, anonymousPullEnabled=True)
    acr.push("base/image", "v1")
    puller = strict.cloud.principal(f"puller without {away}", AcrPull=acr.id)
    admin, token, entra = acr.admin(), acr.token_of(puller, PULL), strict.cloud.token(puller, REGISTRY_AUDIENCE)
    assert acr.manifest("base/image", "v1", headers=basic(puller.client_id, puller.client_secret)).status == 200
    refresh = acr.form("/oauth2/exchange", grant_type="access_token", access_token=entra).body["refresh_token"]
    logins: list[Callable[[], Answer]] = [
        lambda: acr.ask(puller.client_id, puller.client_secret, PULL),
        lambda: acr.form("/oauth2/exchange", grant_type="access_token", access_token=entra),
        lambda: acr.form("/oauth2/token", grant_type="refresh_token", refresh_token=refresh, scope=PULL),
        lambda: acr.manifest("base/image", "v1", headers=basic(puller.client_id, puller.client_secret)),
    ]

    def ask() -> list[Answer]:
        with ThreadPoolExecutor(len(logins)) as pool:
            return list(pool.map(lambda login: login(), logins))

    strict.cloud.stop(away)
    try:
        for answer in ask():
            assert (answer.status, codes(answer)) == (503, ["UNAVAILABLE"])
            assert int(answer.headers["Retry-After"]) > 0
        assert acr.manifest("base/image", "v1", token=token).status == 200
        assert acr.manifest("base/image", "v1", token=acr.token(*admin, PULL)).status == 200
        nobody = acr.call("GET", f"/oauth2/token?service={acr.server}&scope={PULL}").body["access_token"]
        assert acr.manifest("base/image", "v1", token=nobody).status == 200
    finally:
        strict.cloud.start(away)
    assert [answer.status for answer in ask()] == [200] * len(logins)
    assert acr.arm("DELETE").status == 200  # other tests count the registries of this room
