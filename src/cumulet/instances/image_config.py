"""The configuration of an image (OCI Image Specification 1.1, "Image Configuration"), as far as a container needs it."""

from __future__ import annotations

from typing import Annotated, Any

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


class _ImageConfig(msgspec.Struct, frozen=True):
    config: Execution | None = None
    rootfs: RootFs | None = None


def parse_image_config(raw: bytes) -> dict[str, Any]:
    """An image's configuration, whose `config` and `rootfs` are as they must be. Raises `ImageConfigError`."""
    try:
        found: dict[str, Any] = msgspec.to_builtins(msgspec.json.decode(raw, type=_ImageConfig))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ImageConfigError(f"the image's configuration is not valid: {error}") from None
    return found


def execution(configuration: dict[str, Any]) -> Execution:
    """What containers of the image are started with. Raises `ImageConfigError`."""
    try:
        return msgspec.convert(configuration.get("config") or {}, Execution)
    except msgspec.ValidationError as error:
        raise ImageConfigError(f"the image's configuration is not valid: {error}") from None
