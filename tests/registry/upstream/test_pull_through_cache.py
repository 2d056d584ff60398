"""Pull-through cache rules: a repository is filled from another registry, and serves its content while that is unavailable."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from tests.cloud import PEERS, Answer, Cloud
from tests.microsoft import management
from tests.registry.login_server import AcrRegistry
from tests.registry.peer import PASSWORD, USER, Peer, running

GROUP = "group"
LOGIN = [{"name": "Credential1", "username": USER, "password": PASSWORD}]


@pytest.fixture(scope="module")
def peer(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with running(cloud, tmp_path_factory.mktemp("peer")) as made:
        made.push("their/app:v1")
        made.push("their/deep/app:v1")
        yield made


@pytest.fixture(scope="module")
def registry(cloud: Cloud, peer: Peer) -> AcrRegistry:
    """A registry whose `mirror/*` is filled from `their/*` of the peer, with its password."""
    made = AcrRegistry(cloud, "acrcache", adminUserEnabled=True)
    with management(ContainerRegistryManagementClient, cloud) as client:
        credentials = client.credential_sets.begin_create(
            GROUP, made.name, "peer-login", {"properties": {"loginServer": peer.server, "authCredentials": LOGIN}}
        ).result()
        rule = client.cache_rules.begin_create(
            GROUP,
            made.name,
            "peer-rule",
            {
                "properties": {
                    "sourceRepository": f"{peer.server}/their/*",
                    "targetRepository": "mirror/*",
                    "credentialSetResourceId": credentials.id,
                }
            },
        ).result()
        assert rule.target_repository == "mirror/*"
        assert [item.name for item in client.cache_rules.list(GROUP, made.name)] == ["peer-rule"]
        assert [item.name for item in client.credential_sets.list(GROUP, made.name)] == ["peer-login"]
    return made


def pull(registry: AcrRegistry, repository: str, reference: str = "v1") -> Answer:
    return registry.manifest(repository, reference, token=registry.admin_token(f"repository:{repository}:pull"))


def pull_all(registry: AcrRegistry, repository: str) -> str:
    """Pull all parts of an image and return its digest."""
    answer = pull(registry, repository)
    assert answer.status == 200, answer.body
    token = registry.admin_token(f"repository:{repository}:pull")
    manifest = json.loads(answer.body)
    for part in (manifest["config"], *manifest["layers"]):
        got = registry.call("GET", f"/v2/{repository}/blobs/{part['digest']}", token=token)
        assert got.status == 200
        assert int(got.headers["Content-Length"]) == part["size"]
    return answer.headers["Docker-Content-Digest"]


def test_an_image_is_cached_on_pull(registry: AcrRegistry, peer: Peer) -> None:
    digest = pull_all(registry, "mirror/app")
    assert pull(registry, "mirror/app", digest).status == 200
    with peer.paused():
        assert pull_all(registry, "mirror/app") == digest
    tags = registry.call("GET", "/v2/mirror/app/tags/list", token=registry.admin_token("repository:mirror/app:pull"))
    assert tags.body["tags"] == ["v1"]
    assert pull_all(registry, "mirror/deep/app") == digest


def test_unknown_images(registry: AcrRegistry) -> None:
    unknown = pull(registry, "mirror/nothing")
    assert (unknown.status, unknown.body["errors"][0]["code"]) == (404, "MANIFEST_UNKNOWN")
    assert pull(registry, "elsewhere").status == 404
    token = registry.admin_token("repository:mirror/app:pull")
    missing = registry.call("GET", f"/v2/mirror/app/blobs/sha256:{'0' * 64}", token=token)
    assert (missing.status, missing.body["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_pull_without_the_right_downloads_nothing(cloud: Cloud, registry: AcrRegistry) -> None:
    token = registry.token_of(cloud.principal("cache nobody"), "repository:mirror/app:pull")
    assert registry.manifest("mirror/app", "v1", token=token).status == 403


def test_an_unavailable_registry(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acraway", adminUserEnabled=True)
    rule = {"sourceRepository": f"{PEERS}:9/app", "targetRepository": "app"}
    assert registry.arm("PUT", "/cacheRules/nowhere", {"properties": rule}).status == 201
    away = pull(registry, "app")
    assert (away.status, away.body["errors"][0]["code"]) == (503, "UNAVAILABLE")
    registry.push("app", "v1")
    assert pull(registry, "app").status == 200
    assert registry.arm("DELETE", "/cacheRules/nowhere").status == 200
    assert pull(registry, "app", "v2").status == 404


def test_changed_credentials(cloud: Cloud, peer: Peer) -> None:
    registry = AcrRegistry(cloud, "acrlogin", adminUserEnabled=True)
    wrong = {"loginServer": peer.server, "authCredentials": [{**LOGIN[0], "password": "wrong"}]}
    made = registry.arm("PUT", "/credentialSets/their-login", {"properties": wrong})
    rule = {
        "sourceRepository": f"{peer.server}/their/app",
        "targetRepository": "app",
        "credentialSetResourceId": made.body["id"],
    }
    assert registry.arm("PUT", "/cacheRules/their-rule", {"properties": rule}).status == 201
    refused = pull(registry, "app")
    assert refused.status == 503
    assert "401" in refused.body["errors"][0]["message"]
    right = {"properties": {"authCredentials": LOGIN}}
    assert registry.arm("PATCH", "/credentialSets/their-login", right).status == 200
    assert pull_all(registry, "app")
    shown = registry.arm("GET", "/credentialSets/their-login").body
    kept = b"".join(path.read_bytes() for path in cloud.config.room_dir("registry").glob("registry.db*"))
    assert PASSWORD not in json.dumps(shown)
    assert PASSWORD.encode() not in kept
    assert PASSWORD not in cloud.log("registry")


@pytest.mark.parametrize(
    ("path", "properties", "code"),
    [
        ("cacheRules/rule-1", {}, "InvalidCacheRule"),
        ("cacheRules/rule-1", {"sourceRepository": "docker.io", "targetRepository": "a"}, "InvalidCacheRule"),
        ("cacheRules/rule-1", {"sourceRepository": "docker.io/a", "targetRepository": "../a"}, "InvalidCacheRule"),
        ("cacheRules/rule-1", {"sourceRepository": "docker.io/a", "targetRepository": "a/*"}, "InvalidCacheRule"),
        ("cacheRules/rule-1", {"sourceRepository": "docker.io/a*", "targetRepository": "a*"}, "InvalidCacheRule"),
        ("cacheRules/rule-1", {"sourceRepository": "u@h/a", "targetRepository": "a"}, "InvalidCacheRule"),
        (
            "cacheRules/rule-1",
            {"sourceRepository": "docker.io/a", "targetRepository": "a", "credentialSetResourceId": "x"},
            "InvalidCacheRule",
        ),
        ("cacheRules/rule-1", {"sourceRepository": "docker.io/a/*", "targetRepository": "mirror/*"}, "Conflict"),
        ("cacheRules/x", {}, "InvalidName"),
        ("credentialSets/set-1", {}, "InvalidCacheRule"),
        ("credentialSets/set-1", {"loginServer": "docker.io"}, "InvalidCacheRule"),
        (
            "credentialSets/set-1",
            {"loginServer": "docker.io", "authCredentials": [{"usernameSecretIdentifier": "https://v/secrets/u"}]},
            "InvalidCacheRule",
        ),
    ],
)
def test_bad_rules(registry: AcrRegistry, path: str, properties: dict[str, object], code: str) -> None:
    answer = registry.arm("PUT", f"/{path}", {"properties": properties})
    assert answer.status in (400, 409)
    assert answer.code == code
