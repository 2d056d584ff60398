"""ACR's own data plane, tested with Microsoft's client and with plain requests."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from itertools import pairwise

import pytest
from azure.containerregistry import (
    ArtifactManifestOrder,
    ArtifactManifestProperties,
    ArtifactTagOrder,
    ContainerRegistryClient,
)
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError

from tests.cloud import Answer, Cloud
from tests.registry.login_server import OCI_MANIFEST, AcrRegistry
from tests.registry.microsoft import anonymous, data_plane

TAGS = [f"v{number}" for number in range(5)]


@pytest.fixture(scope="module")
def registry(cloud: Cloud) -> AcrRegistry:
    """A registry with five images in `team/app`, of which `v0` was pushed last, and other repositories."""
    made = AcrRegistry(cloud, "acrdata", adminUserEnabled=True)
    token = made.admin_token("repository:team/app:pull,push")
    for tag in reversed(TAGS):
        made.push("team/app", tag, tag.encode(), token=token)
    for number in range(4):
        made.push(f"other{number}", "v1")
    return made


@pytest.fixture(scope="module")
def client(registry: AcrRegistry) -> Iterator[ContainerRegistryClient]:
    with data_plane(registry) as made:
        yield made


def admin(registry: AcrRegistry, method: str, path: str, body: object = None) -> Answer:
    """A call as the admin user, who has all rights."""
    name = path.split("?")[0].removeprefix("/acr/v1/").removeprefix("_deleted/").split("/_")[0]
    scopes = (f"repository:{name}:*", "registry:catalog:*", "registry:deleted_catalog:*")
    return registry.call(method, path, body=body, token=registry.admin_token(*scopes))


def code(answer: Answer) -> str:
    """The code of an error in the OCI's form."""
    (error,) = answer.body["errors"]
    found: str = error["code"]
    return found


# Tests with Microsoft's client.


def test_repositories(registry: AcrRegistry, client: ContainerRegistryClient) -> None:
    names = ["other0", "other1", "other2", "other3", "team/app"]
    for size in (1, 2, 5, 100):
        assert list(client.list_repository_names(results_per_page=size)) == names
    properties = client.get_repository_properties("team/app")
    assert (properties.name, properties.manifest_count, properties.tag_count) == ("team/app", 5, 5)
    assert properties.created_on <= properties.last_updated_on
    assert properties.can_delete is properties.can_list is properties.can_read is properties.can_write is True
    with pytest.raises(ResourceNotFoundError):
        client.get_repository_properties("nothing")


@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_tags(registry: AcrRegistry, client: ContainerRegistryClient, size: int | None) -> None:
    def names(order: ArtifactTagOrder | None) -> list[str]:
        found = client.list_tag_properties("team/app", order_by=order, results_per_page=size)
        return [tag.name for tag in found]

    assert names(None) == TAGS
    assert names(ArtifactTagOrder.LAST_UPDATED_ON_DESCENDING) == TAGS
    assert names(ArtifactTagOrder.LAST_UPDATED_ON_ASCENDING) == TAGS[::-1]


def test_one_tag(client: ContainerRegistryClient) -> None:
    tag = client.get_tag_properties("team/app", "v3")
    assert (tag.name, tag.can_delete) == ("v3", True)
    assert client.get_manifest_properties("team/app", "v3").digest == tag.digest
    with pytest.raises(ResourceNotFoundError):
        client.get_tag_properties("team/app", "v33")


@pytest.mark.parametrize("size", [1, 2, 5, None])
def test_manifests(client: ContainerRegistryClient, size: int | None) -> None:
    def found(order: ArtifactManifestOrder | None) -> list[ArtifactManifestProperties]:
        return list(client.list_manifest_properties("team/app", order_by=order, results_per_page=size))

    plain = found(None)
    assert [item.digest for item in plain] == sorted(item.digest for item in plain)
    assert sorted(tag for item in plain for tag in item.tags or []) == TAGS
    ascending = found(ArtifactManifestOrder.LAST_UPDATED_ON_ASCENDING)
    assert [item.tags for item in ascending] == [[tag] for tag in TAGS[::-1]]
    assert all(one.last_updated_on <= two.last_updated_on for one, two in pairwise(ascending))
    descending = found(ArtifactManifestOrder.LAST_UPDATED_ON_DESCENDING)
    assert [item.digest for item in descending] == [item.digest for item in ascending[::-1]]
    assert all(item.size_in_bytes and item.size_in_bytes > 300 for item in plain)
    assert {(item.architecture, item.operating_system) for item in plain} == {("amd64", "linux")}


