"""The configuration of an image (OCI Image Specification 1.1, "Image Configuration"), as far as a container needs it."""

from __future__ import annotations

from typing import Annotated

import msgspec


class ImageConfigError(ValueError):
    """The configuration is none; the message says where it is wrong."""


class Execution(msgspec.Struct, rename="pascal", frozen=True):
    """What a container of the image is started with where it is not asked for otherwise."""

    user: str | None = None
    env: list[str] | None = None
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    working_dir: str | None = None


class RootFs(msgspec.Struct, frozen=True):
    """The digests of the layers as they are unpacked, the lowest first."""

    diff_ids: Annotated[list[str], msgspec.Meta(max_length=1000)] | None = None


class ImageConfig(msgspec.Struct, frozen=True):
    """An image's configuration; what is not read here may be anything."""

    config: Execution | None = None
    rootfs: RootFs | None = None

    @property
    def execution(self) -> Execution:
        """What containers are started with."""
        return self.config or Execution()

    @property
    def diff_ids(self) -> list[str]:
        """The layers' digests, or none."""
        return (self.rootfs.diff_ids if self.rootfs is not None else None) or []


def parse_image_config(raw: bytes) -> ImageConfig:
    """Raises `ImageConfigError`."""
    try:
        return msgspec.json.decode(raw, type=ImageConfig)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageConfigError(f"the image's configuration is not valid: {error}") from None
