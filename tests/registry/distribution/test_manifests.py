"""Manifests of every kind: pushed, pulled byte for byte, or refused where they are not valid (OCI Distribution 1.1)."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.registry.client import (
    CONFIG,
    DOCKER_IMAGE,
    DOCKER_LIST,
    EMPTY,
    IMAGE,
    INDEX,
    LAYER,
    Registry,
    descriptor,
    digest_of,
    image,
)

ABSENT = digest_of(b"never pushed")


def pull(registry: Registry, repository: str, reference: str, media_type: str, body: bytes) -> None:
    """Check GET and HEAD by a reference."""
    for method in ("GET", "HEAD"):
        answer = registry.call(method, f"/v2/{repository}/manifests/{reference}")
        assert answer.status == 200
        assert answer.headers["Content-Type"] == media_type
        assert answer.headers["Content-Length"] == str(len(body))
        assert answer.headers["ETag"] == f'"{answer.digest}"'
        assert answer.body == (body if method == "GET" else b"")


def check(registry: Registry, repository: str, document: dict[str, Any]) -> str:
    """Push by tag and by digest, pull byte for byte, and return the digest."""
    body = json.dumps(document, indent=3).encode() + b"\n"
    media_type = document["mediaType"]
    digest = digest_of(body)
    for reference in ("kept", digest):
        answer = registry.put(repository, reference, body, media_type)
        assert (answer.status, answer.digest) == (201, digest), answer.body
        assert answer.location == f"/v2/{repository}/manifests/{digest}"
        pull(registry, repository, reference, media_type, body)
    return digest


def refuse(registry: Registry, repository: str, document: object, content_type: str = IMAGE) -> str:
    """Push an invalid manifest, check that nothing is stored, and return the message."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    for reference in ("refused", digest_of(body)):
        answer = registry.put(repository, reference, body, content_type)
        assert answer.status == 400, answer
        assert answer.code in ("MANIFEST_INVALID", "DIGEST_INVALID")
        assert registry.call("GET", f"/v2/{repository}/manifests/{reference}").status == 404
    message: str = answer.json["errors"][0]["message"]
    return message


@pytest.fixture
def pushed(registry: Registry, repository: str) -> str:
    """A repository with the parts of `image()`."""
    registry.push_image(repository, "v1")
    return repository


@pytest.mark.parametrize("media_type", [IMAGE, DOCKER_IMAGE])
def test_an_image(registry: Registry, pushed: str, media_type: str) -> None:
    check(registry, pushed, image(mediaType=media_type))


@pytest.mark.parametrize("media_type", [INDEX, DOCKER_LIST])
def test_an_index_and_an_index_in_an_index(registry: Registry, pushed: str, media_type: str) -> None:
    child = registry.call("GET", f"/v2/{pushed}/manifests/v1").body
    platform = {"os": "linux", "architecture": "arm64", "variant": "v8"}
    manifests = [descriptor(child, IMAGE, platform=platform)]
    document = {"schemaVersion": 2, "mediaType": media_type, "manifests": manifests}
    check(registry, pushed, document)
    inner = registry.call("GET", f"/v2/{pushed}/manifests/kept").body
    check(registry, pushed, {**document, "manifests": [descriptor(inner, media_type), *manifests]})


def test_an_empty_index(registry: Registry, pushed: str) -> None:
    check(registry, pushed, {"schemaVersion": 2, "mediaType": INDEX, "manifests": []})


def test_an_index_of_blobs_from_a_build_cache(registry: Registry, pushed: str) -> None:
    manifests = [descriptor(b"layer ", LAYER), descriptor(b"config ", "application/vnd.example.cache.v0")]
    check(registry, pushed, {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})


def test_an_artifact_with_an_empty_config(registry: Registry, repository: str) -> None:
    registry.push_blob(repository, b"{}")
    registry.push_blob(repository, b"a chart")
    empty = descriptor(b"{}", EMPTY, data=base64.b64encode(b"{}").decode())
    document = image(
        artifactType="application/vnd.example.chart", config=empty, layers=[descriptor(b"a chart", "text/plain")]
    )
    check(registry, repository, document)
    check(registry, repository, image(artifactType="application/vnd.example.none", config=empty, layers=[empty]))


def test_images_without_layers_and_with_an_empty_layer(registry: Registry, pushed: str) -> None:
    check(registry, pushed, image(layers=[]))
    registry.push_blob(pushed, b"")
    check(registry, pushed, image(layers=[descriptor(b"", LAYER)]))


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    ],
)
def test_non_distributable_layers_need_not_exist(registry: Registry, pushed: str, media_type: str) -> None:
    layer = descriptor(b"elsewhere", media_type, urls=["https://example.com/layer"])
    check(registry, pushed, image(layers=[layer, descriptor(b"layer ", LAYER)]))


