"""What a registry says of an image, checked as it is decoded (OCI Image Specification 1.1; Docker Image Manifest V2.2).

A registry is whoever a user names. Every digest is a `Digest`, every size is within bounds, and every list has a limit, before
anything is done with them.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec

from cumulet.common.digests import Digest, DigestField
from cumulet.instances.images.architecture import GOARCH
from cumulet.instances.images.image_config import Execution

#: Bytes of a manifest, an index or a configuration; registries take no more of a manifest.
DOCUMENT_LIMIT = 4 * 1024 * 1024
#: Bytes that an image may have, packed or unpacked, which is ACI's limit.
IMAGE_LIMIT = 15 * 1024**3
#: Layers of an image, as many as docker stores.
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
    """A document of a registry is not what it should be; the message says which and why."""


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
    """The same image for several platforms."""

    manifests: Annotated[list[_Entry], msgspec.Meta(max_length=_MANIFESTS)]
    annotations: _Annotations | None = None

    def for_this_machine(self) -> Digest | None:
        """The manifest of the first entry for this machine's platform."""
        for entry in self.manifests:
            platform = entry.platform or _Platform()
            if (platform.os, platform.architecture) == ("linux", GOARCH):
                return entry.digest
        return None


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: Annotated[list[DigestField], msgspec.Meta(max_length=_LAYERS)]


class Configuration(msgspec.Struct, frozen=True):
    """What an image's containers are started with, and the digests of its layers as they are unpacked."""

    rootfs: _RootFs
    config: Execution | None = None

    def defaults(self) -> dict[str, Any]:
        """`config`, in the specification's names."""
        return {"config": msgspec.to_builtins(self.config or Execution())}


class _Shape(msgspec.Struct, frozen=True):
    """What tells an index from a manifest."""

    manifests: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Token(msgspec.Struct, frozen=True):
    """What a token server answers (distribution's token authentication); either name holds the token."""

    token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None
    access_token: Annotated[str, msgspec.Meta(pattern=r"\A[\x21-\x7e]*\Z", max_length=_TOKEN)] | None = None


_T = TypeVar("_T")


def decode(raw: bytes, kind: type[_T], what: str) -> _T:
    """A document. Raises `DocumentError`."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DocumentError(f"{what} is not valid: {error}") from None


def read(raw: bytes) -> Manifest | Index:
    """A manifest or an index. Raises `DocumentError`."""
    if decode(raw, _Shape, "the manifest").manifests is not msgspec.UNSET:
        return decode(raw, Index, "the index")
    return decode(raw, Manifest, "the manifest")


def read_configuration(raw: bytes, manifest: Manifest) -> Configuration:
    """The configuration of an image, which must have one `diff_id` for each layer. Raises `DocumentError`."""
    found = decode(raw, Configuration, "the configuration")
    if len(found.rootfs.diff_ids) != len(manifest.layers):
        raise DocumentError(
            f"the configuration is of {len(found.rootfs.diff_ids)} layers, and the manifest has {len(manifest.layers)}"
        )
    return found