def test_pushing_and_pulling(registry: AcrRegistry, client: ContainerRegistryClient) -> None:
    layer = client.upload_blob("sdk/image", io.BytesIO(b"some layer"))
    config = client.upload_blob("sdk/image", io.BytesIO(b"{}"))
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config[0], "size": config[1]},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer[0], "size": layer[1]}],
    }
    digest = client.set_manifest("sdk/image", io.BytesIO(json.dumps(manifest).encode()), tag="v1")
    got = client.get_manifest("sdk/image", "v1")
    assert (got.digest, got.manifest) == (digest, manifest)
    assert b"".join(client.download_blob("sdk/image", layer[0])) == b"some layer"
    client.delete_manifest("sdk/image", digest)
    client.delete_blob("sdk/image", layer[0])
    assert admin(registry, "GET", "/acr/v1/sdk/image/_tags/v1").status == 404
    client.delete_repository("sdk/image")


def test_locks(registry: AcrRegistry, client: ContainerRegistryClient) -> None:
    digest = registry.push("locked", "v1")
    tag = client.update_tag_properties("locked", "v1", can_delete=False, can_write=False)
    assert (tag.can_delete, tag.can_write, tag.can_list, tag.can_read) == (False, False, True, True)
    with pytest.raises(HttpResponseError) as refused:
        client.delete_tag("locked", "v1")
    assert refused.value.status_code == 405
    client.update_tag_properties("locked", "v1", can_delete=True, can_write=True)
    manifest = client.update_manifest_properties("locked", digest, can_read=False)
    assert manifest.can_read is False
    token = registry.admin_token("repository:locked:pull")
    assert registry.manifest("locked", "v1", token=token).status == 405
    client.update_manifest_properties("locked", "v1", can_read=True)
    assert registry.manifest("locked", "v1", token=token).status == 200
    properties = client.update_repository_properties("locked", can_delete=False)
    assert (properties.can_delete, properties.can_write) == (False, True)
    with pytest.raises(HttpResponseError):
        client.delete_repository("locked")
    client.update_repository_properties("locked", can_delete=True, can_list=False)
    assert "locked" not in list(client.list_repository_names())
    assert client.get_repository_properties("locked").can_list is False
    client.delete_repository("locked")
    client.delete_repository("locked")  # this client ignores 404 here


def test_deleting_tags_and_manifests(registry: AcrRegistry, client: ContainerRegistryClient) -> None:
    digest = registry.push("going", "v1")
    registry.push("going", "v2")
    client.delete_tag("going", "v1")
    assert [tag.name for tag in client.list_tag_properties("going")] == ["v2"]
    client.delete_manifest("going", digest)
    assert list(client.list_manifest_properties("going")) == []


def test_rights(cloud: Cloud, registry: AcrRegistry) -> None:
    with data_plane(registry, cloud.principal("data puller", AcrPull=registry.id)) as puller:
        assert puller.get_repository_properties("team/app").tag_count == 5
        for forbidden in (
            lambda: puller.update_repository_properties("team/app", can_delete=True),
            lambda: puller.delete_tag("team/app", "v1"),
            lambda: puller.delete_repository("team/app"),
        ):
            with pytest.raises(HttpResponseError) as refused:
                forbidden()
            assert refused.value.status_code == 403
    with data_plane(registry, cloud.principal("data nobody")) as nobody, pytest.raises(HttpResponseError) as refused:
        nobody.get_repository_properties("team/app")
    assert refused.value.status_code == 403


def test_anonymous(cloud: Cloud) -> None:
    registry = AcrRegistry(cloud, "acrpublic", adminUserEnabled=True)
    registry.push("app", "v1")
    with anonymous(registry) as client, pytest.raises(ClientAuthenticationError):
        client.get_repository_properties("app")
    registry.arm("PATCH", "", {"properties": {"anonymousPullEnabled": True}})
    with anonymous(registry) as client:
        assert [tag.name for tag in client.list_tag_properties("app")] == ["v1"]
        assert client.get_manifest("app", "v1").media_type == OCI_MANIFEST
        with pytest.raises(HttpResponseError):
            client.delete_repository("app")


