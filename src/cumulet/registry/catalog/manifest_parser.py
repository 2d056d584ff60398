"""Parsing pushed manifests (OCI Image Specification 1.1, Docker schema 2): the media type, the parts and the subject.

`read` validates the fields that the registry uses. It stores all other fields byte for byte, known or not. `document` reads
a stored manifest again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec

from cumulet.common.digests import Digest
from cumulet.registry.catalog.records import Manifest, Parts
from cumulet.registry.oci import names
from cumulet.registry.oci.errors import OciError

INDEX = "application/vnd.oci.image.index.v1+json"
IMAGE = "application/vnd.oci.image.manifest.v1+json"
_INDEX_TYPES = (INDEX, "application/vnd.docker.distribution.manifest.list.v2+json")
_IMAGE_TYPES = (IMAGE, "application/vnd.docker.distribution.manifest.v2+json")
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

#: A JSON object that is not validated yet.
_Object = dict[str, object]

#: Layers of these types are not uploaded: clients download them from another server.
_NOT_DISTRIBUTABLE = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)


class Descriptor(msgspec.Struct, rename="camel"):
    """The fields of a descriptor in a stored manifest that the registry uses. `platform` was not validated."""

    digest: Digest
    media_type: str | None = None
    size: int = 0
    platform: object = None


class _Index(msgspec.Struct):
    manifests: list[Descriptor] | None = None


class Document(_Index):
    """The fields of a stored manifest that the registry uses."""

    config: Descriptor | None = None
    layers: list[Descriptor] | None = None
    blobs: list[Descriptor] | None = None

    @property
    def contents(self) -> list[Descriptor]:
        """The descriptors of the config, the layers and the blobs."""
        config = [self.config] if self.config is not None else []
        return [*config, *(self.layers or []), *(self.blobs or [])]


def document(body: bytes) -> Document:
    """A stored manifest, which `read` has validated."""
    try:
        return msgspec.json.decode(body, type=Document)
    except msgspec.ValidationError:
        # In an index only `manifests` has a meaning, and other fields of these names were not validated.
        return Document(msgspec.json.decode(body, type=_Index).manifests)


def read(body: bytes, content_type: str, digest: Digest, created: str) -> tuple[Manifest, Parts]:
    """Parse a manifest and the parts that it names. Raises `OciError` 400 `MANIFEST_INVALID` or `DIGEST_INVALID`."""
    fields = _decode(body)
    media_type = _media_type(fields, content_type)
    _check_schema(fields, media_type)
    subject = fields.get("subject")
    manifest = Manifest(
        digest=digest,
        media_type=media_type,
        body=body,
        subject=_digest(subject, "subject") if subject is not None else None,
        artifact_type=_artifact_type(fields),
        annotations=_annotations(fields),
        created=created,
    )
    return manifest, _parts(fields, media_type)


def _parts(fields: _Object, media_type: str) -> Parts:
    if media_type in _IMAGE_TYPES and not isinstance(fields.get("config"), dict):
        raise _invalid("the manifest has no config")
    named, required = [], []
    lists = ("manifests",) if media_type in _INDEX_TYPES else ("config", "layers", "blobs", "manifests")
    for descriptor, where in _descriptors(fields, lists):
        digest = _digest(descriptor, where)
        named.append(digest)
        if not str(descriptor.get("mediaType", "")).startswith(_NOT_DISTRIBUTABLE):
            required.append(digest)
    return Parts(tuple(dict.fromkeys(named)), tuple(dict.fromkeys(required)))


def _descriptors(fields: _Object, keys: tuple[str, ...]) -> Iterator[tuple[_Object, str]]:
    for field in keys:
        value = fields.get(field)
        if value is None:
            continue
        values = [value] if field == "config" else value
        if not isinstance(values, list):
            raise _invalid(f"{field} must be a list")
        for number, descriptor in enumerate(values):
            where = field if field == "config" else f"{field}[{number}]"
            if not isinstance(descriptor, dict):
                raise _invalid(f"{where} must be an object")
            yield descriptor, where


def _digest(descriptor: object, where: str) -> Digest:
    """Validate a descriptor and return its digest. Raises `OciError` 400."""
    digest = descriptor.get("digest") if isinstance(descriptor, dict) else None
    if not isinstance(descriptor, dict) or not isinstance(digest, str):
        raise _invalid(f"{where} has no digest")
    if not isinstance(descriptor.get("mediaType", ""), str):
        raise _invalid(f"{where} has a mediaType that is not a string")
    size = descriptor.get("size", 0)
    if isinstance(size, bool) or not isinstance(size, int) or not 0 <= size < 2**63:
        raise _invalid(f"{where} has a size that is not a number of bytes")
    return names.digest(digest)


def _artifact_type(fields: _Object) -> str | None:
    """`artifactType`, or else the media type of the config (Distribution Specification 1.1, "Listing Referrers")."""
    config = fields.get("config")
    value = fields.get("artifactType") or (config.get("mediaType") if isinstance(config, dict) else None)
    return value if isinstance(value, str) else None


def _annotations(fields: _Object) -> dict[str, str] | None:
    annotations = fields.get("annotations")
    if annotations is None:
        return None
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        raise _invalid("annotations must be an object of strings")
    return annotations


def _check_schema(fields: _Object, media_type: str) -> None:
    if fields.get("schemaVersion") == 1 or media_type.startswith(_SCHEMA_1):
        raise _invalid("schema 1 manifests are not supported: push an OCI or Docker schema 2 image")
    version = fields.get("schemaVersion")
    if version != 2 or isinstance(version, bool):
        raise _invalid("schemaVersion must be 2")
    for name, kind in (("config", dict), ("artifactType", str)):
        if not isinstance(fields.get(name), kind | None):
            raise _invalid(f"{name} has the wrong type")
    if isinstance(config := fields.get("config"), dict) and not isinstance(config.get("mediaType", ""), str):
        raise _invalid("config has a mediaType that is not a string")


def _media_type(fields: _Object, content_type: str) -> str:
    inside = fields.get("mediaType")
    if not isinstance(inside, str | None):
        raise _invalid("mediaType has the wrong type")
    outside = content_type.partition(";")[0].strip()
    if inside and outside and inside != outside:
        raise _invalid(f"Content-Type is '{outside}' and mediaType is '{inside}'")
    given = inside or outside or (INDEX if "manifests" in fields else IMAGE)
    if not names.is_media_type(given):
        raise _invalid(f"'{given[:100]}' is not a media type")
    return given


def _decode(body: bytes) -> _Object:
    try:
        decoded = json.loads(body.decode(), object_pairs_hook=_object, parse_constant=_constant)
    except RecursionError:
        raise _invalid("the manifest is nested too deeply") from None
    except ValueError as error:
        raise _invalid(f"the manifest is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(decoded, dict):
        raise _invalid("the manifest is not a JSON object")
    return decoded


def _object(pairs: list[tuple[str, object]]) -> _Object:
    """An object with unique names: two parsers could read one with duplicates differently."""
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("an object has the same name twice")
    return fields


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _invalid(message: str) -> OciError:
    return OciError(400, "MANIFEST_INVALID", message)
