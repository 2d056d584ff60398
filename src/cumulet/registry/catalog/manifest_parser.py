"""What a pushed manifest says: its type, the parts that it names, its subject (OCI Image Specification 1.1, Docker schema 2).

Only what the registry acts on is looked at. Everything else is kept byte for byte, known or not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from cumulet.common.digests import Digest
from cumulet.registry.catalog.records import Manifest, Parts
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError

INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_IMAGE_TYPES = (IMAGE, "application/vnd.docker.distribution.manifest.v2+json")
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

#: Layers of these types are not uploaded, and may be had elsewhere only.
_NOT_DISTRIBUTABLE = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)


def read(body: bytes, content_type: str, digest: Digest, created: str) -> tuple[Manifest, Parts]:
    """A manifest and the parts that it names. Raises `OciError` 400 `MANIFEST_INVALID` or `DIGEST_INVALID`."""
    document = _decode(body)
    media_type = _media_type(document, content_type)
    _check_schema(document, media_type)
    subject = document.get("subject")
    config = document.get("config")
    manifest = Manifest(
        digest=digest,
        media_type=media_type,
        body=body,
        subject=_digest(subject, "subject") if subject is not None else None,
        artifact_type=document.get("artifactType") or (config or {}).get("mediaType"),
        annotations=_annotations(document),
        created=created,
    )
    return manifest, _parts(document, media_type)


def _parts(document: dict[str, Any], media_type: str) -> Parts:
    if media_type in _IMAGE_TYPES and not isinstance(document.get("config"), dict):
        raise _invalid("the manifest has no config")
    named, required = [], []
    fields = ("manifests",) if media_type in _INDEX_TYPES else ("config", "layers", "blobs", "manifests")
    for descriptor, where in _descriptors(document, fields):
        digest = _digest(descriptor, where)
        named.append(digest)
        if not descriptor.get("mediaType", "").startswith(_NOT_DISTRIBUTABLE):
            required.append(digest)
    return Parts(tuple(dict.fromkeys(named)), tuple(dict.fromkeys(required)))


def _descriptors(document: dict[str, Any], fields: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    for field in fields:
        value = document.get(field)
        if value is None:
            continue
        if field == "config":
            value = [value]
        elif not isinstance(value, list):
            raise _invalid(f"{field} must be a list")
        for number, descriptor in enumerate(value):
            where = field if field == "config" else f"{field}[{number}]"
            if not isinstance(descriptor, dict):
                raise _invalid(f"{where} must be an object")
            yield descriptor, where


def _digest(descriptor: Any, where: str) -> Digest:
    """The digest of a descriptor, whose other fields are right too."""
    if not isinstance(descriptor, dict) or not isinstance(descriptor.get("digest"), str):
        raise _invalid(f"{where} has no digest")
    if not isinstance(descriptor.get("mediaType", ""), str):
        raise _invalid(f"{where} has a mediaType that is not a string")
    size = descriptor.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63:
        raise _invalid(f"{where} has a size that is not a number of bytes")
    return names.digest(descriptor["digest"])


def _annotations(document: dict[str, Any]) -> dict[str, str] | None:
    annotations = document.get("annotations")
    if annotations is None:
        return None
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise _invalid("annotations must be an object of strings")
    return annotations


def _check_schema(document: dict[str, Any], media_type: str) -> None:
    if document.get("schemaVersion") == 1 or media_type.startswith(_SCHEMA_1):
        raise _invalid("schema 1 manifests are not supported: push an OCI or Docker schema 2 image")
    version = document.get("schemaVersion")
    if version != 2 or isinstance(version, bool):
        raise _invalid("schemaVersion must be 2")
    for name, kind in (("config", dict), ("artifactType", str)):
        if not isinstance(document.get(name), kind | None):
            raise _invalid(f"{name} has the wrong type")
    if isinstance(config := document.get("config"), dict) and not isinstance(config.get("mediaType", ""), str):
        raise _invalid("config has a mediaType that is not a string")


def _media_type(document: dict[str, Any], content_type: str) -> str:
    inside = document.get("mediaType")
    if not isinstance(inside, str | None):
        raise _invalid("mediaType has the wrong type")
    outside = content_type.partition(";")[0].strip()
    if inside and outside and inside != outside:
        raise _invalid(f"Content-Type is '{outside}' and mediaType is '{inside}'")
    given = inside or outside or (INDEX if "manifests" in document else IMAGE)
    if not names.is_media_type(given):
        raise _invalid(f"'{given[:100]}' is not a media type")
    return given


def _decode(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise _invalid("the manifest is nested too deeply") from None
    except ValueError as error:
        raise _invalid(f"the manifest is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(document, dict):
        raise _invalid("the manifest is not a JSON object")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, whose names are unique: what two readers could understand differently is refused."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has the same name twice")
    return found


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _invalid(message: str) -> OciError:
    return OciError(400, "MANIFEST_INVALID", message)