# Plain requests, as az sends them.


def test_a_tags_filter_and_az_links(registry: AcrRegistry) -> None:
    tags = admin(registry, "GET", "/acr/v1/team/app/_tags?n=3&orderby=timedesc")
    assert [tag["name"] for tag in tags.body["tags"]] == TAGS[:3]
    link = tags.headers["Link"]
    assert link.endswith('>; rel="next"')
    rest = admin(registry, "GET", link[link.index("<") + 1 : link.index(">")])
    assert [tag["name"] for tag in rest.body["tags"]] == TAGS[3:]
    assert "Link" not in rest.headers
    digest = tags.body["tags"][1]["digest"]
    one = admin(registry, "GET", f"/acr/v1/team/app/_tags?digest={digest}")
    assert [tag["name"] for tag in one.body["tags"]] == ["v1"]
    assert one.body["registry"] == registry.server
    assert one.body["imageName"] == "team/app"


def test_an_index_and_its_parts(registry: AcrRegistry) -> None:
    part = registry.push("multi", "amd64")
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": part,
                "size": 1,
                "platform": {"architecture": "amd64", "os": "linux"},
            }
        ],
    }
    answer = registry.call(
        "PUT",
        "/v2/multi/manifests/all",
        token=registry.admin_token("repository:multi:*"),
        body=json.dumps(index).encode(),
        headers={"Content-Type": "application/vnd.oci.image.index.v1+json"},
    )
    shown = admin(registry, "GET", f"/acr/v1/multi/_manifests/{answer.headers['Docker-Content-Digest']}")
    assert shown.body["manifest"]["references"] == [{"digest": part, "architecture": "amd64", "os": "linux"}]
    assert shown.body["manifest"]["tags"] == ["all"]


def test_an_index_with_fields_of_other_types(registry: AcrRegistry) -> None:
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "config": {"digest": 7},
        "layers": "x",
        "blobs": [5],
        "manifests": [
            {
                "mediaType": OCI_MANIFEST,
                "digest": registry.push("odd", "amd64"),
                "size": 1,
                "platform": {"architecture": 5},
            }
        ],
    }
    answer = registry.call(
        "PUT",
        "/v2/odd/manifests/all",
        token=registry.admin_token("repository:odd:*"),
        body=json.dumps(index).encode(),
        headers={"Content-Type": "application/vnd.oci.image.index.v1+json"},
    )
    assert answer.status == 201
    shown = admin(registry, "GET", f"/acr/v1/odd/_manifests/{answer.headers['Docker-Content-Digest']}")
    assert shown.status == 200
    (reference,) = shown.body["manifest"]["references"]
    assert (reference["architecture"], reference["os"]) == (None, None)


def test_soft_delete_and_restore(cloud: Cloud) -> None:
    policy = {"softDeletePolicy": {"status": "enabled", "retentionDays": 7}}
    registry = AcrRegistry(cloud, "acrsoft", adminUserEnabled=True, policies=policy)
    digest = registry.push("app", "v1")
    assert admin(registry, "DELETE", "/acr/v1/app").status == 202
    assert admin(registry, "GET", "/acr/v1/_catalog").body["repositories"] == []
    assert admin(registry, "GET", "/acr/v1/_deleted/_catalog").body["repositories"] == ["app"]
    (manifest,) = admin(registry, "GET", "/acr/v1/_deleted/app/_manifests").body["manifests"]
    (tag,) = admin(registry, "GET", "/acr/v1/_deleted/app/_tags").body["tags"]
    assert (manifest["digest"], tag["digest"], tag["tag"]) == (digest, digest, "v1")
    assert tag["deletedAt"].startswith("20")
    other = registry.push("app", "v1", b"another")
    conflict = admin(registry, "POST", f"/acr/v1/_deleted/app/_manifests/{digest}?force=False", {"tag": "v1"})
    assert (conflict.status, code(conflict)) == (409, "CONFLICT")
    back = admin(registry, "POST", f"/acr/v1/_deleted/app/_manifests/{digest}?force=True", {"tag": "v1"})
    assert back.status == 200
    assert (
        registry.manifest("app", "v1", token=registry.admin_token("repository:app:pull")).headers[
            "Docker-Content-Digest"
        ]
        == digest
        != other
    )
    again = admin(registry, "POST", f"/acr/v1/_deleted/app/_manifests/{digest}")
    assert (again.status, code(again)) == (404, "MANIFEST_UNKNOWN")
    puller = registry.token_of(cloud.principal("pulls", AcrPull=registry.id), "repository:app:*")
    denied = registry.call("POST", f"/acr/v1/_deleted/app/_manifests/{digest}", token=puller)
    assert denied.status in (401, 403)


DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "expected"),
    [
        ("GET", "/acr/v1/", None, 404, "NAME_INVALID"),
        ("GET", "/acr/v1/UPPER", None, 400, "NAME_INVALID"),
        ("GET", "/acr/v1/a/../b", None, 400, "NAME_INVALID"),
        ("GET", "/acr/v1/nothing", None, 404, "NAME_UNKNOWN"),
        ("GET", "/acr/v1/nothing/_tags", None, 404, "NAME_UNKNOWN"),
        ("GET", "/acr/v1/team/app/_tags/" + "x" * 200, None, 400, "TAG_INVALID"),
        ("GET", "/acr/v1/team/app/_tags/none", None, 404, "TAG_UNKNOWN"),
        ("GET", "/acr/v1/team/app/_manifests/v1", None, 400, "DIGEST_INVALID"),
        ("GET", f"/acr/v1/team/app/_manifests/{DIGEST}", None, 404, "MANIFEST_UNKNOWN"),
        ("GET", "/acr/v1/team/app/_tags?n=-1", None, 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/acr/v1/team/app/_tags?n=x", None, 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "/acr/v1/team/app/_tags?orderby=size", None, 400, "UNSUPPORTED"),
        ("GET", "/acr/v1/team/app/_tags?last=%00", None, 400, "NAME_INVALID"),
        ("PATCH", "/acr/v1/team/app", {"deleteEnabled": "no"}, 400, "UNSUPPORTED"),
        ("PATCH", "/acr/v1/team/app", [], 400, "UNSUPPORTED"),
        ("PATCH", "/acr/v1/team/app", b"{", 400, "UNSUPPORTED"),
        ("PATCH", "/acr/v1/team/app", b"[" * 20_000, 400, "UNSUPPORTED"),
        ("PATCH", "/acr/v1/team/app", b" " * 70_000, 413, "SIZE_INVALID"),
        ("PATCH", "/acr/v1/team/app/_tags", {}, 405, "UNSUPPORTED"),
        ("PATCH", "/acr/v1/team/app/_tags/none", {}, 404, "TAG_UNKNOWN"),
        ("PATCH", f"/acr/v1/team/app/_manifests/{DIGEST}", {}, 404, "MANIFEST_UNKNOWN"),
        ("PATCH", "/acr/v1/nothing", {}, 404, "NAME_UNKNOWN"),
        ("DELETE", "/acr/v1/nothing", None, 404, "NAME_UNKNOWN"),
        ("DELETE", "/acr/v1/team/app/_tags/none", None, 404, "TAG_UNKNOWN"),
        ("DELETE", "/acr/v1/team/app/_manifests", None, 405, "UNSUPPORTED"),
        ("POST", "/acr/v1/team/app", {}, 405, "UNSUPPORTED"),
        ("PUT", "/acr/v1/_catalog", {}, 405, "UNSUPPORTED"),
        ("GET", "/acr/v1/_deleted/nothing", None, 404, "NAME_INVALID"),
        ("DELETE", "/acr/v1/_deleted/_catalog", None, 405, "UNSUPPORTED"),
        ("POST", "/acr/v1/_deleted/team/app/_manifests/x", {}, 400, "DIGEST_INVALID"),
        ("POST", f"/acr/v1/_deleted/team/app/_manifests/{DIGEST}", b"{", 400, "UNSUPPORTED"),
        ("POST", f"/acr/v1/_deleted/team/app/_manifests/{DIGEST}", {"tag": "a b"}, 400, "TAG_INVALID"),
    ],
)
def test_bad_requests(
    registry: AcrRegistry, method: str, path: str, body: object, status: int, expected: str
) -> None:
    answer = admin(registry, method, path, body)
    assert (answer.status, code(answer)) == (status, expected)