def test_unknown_fields_and_types_are_stored_byte_for_byte(registry: Registry, pushed: str) -> None:
    odd: dict[str, Any] = {"x": [None, 1e300, -0.0, {"ü": "\ud83d\ude00"}], "annotations": {"a": "b"}}
    check(registry, pushed, image(**odd, mediaType=IMAGE))
    check(registry, pushed, {"schemaVersion": 2, "mediaType": "application/vnd.example.thing+json", **odd})


def test_the_media_type_comes_from_the_document_the_header_or_the_fields(registry: Registry, pushed: str) -> None:
    document = image()
    del document["mediaType"]
    body = json.dumps(document).encode()
    for content_type, expected in (("", IMAGE), (DOCKER_IMAGE, DOCKER_IMAGE), (f"{IMAGE}; charset=utf-8", IMAGE)):
        headers = {"content_type": content_type} if content_type else {}
        assert registry.call("PUT", f"/v2/{pushed}/manifests/t", body, **headers).status == 201
        pull(registry, pushed, "t", expected, body)
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    assert registry.call("PUT", f"/v2/{pushed}/manifests/t", index).status == 201
    pull(registry, pushed, "t", INDEX, index)


@pytest.mark.parametrize("by", ["digest", "tag and digest", "digest and tags"])
def test_a_manifest_of_sha512(registry: Registry, pushed: str, by: str) -> None:
    body = json.dumps(image(annotations={"by": by})).encode()
    digest = digest_of(body, "sha512")
    path = {
        "digest": digest,
        "tag and digest": f"long?digest={digest}",
        "digest and tags": f"{digest}?tag=long&tag=longer",
    }[by]
    answer = registry.put(pushed, path, body)
    assert (answer.status, answer.digest) == (201, digest)
    pull(registry, pushed, digest, IMAGE, body)
    if by != "digest":
        pull(registry, pushed, "long", IMAGE, body)
    if by == "digest and tags":
        assert answer.headers["OCI-Tag"] == "long, longer"
        pull(registry, pushed, "longer", IMAGE, body)


def test_a_digest_in_the_query_must_match(registry: Registry, pushed: str) -> None:
    for path in (ABSENT, f"t?digest={ABSENT}", "t?digest=md5:1", f"{ABSENT}?tag=t"):
        answer = registry.put(pushed, path, image())
        assert (answer.status, answer.code) == (400, "DIGEST_INVALID")
    assert registry.call("GET", f"/v2/{pushed}/manifests/t").status == 404


def test_tags_in_the_query_must_be_valid(registry: Registry, pushed: str) -> None:
    body = json.dumps(image(annotations={"tag": "bad"})).encode()
    answer = registry.put(pushed, f"{digest_of(body)}?tag=good&tag=.bad", body)
    assert (answer.status, answer.code) == (400, "TAG_INVALID")
    many = "&".join(f"tag=t{number}" for number in range(11))
    assert registry.put(pushed, f"{digest_of(body)}?{many}", body).status == 414
    for reference in (digest_of(body), "good", "t0"):
        assert registry.call("GET", f"/v2/{pushed}/manifests/{reference}").status == 404


def test_moving_a_tag_keeps_its_former_manifest(registry: Registry, pushed: str) -> None:
    first = registry.call("GET", f"/v2/{pushed}/manifests/v1").digest
    second = registry.put(pushed, "v1", image(annotations={"n": "2"})).digest
    assert first != second
    assert registry.call("GET", f"/v2/{pushed}/manifests/v1").digest == second
    assert registry.call("GET", f"/v2/{pushed}/manifests/{first}").status == 200


def test_conditional_requests_get_304(registry: Registry, pushed: str) -> None:
    etag = registry.call("GET", f"/v2/{pushed}/manifests/v1").headers["ETag"]
    for header, status in ((etag, 304), (f'"x", W/{etag}', 304), ("*", 304), ('"x"', 200), ("", 200)):
        for method in ("GET", "HEAD"):
            answer = registry.call(method, f"/v2/{pushed}/manifests/v1", if_none_match=header)
            assert answer.status == status, header
            assert answer.headers["ETag"] == etag
            assert (answer.body == b"") == (status == 304 or method == "HEAD")


@pytest.mark.parametrize("where", ["config", "layers", "manifests", "blobs"])
def test_all_parts_must_exist(registry: Registry, pushed: str, where: str) -> None:
    absent = descriptor(b"never pushed", LAYER)
    kind = INDEX if where == "manifests" else "application/vnd.oci.artifact.manifest.v1+json"
    document = image(mediaType=IMAGE if where in ("config", "layers") else kind)
    document[where] = absent if where == "config" else [descriptor(b"layer ", LAYER), absent]
    answer = registry.put(pushed, "v2", document)
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")
    assert answer.json["errors"][0]["detail"] == [{"digest": ABSENT}]
    assert registry.call("GET", f"/v2/{pushed}/manifests/v2").status == 404


