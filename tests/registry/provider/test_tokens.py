"""Repository tokens and scope maps: created with Microsoft's client, used like docker, expired and deleted."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Iterator

import pytest
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from tests.cloud import Cloud
from tests.microsoft import management
from tests.registry.login_server import AcrRegistry, basic, granted

GROUP = "group"
FAR = "2099-01-01T00:00:00Z"


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    made = AcrRegistry(cloud, "acrtokens", adminUserEnabled=True)
    for repository in ("team/app", "team/deep/app", "teams", "other"):
        made.push(repository, "v1")
    return made


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[ContainerRegistryManagementClient]:
    with management(ContainerRegistryManagementClient, cloud) as made:
        yield made


def new_token(registry: AcrRegistry, *lines: str, scope_map: str = "", **properties: object) -> str:
    """Create a token with the rights of some lines and return its name."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    if not scope_map:
        scope_map = f"{name}-map"
        answer = registry.arm("PUT", f"/scopeMaps/{scope_map}", {"properties": {"actions": list(lines)}})
        assert answer.status == 201, answer.body
    body = {"properties": {"scopeMapId": f"{registry.id}/scopeMaps/{scope_map}", **properties}}
    answer = registry.arm("PUT", f"/tokens/{name}", body)
    assert answer.status == 201, answer.body
    return name


def passwords(registry: AcrRegistry, token: str, **body: object) -> dict[str, str]:
    """Generate passwords of a token, and return them by name."""
    answer = registry.arm("POST", "/generateCredentials", {"tokenId": f"{registry.id}/tokens/{token}", **body})
    assert answer.status == 200, answer.body
    assert answer.body["username"] == token
    return {item["name"]: item["value"] for item in answer.body["passwords"] if item.get("value")}


def test_with_microsofts_client(
    cloud: Cloud, registry: AcrRegistry, client: ContainerRegistryManagementClient
) -> None:
    scope_map = client.scope_maps.begin_create(
        GROUP,
        registry.name,
        "sdk-map",
        {"properties": {"description": "d", "actions": ["repositories/team/app/content/read"]}},
    ).result()
    token = client.tokens.begin_create(
        GROUP, registry.name, "sdk-token", {"properties": {"scopeMapId": scope_map.id, "status": "enabled"}}
    ).result()
    assert (token.name, token.status, token.scope_map_id) == ("sdk-token", "enabled", scope_map.id)
    expiry = dt.datetime(2099, 1, 1, tzinfo=dt.UTC)
    made = client.registries.begin_generate_credentials(
        GROUP, registry.name, {"tokenId": token.id, "expiry": expiry, "name": "password1"}
    ).result()
    (password,) = made.passwords or []
    assert password.value
    assert (made.username, password.name, password.expiry) == ("sdk-token", "password1", expiry)
    scope = "repository:team/app:pull,push"
    assert granted(registry.token("sdk-token", password.value, scope)) == {"team/app": ["pull"]}

    client.scope_maps.begin_update(
        GROUP,
        registry.name,
        "sdk-map",
        {"properties": {"actions": ["repositories/team/app/content/read", "repositories/team/app/content/write"]}},
    ).result()
    assert granted(registry.token("sdk-token", password.value, scope)) == {"team/app": ["pull", "push"]}
    assert client.scope_maps.get(GROUP, registry.name, "sdk-map").description == "d"

    shown = client.tokens.get(GROUP, registry.name, "SDK-token")
    assert [item.value for item in shown.credentials.passwords] == [None]
    client.tokens.begin_update(GROUP, registry.name, "sdk-token", {"properties": {"status": "disabled"}}).result()
    assert registry.ask("sdk-token", password.value, scope).status == 401
    client.tokens.begin_update(GROUP, registry.name, "sdk-token", {"properties": {"status": "enabled"}}).result()
    assert registry.ask("sdk-token", password.value, scope).status == 200
    assert "sdk-token" in {item.name for item in client.tokens.list(GROUP, registry.name)}
    names = {item.name: item.as_dict()["properties"]["type"] for item in client.scope_maps.list(GROUP, registry.name)}
    assert names["sdk-map"] == "UserDefined"
    assert names["_repositories_pull"] == "SystemDefined"
    client.tokens.begin_delete(GROUP, registry.name, "sdk-token").result()
    assert registry.ask("sdk-token", password.value, scope).status == 401
    client.scope_maps.begin_delete(GROUP, registry.name, "sdk-map").result()
    assert registry.arm("GET", "/scopeMaps/sdk-map").code == "ResourceNotFound"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["repositories/team/app/content/read"], {"team/app": {"pull"}}),
        (["repositories/team/*/content/read"], {"team/app": {"pull"}, "team/deep/app": {"pull"}}),
        (["repositories/team*/content/read"], {"team/app": {"pull"}, "team/deep/app": {"pull"}, "teams": {"pull"}}),
        (["repositories/*/content/read"], {"team/app": {"pull"}, "team/deep/app": {"pull"}, "teams": {"pull"}, "other": {"pull"}}),
        (["repositories/other/content/write"], {"other": {"push"}}),
        (["repositories/other/content/delete", "repositories/teams/metadata/read"], {"other": {"delete"}, "teams": {"metadata_read"}}),
        (["repositories/other/metadata/write"], {"other": {"metadata_write"}}),
    ],
)  # fmt: skip
def test_rights_of_a_scope_map(registry: AcrRegistry, lines: list[str], expected: dict[str, set[str]]) -> None:
    token = new_token(registry, *lines)
    (password,) = passwords(registry, token, name="password1").values()
    actions = "pull,push,delete,metadata_read,metadata_write,sign"
    repositories = ("team/app", "team/deep/app", "teams", "other")
    seen = granted(
        registry.token(
            token, password, *(f"repository:{name}:{actions}" for name in repositories), "registry:catalog:*"
        )
    )
    assert {name: set(held) for name, held in seen.items() if held} == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_repositories_pull", {"pull"}),
        ("_repositories_pull_metadata_read", {"pull", "metadata_read"}),
        ("_repositories_push", {"pull", "push"}),
        ("_repositories_push_metadata_write", {"pull", "push", "metadata_read", "metadata_write"}),
        ("_repositories_admin", {"pull", "push", "delete", "metadata_read", "metadata_write"}),
    ],
)
def test_system_scope_maps(registry: AcrRegistry, name: str, expected: set[str]) -> None:
    token = new_token(registry, scope_map=name)
    (password,) = passwords(registry, token, name="password2").values()
    assert set(granted(registry.token(token, password, "repository:other:*"))["other"]) == expected
    assert registry.arm("PUT", f"/scopeMaps/{name}", {}).code == "ScopeMapReadOnly"
    assert registry.arm("DELETE", f"/scopeMaps/{name}").code == "ScopeMapReadOnly"


