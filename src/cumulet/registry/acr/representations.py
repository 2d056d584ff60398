"""Repositories, tags and manifests as JSON (ACR's data plane, 2021-07-01)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from cumulet.registry.catalog.store import DeletedTag, Manifest, Repository, Tag


def repository(item: Repository) -> dict[str, Any]:
    """A repository."""
    return {
        "createdTime": item.created,
        "lastUpdateTime": item.updated,
        "manifestCount": item.manifests,
        "tagCount": item.tags,
        "changeableAttributes": msgspec.to_builtins(item.attributes),
    }


def tag(item: Tag) -> dict[str, Any]:
    """A tag."""
    return {
        "name": item.name,
        "digest": item.digest,
        "createdTime": item.created,
        "lastUpdateTime": item.updated,
        "signed": False,
        "changeableAttributes": msgspec.to_builtins(item.attributes),
    }


def manifest(item: Manifest, tags: Sequence[str], platform: Mapping[str, str]) -> dict[str, Any]:
    """A manifest; `platform` is what its config says of `architecture` and `os`."""
    document = msgspec.json.decode(item.body)
    shown: dict[str, Any] = {
        "digest": item.digest,
        "imageSize": len(item.body) + sum(part.get("size", 0) for part in _parts(document)),
        "createdTime": item.created,
        "lastUpdateTime": item.created,
        **platform,
        "mediaType": item.media_type,
        "tags": list(tags),
        "changeableAttributes": msgspec.to_builtins(item.attributes),
    }
    if item.artifact_type:
        shown["artifactType"] = item.artifact_type
    if isinstance(parts := document.get("manifests"), list):
        shown["references"] = [_reference(part) for part in parts]
    elif isinstance(config := document.get("config"), dict):
        shown["configMediaType"] = config.get("mediaType")
    return shown


def deleted_manifest(item: Manifest) -> dict[str, Any]:
    """A soft-deleted manifest."""
    return {"digest": item.digest, "mediaType": item.media_type, "deletedAt": item.deleted}


def deleted_tag(item: DeletedTag) -> dict[str, Any]:
    """A tag that went with a soft-deleted manifest."""
    return {"tag": item.name, "digest": item.digest, "deletedAt": item.deleted}


def _parts(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    config = document.get("config")
    found = [config] if isinstance(config, dict) else []
    return [*found, *(document.get("layers") or []), *(document.get("blobs") or [])]


def _reference(part: Mapping[str, Any]) -> dict[str, Any]:
    platform = part.get("platform")
    known = platform if isinstance(platform, dict) else {}
    return {"digest": part["digest"], "architecture": known.get("architecture"), "os": known.get("os")}
