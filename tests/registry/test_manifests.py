"""Manifests of every kind: pushed, pulled byte for byte, refused where they are not right (OCI Distribution 1.1)."""

from __future__ import annotations

from tests.registry.client import Registry


def test_an_image_is_pulled_by_tag_and_by_digest_as_it_was_pushed(registry: Registry, repository: str) -> None:
    digest = registry.push_image(repository, "v1")
    for reference in ("v1", digest):
        answer = registry.call("GET", f"/v2/{repository}/manifests/{reference}")
        assert answer.status == 200
        assert answer.digest == digest
