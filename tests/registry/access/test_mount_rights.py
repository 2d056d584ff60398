"""Mounts require the right to pull from the source, and uploads the right to push."""

from __future__ import annotations

from urllib.parse import urlencode

import pytest

from tests.registry.client import Answer, Registry, digest_of


@pytest.fixture
def source(registry: Registry, repository: str) -> str:
    """A repository with a blob that no other repository has."""
    registry.push_blob(f"{repository}/source", repository.encode())
    return f"{repository}/source"


def bearer(registry: Registry, *scopes: str) -> str:
    """An access token for scopes, requested as docker does."""
    query = urlencode([("service", registry.host), *(("scope", scope) for scope in scopes)])
    token: str = registry.call("GET", f"/oauth2/token?{query}").json["access_token"]
    return token


def mount(registry: Registry, repository: str, query: str, token: str) -> Answer:
    anonymous = registry.seen_by(None)
    path = f"/v2/{repository}/target/blobs/uploads/?{query}"
    return anonymous.call("POST", path, authorization=f"Bearer {token}")


def test_both_repositories_must_be_in_the_token(registry: Registry, repository: str, source: str) -> None:
    digest = digest_of(repository.encode())
    target = f"repository:{repository}/target:pull,push"
    query = f"mount={digest}&from={source}"
    assert mount(registry, repository, query, bearer(registry, target)).status == 202
    assert mount(registry, repository, query, bearer(registry, target, f"repository:{source}:pull")).status == 201
    only_source = mount(registry, repository, query, bearer(registry, f"repository:{source}:pull"))
    assert only_source.status == 401


def test_a_mount_without_source_uses_readable_repositories(registry: Registry, repository: str, source: str) -> None:
    query = f"mount={digest_of(repository.encode())}"
    target = f"repository:{repository}/target:pull,push"
    assert mount(registry, repository, query, bearer(registry, target)).status == 202
    assert mount(registry, repository, query, bearer(registry, target, f"repository:{source}:pull")).status == 201


def test_a_reader_cannot_start_an_upload(registry: Registry, repository: str, source: str) -> None:
    principal = registry.cloud.principal("mount puller", AcrPull=registry.id)
    puller = registry.seen_by(principal.client_id, principal.client_secret)
    digest = digest_of(repository.encode())
    for query in ("", f"?mount={digest}&from={source}", f"?mount={digest}", f"?digest={digest_of(b'x')}"):
        answer = puller.call("POST", f"/v2/{repository}/target/blobs/uploads/{query}", b"x")
        assert (answer.status, answer.code) == (403, "DENIED")
    assert registry.call("HEAD", f"/v2/{repository}/target/blobs/{digest}").status == 404
    assert puller.call("GET", f"/v2/{source}/blobs/{digest}").body == repository.encode()


def test_unreadable_blobs_are_not_disclosed(registry: Registry, repository: str, source: str) -> None:
    stranger = registry.cloud.principal("mount stranger")
    for caller in (registry.seen_by(None), registry.seen_by(stranger.client_id, stranger.client_secret)):
        for path in (f"blobs/{digest_of(repository.encode())}", "tags/list", f"referrers/{digest_of(b'')}"):
            there = caller.call("GET", f"/v2/{source}/{path}")
            absent = caller.call("GET", f"/v2/{source}/absent/{path}")
            assert there.status == absent.status
            assert there.status in (401, 403)
            assert there.code == absent.code
