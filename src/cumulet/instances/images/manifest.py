"""The documents of a registry about an image, checked while decoded (OCI Image Specification 1.1; Docker Image Manifest V2.2).

Users name registries, so none is trusted. Decoding makes every digest a `Digest`, and bounds every size and list. A null is a
missing field, as in the Go programs that write and read these documents.
"""

from __future__ import annotations

import re
from typing import Annotated, TypeVar

import msgspec

from cumulet.common.digests import DigestField
from cumulet.instances.images.errors import Fault, PullError
from cumulet.instances.images.image_config import Execution
from cumulet.instances.images.platforms import Platform

#: Bytes of a manifest, an index or a configuration; registries accept no larger manifests.
DOCUMENT_LIMIT = 4 * 1024 * 1024
#: Bytes of an image, packed or unpacked: ACI's limit.
IMAGE_LIMIT = 15 * 1024**3
#: Media types of manifests and indexes, the preferred ones first.
MANIFEST_TYPES = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
#: Media types of the configuration of an image; the last three were written by old versions of docker and of registries.
_CONFIG_TYPES = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
    "application/octet-stream",
    "text/html; charset=utf-8",
    "text/html",
)
_LAYER_TYPE = re.compile(
    r"application/(?:vnd\.oci\.image\.layer\.(?:nondistributable\.)?v1\.tar|vnd\.docker\.image\.rootfs\.(?:foreign\.)?diff\.tar)"
    r"(?:[.+][a-z0-9]+)*|application/octet-stream|"
)
#: Layers of an image: docker's limit.
_LAYERS = 127
_MANIFESTS = 1024
_ANNOTATIONS = 1024
_TOKEN = 64 * 1024

_Size = Annotated[int, msgspec.Meta(ge=0, le=IMAGE_LIMIT)]
_MediaType = Annotated[str, msgspec.Meta(max_length=255)]
_Annotations = Annotated[
    dict[
        Annotated[str, msgspec.Meta(max_length=4096)],
        Annotated[str, msgspec.Meta(max_length=DOCUMENT_LIMIT)] | None,
    ],
    msgspec.Meta(max_length=_ANNOTATIONS),
]


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Descriptor(_Document, frozen=True):
    """A configuration or a layer; `size` is in bytes."""

    digest: DigestField
    size: _Size = 0
    media_type: _MediaType | None = None
    annotations: _Annotations | None = None


class Manifest(_Document, frozen=True):
    """An image for one platform, or an artifact."""

    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=_LAYERS)] | None = None
    artifact_type: _MediaType | None = None
    annotations: _Annotations | None = None

    @property
    def artifact(self) -> str | None:
        """The type of the artifact that the manifest describes, or `None` for an image.

        As in docker, a configuration without a type of its own is an image's. An attestation has an image's configuration, and
        layers of another type.
        """
        config = self.config.media_type
        if config and config not in _CONFIG_TYPES:
            return self.artifact_type or config
        others = [layer.media_type for layer in self.layers or () if not is_layer(layer)]
        return others[0] if others and len(others) == len(self.layers or ()) else None


class Entry(_Document, frozen=True):
    """A manifest, or an index, of an index."""

    digest: DigestField
    size: _Size = 0
    media_type: _MediaType | None = None
    platform: Platform | None = None
    annotations: _Annotations | None = None


class Index(_Document, frozen=True):
    """An image for several platforms."""

    manifests: Annotated[list[Entry], msgspec.Meta(max_length=_MANIFESTS)] | None = None
    artifact_type: _MediaType | None = None
    annotations: _Annotations | None = None

    def candidates(self) -> list[Entry]:
        """Return the entries that may be for this machine, the best first, those without a platform last."""
        ranked: list[tuple[int, Entry]] = []
        rest: list[Entry] = []
        for entry in self.manifests or ():
            if entry.media_type and entry.media_type not in MANIFEST_TYPES:
                continue
            if entry.platform is None or not entry.platform.is_known:
                rest.append(entry)
            elif (rank := entry.platform.rank()) is not None:
                ranked.append((rank, entry))
        return [entry for _, entry in sorted(ranked, key=lambda item: item[0])] + rest

    @property
    def platforms(self) -> list[str]:
        """The platforms of the entries, for messages, without those of attestations."""
        known = [str(entry.platform) for entry in self.manifests or () if entry.platform and entry.platform.is_known]
        return [text for text in dict.fromkeys(known) if text != "unknown/unknown"]

    @property
    def artifact(self) -> str | None:
        """The type of the artifact that the index is, or `None` if it has a manifest.

        BuildKit writes a build cache as an index of layers, whose last entry has the type of the cache.
        """
        types = [entry.media_type for entry in self.manifests or ()]
        if not types or any(not kind or kind in MANIFEST_TYPES for kind in types):
            return self.artifact_type if not types else None
        return self.artifact_type or types[-1]


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: Annotated[list[DigestField], msgspec.Meta(max_length=_LAYERS)] | None = None