def test_a_blob_in_another_repository_does_not_count(registry: Registry, pushed: str) -> None:
    answer = registry.put(f"{pushed}/other", "v1", image())
    assert (answer.status, answer.code) == (404, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize(
    "content_type",
    [
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        "application/json",
    ],
)
def test_schema_1_is_refused_clearly(registry: Registry, pushed: str, content_type: str) -> None:
    document = {"schemaVersion": 1, "name": pushed, "tag": "v1", "fsLayers": [], "history": []}
    assert "schema 1 manifests are not supported" in refuse(registry, pushed, document, content_type)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        json.dumps(image()).encode("utf-16"),
        b'{"schemaVersion": 2, "schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 2, "manifests": [], "annotations": {"a": "1", "a": "2"}}',
        b'{"schemaVersion": 2, "manifests": [], "x": NaN}',
        b'{"schemaVersion": 2, "manifests": [], "x": ' + b"9" * 5000 + b"}",
        b'{"schemaVersion": 2, "manifests": [], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"schemaVersion": 2, "manifests": [], "x": ' + b'{"x":' * 50_000 + b"1" + b"}" * 50_001,
        b'{"schemaVersion": 2, "manifests": []} {}',
        b'{"schemaVersion": 2, "manifests": [], "x": "\n"}',
    ],
    ids=lambda body: repr(body[:40]),
)
def test_invalid_json_is_refused(registry: Registry, pushed: str, body: bytes) -> None:
    refuse(registry, pushed, body, "")


@pytest.mark.parametrize(
    "change",
    [
        {"schemaVersion": None},
        {"schemaVersion": 3},
        {"schemaVersion": "2"},
        {"schemaVersion": True},
        {"mediaType": 2},
        {"mediaType": "no type"},
        {"mediaType": DOCKER_IMAGE},
        {"config": None},
        {"config": []},
        {"config": {}},
        {"config": {"digest": "x"}},
        {"config": {**descriptor(b"config ", CONFIG), "mediaType": 1}},
        {"config": {**descriptor(b"config ", CONFIG), "size": -1}},
        {"config": {**descriptor(b"config ", CONFIG), "size": 7.5}},
        {"config": {**descriptor(b"config ", CONFIG), "size": True}},
        {"config": {**descriptor(b"config ", CONFIG), "size": 2**63}},
        {"layers": {}},
        {"layers": "x"},
        {"layers": [1]},
        {"layers": [{"digest": ABSENT[:-1]}]},
        {"layers": [{"digest": "../" + ABSENT}]},
        {"layers": [{"digest": ABSENT.upper()}]},
        {"layers": [{"digest": f"md5:{'0' * 32}"}]},
        {"subject": 1},
        {"subject": {}},
        {"subject": {"digest": "sha256:x"}},
        {"annotations": []},
        {"annotations": {"a": 1}},
        {"artifactType": 1},
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_documents_with_invalid_fields_are_refused(registry: Registry, pushed: str, change: dict[str, Any]) -> None:
    refuse(registry, pushed, image(**change))


def test_the_limit_of_the_size_of_a_manifest(registry: Registry, pushed: str) -> None:
    limit = 4 * 1024**2
    document = image(annotations={"pad": ""})
    document["annotations"]["pad"] = "x" * (limit - len(json.dumps(document)))
    body = json.dumps(document).encode()
    assert registry.put(pushed, "largest", body).status == 201
    pull(registry, pushed, "largest", IMAGE, body)
    for sent in (body + b" ", iter([body, b" "])):
        answer = registry.call("PUT", f"/v2/{pushed}/manifests/larger", sent, content_type=IMAGE)
        assert (answer.status, answer.code) == (413, "SIZE_INVALID")
    assert registry.call("GET", f"/v2/{pushed}/manifests/larger").status == 404


def test_unknown_manifests(registry: Registry, pushed: str) -> None:
    for method in ("GET", "HEAD", "DELETE"):
        for reference in ("v0", ABSENT):
            answer = registry.call(method, f"/v2/{pushed}/manifests/{reference}")
            assert answer.status == 404
            assert method == "HEAD" or answer.code == "MANIFEST_UNKNOWN"
            answer = registry.call(method, f"/v2/{pushed}/nothing/manifests/{reference}")
            assert answer.status == 404
            assert method == "HEAD" or answer.code == "NAME_UNKNOWN"
