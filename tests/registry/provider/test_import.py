"""Importing images from another registry with a password, and from a registry of the same room."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.containerregistry import ContainerRegistryManagementClient

from tests.cloud import PEERS, Answer, Cloud
from tests.microsoft import management
from tests.registry.login_server import AcrRegistry
from tests.registry.peer import PASSWORD, USER, Peer, running

GROUP = "group"


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    return AcrRegistry(cloud, "acrimport", adminUserEnabled=True)


@pytest.fixture(scope="module")
def source(cloud: Cloud) -> AcrRegistry:
    made = AcrRegistry(cloud, "acrsource", adminUserEnabled=True)
    made.push("base/app", "v1")
    return made


@pytest.fixture(scope="module")
def peer(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peer]:
    with running(cloud, tmp_path_factory.mktemp("peer")) as made:
        made.push("their/app:v1")
        yield made


@pytest.fixture(scope="module")
def client(cloud: Cloud) -> Iterator[ContainerRegistryManagementClient]:
    with management(ContainerRegistryManagementClient, cloud) as made:
        yield made


def ask(registry: AcrRegistry, source: dict[str, Any], as_: Any = None, **more: Any) -> Answer:
    return registry.arm("POST", "/importImage", {"source": source, **more}, as_=as_)


def digest_of(registry: AcrRegistry, repository: str, reference: str) -> str:
    token = registry.admin_token(f"repository:{repository}:pull")
    answer = registry.manifest(repository, reference, token=token)
    assert answer.status == 200, answer.body
    manifest = json.loads(answer.body)
    for part in (manifest["config"], *manifest["layers"]):
        assert registry.call("HEAD", f"/v2/{repository}/blobs/{part['digest']}", token=token).status == 200
    return answer.headers["Docker-Content-Digest"]


def test_from_another_registry(registry: AcrRegistry, client: ContainerRegistryManagementClient, peer: Peer) -> None:
    credentials = {"username": USER, "password": PASSWORD}
    client.registries.begin_import_image(
        GROUP,
        registry.name,
        {
            "source": {"registryUri": peer.server, "sourceImage": "their/app:v1", "credentials": credentials},
            "targetTags": ["mine/app:v1", "mine/app:latest"],
            "mode": "NoForce",
        },
    ).result()
    assert digest_of(registry, "mine/app", "v1") == digest_of(registry, "mine/app", "latest")
    again = ask(
        registry,
        {"registryUri": peer.server, "sourceImage": "their/app:v1", "credentials": credentials},
        targetTags=["mine/app:v1"],
    )
    assert (again.status, again.code) == (409, "Conflict")
    forced = ask(
        registry,
        {"registryUri": f"https://{peer.server}", "sourceImage": "their/app:v1", "credentials": credentials},
        targetTags=["mine/app:v1"],
        mode="Force",
    )
    assert forced.status == 200
    assert PASSWORD not in registry.cloud.log("registry")
    assert PASSWORD not in registry.cloud.log("arm")


@pytest.mark.parametrize(
    ("credentials", "image", "reason"),
    [
        (None, "their/app:v1", "401"),
        ({"username": USER, "password": "wrong"}, "their/app:v1", "401"),
        ({"username": USER, "password": PASSWORD}, "their/app:v2", "404"),
        ({"username": USER, "password": PASSWORD}, "nothing", "404"),
    ],
)
def test_a_source_that_refuses(
    registry: AcrRegistry, peer: Peer, credentials: dict[str, str] | None, image: str, reason: str
) -> None:
    source = {"registryUri": peer.server, "sourceImage": image, "credentials": credentials}
    answer = ask(registry, source, targetTags=["refused:v1"])
    assert (answer.status, answer.code) == (409, "ImportSourceFailed")
    assert reason in answer.body["error"]["message"]
    assert peer.server in answer.body["error"]["message"]
    assert registry.manifest("refused", "v1", token=registry.admin_token("repository:refused:pull")).status == 404


def test_an_unknown_source(registry: AcrRegistry, client: ContainerRegistryManagementClient) -> None:
    with pytest.raises(HttpResponseError, match=r"127\.0\.0\.2:9"):
        client.registries.begin_import_image(
            GROUP, registry.name, {"source": {"registryUri": f"{PEERS}:9", "sourceImage": "a:b"}}
        ).result()


def test_from_a_registry_of_the_same_room(cloud: Cloud, registry: AcrRegistry, source: AcrRegistry) -> None:
    digest = digest_of(source, "base/app", "v1")
    assert ask(registry, {"resourceId": source.id, "sourceImage": "base/app:v1"}).status == 200
    assert digest_of(registry, "base/app", "v1") == digest
    by_digest = {"resourceId": source.id, "sourceImage": f"base/app@{digest}"}
    assert ask(registry, by_digest, untaggedTargetRepositories=["untagged"]).status == 200
    assert digest_of(registry, "untagged", digest) == digest
    user, password = source.admin()
    by_name = {
        "registryUri": source.server,
        "sourceImage": "base/app:v1",
        "credentials": {"username": user, "password": password},
    }
    assert ask(registry, by_name, targetTags=["named:v1"]).status == 200
    # The caller needs the right to pull from the source.
    importer = cloud.principal("importer", Contributor=registry.id)
    denied = ask(registry, {"resourceId": source.id, "sourceImage": "base/app:v1"}, targetTags=["x:y"], as_=importer)
    assert (denied.status, denied.code) == (403, "LinkedAuthorizationFailed")
    wrong = ask(registry, {**by_name, "credentials": {"username": user, "password": "wrong"}}, targetTags=["x:y"])
    assert (wrong.status, wrong.code) == (401, "ImportSourceFailed")
    puller = cloud.principal("import reader", Reader=registry.id)
    assert ask(registry, {"resourceId": source.id, "sourceImage": "a"}, as_=puller).code == "AuthorizationFailed"


def test_a_long_import(cloud: Cloud, registry: AcrRegistry, peer: Peer) -> None:
    source = {
        "registryUri": peer.server,
        "sourceImage": "their/app:v1",
        "credentials": {"username": USER, "password": PASSWORD},
    }
    with peer.paused():
        slow = ask(registry, source, targetTags=["slow:v1"])
        assert slow.status == 202
        status, result = (path_of(slow.headers[name]) for name in ("Azure-AsyncOperation", "Location"))
        shown = cloud.arm("GET", status).body
        assert (shown["status"], shown["percentComplete"]) == ("InProgress", 0.0)
        assert cloud.arm("GET", result).status == 202
    while (shown := cloud.arm("GET", status).body)["status"] == "InProgress":
        pass
    assert (shown["status"], shown["percentComplete"]) == ("Succeeded", 100.0)
    assert cloud.arm("GET", result).status == 200
    assert digest_of(registry, "slow", "v1")
    with peer.paused():
        broken = ask(registry, source, targetTags=["broken:v1"])
        cloud.kill("registry")
        shown = cloud.arm("GET", path_of(broken.headers["Azure-AsyncOperation"])).body
    assert (shown["status"], shown["error"]["code"]) == ("Failed", "ImportInterrupted")


def path_of(url: str) -> str:
    """The path and query of a URL of the front door."""
    return "/" + url.split("/", 3)[3]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "InvalidRequestContent"),
        ({"source": {}}, "InvalidRequestContent"),
        ({"source": {"sourceImage": "a:b"}}, "SourceRequired"),
        ({"source": {"sourceImage": "../x:b", "registryUri": "x"}}, "InvalidImageName"),
        ({"source": {"sourceImage": "a:b", "registryUri": "http://x/"}}, "InvalidRegistryUri"),
        ({"source": {"sourceImage": "a:b", "registryUri": "x/../y"}}, "InvalidRegistryUri"),
        ({"source": {"sourceImage": "a:b", "registryUri": "user@host"}}, "InvalidRegistryUri"),
        ({"source": {"sourceImage": "a:b", "resourceId": "x"}}, "InvalidResourceId"),
        ({"source": {"sourceImage": "a:b", "resourceId": "/subscriptions/s"}}, "ResourceNotFound"),
        ({"source": {"sourceImage": "a:b", "registryUri": "x"}, "mode": "Maybe"}, "InvalidRequestContent"),
        ({"source": {"sourceImage": "a:b", "registryUri": "x"}, "targetTags": ["a b"]}, "InvalidImageName"),
        ({"source": {"sourceImage": "a:b", "registryUri": "x"}, "targetTags": "a"}, "InvalidRequestContent"),
    ],
)
def test_bad_imports(registry: AcrRegistry, body: dict[str, Any], code: str) -> None:
    answer = registry.arm("POST", "/importImage", body)
    assert 400 <= answer.status < 500
    assert answer.code == code


def test_unknown_operations(registry: AcrRegistry) -> None:
    place = f"{registry.cloud.subscription}/providers/Microsoft.ContainerRegistry/locations/eastus"
    for path in ("operationStatuses/acrimport-x", "operationResults/nothing"):
        assert registry.cloud.arm("GET", f"{place}/{path}").code == "NotFound"