def test_pulling_and_pushing_by_basic(registry: AcrRegistry) -> None:
    token = new_token(registry, "repositories/team/app/content/read")
    (password,) = passwords(registry, token, name="password1").values()
    headers = basic(token, password)
    assert registry.manifest("team/app", "v1", headers=headers).status == 200
    denied = registry.manifest("other", "v1", headers=headers)
    assert (denied.status, denied.body["errors"][0]["code"]) == (403, "DENIED")
    assert registry.call("POST", "/v2/team/app/blobs/uploads/", headers=headers).status == 403


def test_passwords_are_renewed_separately(registry: AcrRegistry) -> None:
    token = new_token(registry, "repositories/other/content/read")
    assert registry.ask(token, "").status == 401
    first = passwords(registry, token)
    assert first.keys() == {"password1", "password2"}
    form = {"grant_type": "password", "username": token, "password": first["password1"], "access_type": "offline"}
    refresh = registry.form("/oauth2/token", **form).body["refresh_token"]
    guid = "00000000-0000-0000-0000-000000000000"
    assert granted(registry.token(guid, refresh, "repository:other:pull")) == {"other": ["pull"]}
    second = passwords(registry, token, name="password1")
    assert registry.ask(token, first["password1"]).status == 401
    assert registry.ask(guid, refresh).status == 401
    assert registry.ask(token, second["password1"]).status == 200
    assert registry.ask(token, first["password2"]).status == 200
    # A PATCH removes the passwords that it leaves out.
    kept = {"properties": {"credentials": {"passwords": [{"name": "password1"}]}}}
    assert registry.arm("PATCH", f"/tokens/{token}", kept).status == 200
    assert registry.ask(token, first["password2"]).status == 401
    assert registry.ask(token, second["password1"]).status == 200


def test_a_password_expires(cloud: Cloud, registry: AcrRegistry) -> None:
    token = new_token(registry, "repositories/other/content/read")
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=1)
    made = passwords(registry, token, name="password1", expiry=soon.isoformat())
    lasting = passwords(registry, token, name="password2", expiry=FAR)
    # The room uses the clock of the machine: repeat until the password has expired.
    while (answer := registry.ask(token, made["password1"])).status == 200:
        assert dt.datetime.now(dt.UTC) < soon + dt.timedelta(seconds=5)
    assert answer.status == 401
    assert "expired" in answer.body["errors"][0]["message"]
    assert registry.ask(token, lasting["password2"]).status == 200