class Configuration(Platform, frozen=True):
    """The configuration of an image: platform, defaults of its containers, and digests of its unpacked layers."""

    rootfs: _RootFs | None = None
    config: Execution | None = None

    @property
    def execution(self) -> Execution:
        """The defaults of the image's containers."""
        return self.config or Execution()

    @property
    def diff_ids(self) -> list[DigestField]:
        """The digests of the unpacked layers, the lowest first."""
        return (self.rootfs.diff_ids if self.rootfs else None) or []


class _Shape(_Document, frozen=True):
    """The properties that tell documents apart."""

    schema_version: int | None = None
    media_type: _MediaType | None = None
    artifact_type: _MediaType | None = None
    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    config: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Token(msgspec.Struct, frozen=True):
    """The answer of a token server (distribution's token authentication); the token has either name."""

    token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None


_T = TypeVar("_T")


def is_layer(descriptor: Descriptor) -> bool:
    """Return whether a descriptor has a media type of layers, or none."""
    return _LAYER_TYPE.fullmatch(descriptor.media_type or "") is not None


def decode(raw: bytes, kind: type[_T], what: str) -> _T:
    """Decode a document; `what` names it in errors. Raises `PullError`."""
    try:
        try:
            return msgspec.json.decode(raw, type=kind)
        except UnicodeDecodeError:
            # As in Go, a byte that is not UTF-8 is replaced.
            return msgspec.json.decode(raw.decode(errors="replace"), type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise PullError(f"{what} is not valid: {error}", Fault.INVALID) from None


def read(raw: bytes, name: str) -> Manifest | Index:
    """Decode a manifest or an index; `name` is the reference. Raises `PullError`."""
    shape = decode(raw, _Shape, "the manifest")
    if shape.manifests is not msgspec.UNSET:
        return decode(raw, Index, "the index")
    if shape.schema_version == 1:
        raise PullError(
            'media type "application/vnd.docker.distribution.manifest.v1+prettyjws" is no longer supported, please rebuild the '
            'image as "application/vnd.docker.distribution.manifest.v2+json" or "application/vnd.oci.image.manifest.v1+json"',
            Fault.FORMAT,
        )
    if shape.config is msgspec.UNSET and shape.artifact_type:
        raise artifact(name, shape.artifact_type)  # an OCI artifact manifest, of a draft of the specification
    return decode(raw, Manifest, "the manifest")


def artifact(name: str, kind: str) -> PullError:
    """Return the error for a reference that names an artifact of that type."""
    return PullError(f"{name} is an artifact of type {_printable(kind)}, not an image", Fault.ARTIFACT)


def read_configuration(raw: bytes, manifest: Manifest) -> Configuration:
    """Decode the configuration of an image, which must have one `diff_id` per layer. Raises `PullError`."""
    configuration = decode(raw, Configuration, "the image's configuration")
    layers = manifest.layers or []
    if len(configuration.diff_ids) != len(layers):
        raise PullError(
            f"the configuration has {len(configuration.diff_ids)} layers, and the manifest has {len(layers)}",
            Fault.INVALID,
        )
    for layer in layers:
        if not is_layer(layer):
            kind = _printable(layer.media_type or "")
            raise PullError(f"the layer {layer.digest} is of type {kind}, which is not a layer's", Fault.FORMAT)
        if "encrypted" in (layer.media_type or ""):
            raise PullError(f"the layer {layer.digest} is encrypted, which is not supported", Fault.FORMAT)
    return configuration


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text)
