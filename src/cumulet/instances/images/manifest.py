"""The documents of a registry about an image, checked while decoded (OCI Image Specification 1.1; Docker Image Manifest V2.2).

Users name registries, so none is trusted. Decoding makes every digest a `Digest`, and bounds every size and list.
"""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec

from cumulet.common.digests import Digest, DigestField
from cumulet.instances.images.architecture import GOARCH
from cumulet.instances.images.image_config import Execution

#: Bytes of a manifest, an index or a configuration; registries accept no larger manifests.
DOCUMENT_LIMIT = 4 * 1024 * 1024
#: Bytes of an image, packed or unpacked: ACI's limit.
IMAGE_LIMIT = 15 * 1024**3
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
        Annotated[str, msgspec.Meta(max_length=1024 * 1024)],
    ],
    msgspec.Meta(max_length=_ANNOTATIONS),
]


class DocumentError(ValueError):
    """A document of a registry is not valid; the message names the document and the reason."""


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    pass


class Descriptor(_Document, frozen=True):
    """A configuration or a layer; `size` is in bytes."""

    digest: DigestField
    size: _Size
    media_type: _MediaType = ""
    annotations: _Annotations | None = None


class Manifest(_Document, frozen=True):
    """An image for one platform."""

    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=_LAYERS)]
    annotations: _Annotations | None = None


class _Platform(msgspec.Struct, frozen=True):
    os: str = "linux"
    architecture: str = GOARCH


class _Entry(_Document, frozen=True):
    digest: DigestField
    size: _Size
    media_type: _MediaType = ""
    platform: _Platform | None = None
    annotations: _Annotations | None = None


class Index(_Document, frozen=True):
    """An image for several platforms."""

    manifests: Annotated[list[_Entry], msgspec.Meta(max_length=_MANIFESTS)]
    annotations: _Annotations | None = None

    def for_this_machine(self) -> Digest | None:
        """Return the digest of the first manifest for this machine's platform, or `None`."""
        for entry in self.manifests:
            platform = entry.platform or _Platform()
            if (platform.os, platform.architecture) == ("linux", GOARCH):
                return entry.digest
        return None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: Annotated[list[DigestField], msgspec.Meta(max_length=_LAYERS)]


class Configuration(msgspec.Struct, frozen=True):
    """The configuration of an image: the defaults of its containers, and the digests of its unpacked layers."""

    rootfs: _RootFs
    config: Execution | None = None

    @property
    def execution(self) -> Execution:
        """The defaults of the image's containers."""
        return self.config or Execution()


class _Shape(msgspec.Struct, frozen=True):
    """The property that distinguishes an index from a manifest."""

    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Token(msgspec.Struct, frozen=True):
    """The answer of a token server (distribution's token authentication); the token has either name."""

    token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None


_T = TypeVar("_T")


def decode(raw: bytes, kind: type[_T], what: str) -> _T:
    """Decode a document; `what` names it in errors. Raises `DocumentError`."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DocumentError(f"{what} is not valid: {error}") from None


def read(raw: bytes) -> Manifest | Index:
    """Decode a manifest or an index. Raises `DocumentError`."""
    if decode(raw, _Shape, "the manifest").manifests is not msgspec.UNSET:
        return decode(raw, Index, "the index")
    return decode(raw, Manifest, "the manifest")


def read_configuration(raw: bytes, manifest: Manifest) -> Configuration:
    """Decode the configuration of an image, which must have one `diff_id` per layer. Raises `DocumentError`."""
    configuration = decode(raw, Configuration, "the image's configuration")
    if len(configuration.rootfs.diff_ids) != len(manifest.layers):
        raise DocumentError(
            f"the configuration has {len(configuration.rootfs.diff_ids)} layers, and the manifest has {len(manifest.layers)}"
        )
    return configuration