def test_passwords_are_stored_as_hashes(cloud: Cloud, registry: AcrRegistry) -> None:
    token = new_token(registry, "repositories/other/content/read")
    made = passwords(registry, token)
    kept = b"".join(path.read_bytes() for path in cloud.config.room_dir("registry").glob("registry.db*"))
    assert token.encode() in kept
    assert not [text for text in made.values() if text.encode() in kept or text in cloud.log("registry")]


def test_tokens_are_deleted_with_their_registry(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acrshort")
    token = new_token(registry, "repositories/other/content/read")
    (password,) = passwords(registry, token, name="password1").values()
    assert registry.arm("DELETE").status == 200
    again = AcrRegistry(cloud, "acrshort")
    assert again.arm("GET", "/tokens").body["value"] == []
    assert again.ask(token, password).status == 401


def test_rights_of_the_front_door(cloud: Cloud, registry: AcrRegistry) -> None:
    token = new_token(registry, "repositories/other/content/read")
    reader = cloud.principal("token reader", Reader=registry.id)
    assert registry.arm("GET", f"/tokens/{token}", as_=reader).status == 200
    body = {"tokenId": f"{registry.id}/tokens/{token}"}
    assert registry.arm("POST", "/generateCredentials", body, as_=reader).code == "AuthorizationFailed"
    assert registry.arm("DELETE", f"/tokens/{token}", as_=reader).code == "AuthorizationFailed"


@pytest.mark.parametrize(
    ("method", "path", "body", "code"),
    [
        ("PUT", "/scopeMaps/ab", {"properties": {"actions": ["repositories/a/content/read"]}}, "InvalidName"),
        ("PUT", "/scopeMaps/a b c d", {}, "InvalidRequestUri"),
        ("PUT", "/scopeMaps/empty", {"properties": {"actions": []}}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/empty", {}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/typed", {"properties": {"actions": "x"}}, "InvalidRequestContent"),
        ("PUT", "/scopeMaps/typed", {"properties": []}, "InvalidRequestContent"),
        ("PUT", "/scopeMaps/lines", {"properties": {"actions": ["repositories/a/content/fly"]}}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/lines", {"properties": {"actions": ["repositories/../content/read"]}}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/lines", {"properties": {"actions": ["repositories/a*b/content/read"]}}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/lines", {"properties": {"actions": ["gateway/a/config/read"]}}, "InvalidScopeMapActions"),
        ("PUT", "/scopeMaps/many1", {"properties": {"actions": [f"repositories/a{n}/content/read" for n in range(501)]}}, "InvalidScopeMapActions"),
        ("PUT", "/tokens/nomap", {}, "ScopeMapRequired"),
        ("PUT", "/tokens/nomap", {"properties": {"scopeMapId": "x"}}, "ScopeMapNotFound"),
        ("PUT", "/tokens/acrtokens", {}, "InvalidName"),
        ("PUT", "/tokens/00000000-0000-0000-0000-000000000000", {}, "InvalidName"),
        ("PATCH", "/tokens/nobody", {}, "ResourceNotFound"),
        ("POST", "/generateCredentials", {}, "TokenNotFound"),
        ("POST", "/generateCredentials", [], "InvalidRequestContent"),
    ],
)  # fmt: skip
def test_bad_requests(registry: AcrRegistry, method: str, path: str, body: object, code: str) -> None:
    answer = registry.arm(method, path.replace(" ", "%01"), body)
    assert 400 <= answer.status < 500
    assert answer.code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"name": "password3"}, "InvalidPasswordName"),
        ({"expiry": "yesterday"}, "InvalidExpiry"),
        ({"expiry": "2001-01-01T00:00:00Z"}, "InvalidExpiry"),
        ({"expiry": 7}, "InvalidExpiry"),
    ],
)
def test_bad_passwords(registry: AcrRegistry, body: dict[str, object], code: str) -> None:
    token = new_token(registry, scope_map="_repositories_pull")
    answer = registry.arm("POST", "/generateCredentials", {"tokenId": f"{registry.id}/tokens/{token}", **body})
    assert (answer.status, answer.code) == (400, code)
    foreign = registry.arm("POST", "/generateCredentials", {"tokenId": f"{registry.id}2/tokens/{token}"})
    assert foreign.code == "TokenNotFound"
    status = registry.arm("PATCH", f"/tokens/{token}", {"properties": {"status": "asleep"}})
    assert status.code == "InvalidTokenStatus"
    named = registry.arm("PATCH", f"/tokens/{token}", {"properties": {"credentials": {"passwords": [{"name": []}]}}})
    assert (named.status, named.code) == (400, "InvalidRequestContent")
