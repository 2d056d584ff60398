"""Locks of repositories, tags and manifests (`changeableAttributes`), and the operations that they allow."""

from __future__ import annotations

import itertools
import json

import pytest

from cumulet.registry.catalog.locks import AttributeChanges, Attributes
from tests.registry.client import Answer, Registry, digest_of, image

DISALLOWED = (405, "REGISTRY_DISALLOWED_OPERATION")


@pytest.fixture
def pushed(registry: Registry, repository: str) -> str:
    """A repository whose tags `v1` and `v2` name different images."""
    registry.push_image(repository, "v1")
    registry.put(repository, "v2", image(annotations={"n": "2"}))
    return repository


def lock(registry: Registry, repository: str, below: str = "", **attributes: bool) -> None:
    """Change attributes by ACR's own API, as `az acr repository update` does."""
    body = json.dumps({f"{name}Enabled": value for name, value in attributes.items()}).encode()
    path = f"/acr/v1/{repository}{below}"
    answer = registry.call("PATCH", path, body, content_type="application/json")
    assert answer.status == 200, answer


def outcome(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code if answer.status >= 400 else ""


def digest(registry: Registry, repository: str, tag: str) -> str:
    return registry.call("GET", f"/v2/{repository}/manifests/{tag}").digest


def test_attributes_and_masks_are_equivalent() -> None:
    for values in itertools.product((True, False), repeat=4):
        attributes = Attributes(*values)
        assert Attributes.of(attributes.locks) == attributes
        changes = AttributeChanges(write_enabled=not attributes.write_enabled)
        assert attributes.changed(changes).changed(AttributeChanges(write_enabled=values[1])) == attributes
    assert Attributes().locks == 0


def test_a_write_lock_of_a_tag_forbids_moving_and_deleting_it(registry: Registry, pushed: str) -> None:
    named = digest(registry, pushed, "v1")
    lock(registry, pushed, "/_tags/v1", write=False)
    assert outcome(registry.put(pushed, "v1", image(annotations={"n": "3"}))) == DISALLOWED
    assert outcome(registry.call("DELETE", f"/v2/{pushed}/manifests/v1")) == DISALLOWED
    assert outcome(registry.call("DELETE", f"/v2/{pushed}/manifests/{named}")) == DISALLOWED
    assert digest(registry, pushed, "v1") == named
    assert registry.put(pushed, "v1", image()).status == 201  # changes nothing
    assert registry.call("DELETE", f"/v2/{pushed}/manifests/v2").status == 202
    lock(registry, pushed, "/_tags/v1", write=True)
    assert registry.put(pushed, "v1", image(annotations={"n": "3"})).status == 201


def test_a_delete_lock_of_a_tag_forbids_only_deleting(registry: Registry, pushed: str) -> None:
    lock(registry, pushed, "/_tags/v1", delete=False)
    assert outcome(registry.call("DELETE", f"/v2/{pushed}/manifests/v1")) == DISALLOWED
    assert registry.put(pushed, "v1", image(annotations={"n": "3"})).status == 201


@pytest.mark.parametrize("kind", ["write", "delete"])
def test_a_lock_of_a_manifest_keeps_it_and_its_blobs(registry: Registry, pushed: str, kind: str) -> None:
    named = digest(registry, pushed, "v1")
    layer = digest_of(b"layer ")
    lock(registry, pushed, f"/_manifests/{named}", **{kind: False})
    for path in (f"manifests/{named}", f"blobs/{layer}"):
        assert outcome(registry.call("DELETE", f"/v2/{pushed}/{path}")) == DISALLOWED
        assert registry.call("GET", f"/v2/{pushed}/{path}").status == 200
    assert outcome(registry.call("DELETE", f"/acr/v1/{pushed}")) == DISALLOWED
    assert registry.call("DELETE", f"/v2/{pushed}/manifests/v1").status == 202
    lock(registry, pushed, f"/_manifests/{named}", **{kind: True})
    assert registry.call("DELETE", f"/v2/{pushed}/manifests/{named}").status == 202


def test_a_read_lock_forbids_pulling(registry: Registry, pushed: str) -> None:
    named = digest(registry, pushed, "v1")
    lock(registry, pushed, "/_tags/v1", read=False)
    assert outcome(registry.call("GET", f"/v2/{pushed}/manifests/v1")) == DISALLOWED
    assert registry.call("HEAD", f"/v2/{pushed}/manifests/v1").status == 405
    assert registry.call("GET", f"/v2/{pushed}/manifests/{named}").status == 200
    lock(registry, pushed, f"/_manifests/{named}", read=False)
    assert outcome(registry.call("GET", f"/v2/{pushed}/manifests/{named}")) == DISALLOWED
    assert registry.call("GET", f"/v2/{pushed}/manifests/v2").status == 200
    lock(registry, pushed, read=False)
    for path in ("manifests/v2", f"blobs/{digest_of(b'layer ')}", "tags/list", f"referrers/{named}"):
        assert outcome(registry.call("GET", f"/v2/{pushed}/{path}")) == DISALLOWED
    query = f"?mount={digest_of(b'layer ')}&from={pushed}"
    assert registry.call("POST", f"/v2/{pushed}/other/blobs/uploads/{query}").status == 202


def test_a_list_lock_only_hides(registry: Registry, pushed: str) -> None:
    lock(registry, pushed, "/_tags/v1", list=False)
    assert registry.call("GET", f"/v2/{pushed}/tags/list").json["tags"] == ["v2"]
    assert registry.call("GET", f"/v2/{pushed}/manifests/v1").status == 200
    lock(registry, pushed, list=False)
    assert pushed not in registry.call("GET", "/v2/_catalog?n=1000").json["repositories"]
    assert registry.call("GET", f"/v2/{pushed}/manifests/v2").status == 200


def test_a_write_lock_of_a_repository_forbids_every_push_and_deletion(registry: Registry, pushed: str) -> None:
    named = digest(registry, pushed, "v1")
    registry.push_blob(f"{pushed}/other", b"other")
    lock(registry, pushed, write=False)
    uploads = f"/v2/{pushed}/blobs/uploads/"
    assert outcome(registry.call("POST", f"{uploads}?digest={digest_of(b'x')}", b"x")) == DISALLOWED
    location = registry.start(pushed)
    assert outcome(registry.call("PUT", f"{location}?digest={digest_of(b'x')}", b"x")) == DISALLOWED
    mount = f"?mount={digest_of(b'other')}&from={pushed}/other"
    assert outcome(registry.call("POST", uploads + mount)) == DISALLOWED
    assert outcome(registry.put(pushed, "v3", image())) == DISALLOWED
    for path in ("manifests/v1", f"manifests/{named}", f"blobs/{digest_of(b'layer ')}"):
        assert outcome(registry.call("DELETE", f"/v2/{pushed}/{path}")) == DISALLOWED
        assert registry.call("GET", f"/v2/{pushed}/{path}").status == 200
    assert outcome(registry.call("DELETE", f"/acr/v1/{pushed}")) == DISALLOWED
    assert registry.call("GET", f"/v2/{pushed}/manifests/v3").status == 404
    assert registry.call("GET", f"/v2/{pushed}/blobs/{digest_of(b'x')}").status == 404


def test_a_delete_lock_of_a_repository_allows_pushes(registry: Registry, pushed: str) -> None:
    lock(registry, pushed, delete=False)
    assert registry.put(pushed, "v1", image(annotations={"n": "3"})).status == 201
    for path in ("manifests/v1", f"blobs/{digest_of(b'layer ')}"):
        assert outcome(registry.call("DELETE", f"/v2/{pushed}/{path}")) == DISALLOWED
    lock(registry, pushed, delete=True)
    assert registry.call("DELETE", f"/v2/{pushed}/manifests/v1").status == 202
