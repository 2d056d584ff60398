"""The configuration of an image (OCI Image Specification 1.1, "Image Configuration"), as far as a container needs it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

#: A string that a program can be given: it ends at a NUL.
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z", max_length=1024 * 1024)]
_Texts = Annotated[list[_Text], msgspec.Meta(max_length=10_000)]


class ImageConfigError(ValueError):
    """The configuration is none; the message says where it is wrong."""


class Execution(msgspec.Struct, rename="pascal", frozen=True):
    """What a container of the image is started with where it is not asked for otherwise."""

    user: _Text | None = None
    env: _Texts | None = None
    entrypoint: _Texts | None = None
    cmd: _Texts | None = None
    working_dir: _Text | None = None


def execution(configuration: dict[str, Any]) -> Execution:
    """What containers of the image are started with. Raises `ImageConfigError`."""
    try:
        return msgspec.convert(configuration.get("config") or {}, Execution)
    except msgspec.ValidationError as error:
        raise ImageConfigError(f"the image's configuration is not valid: {error}") from None
