"""The configuration of an image (OCI Image Specification 1.1, "Image Configuration"), as far as containers need it."""

from __future__ import annotations

from typing import Annotated

import msgspec

#: A string that can be passed to a program: it has no NUL.
_Text = Annotated[str, msgspec.Meta(pattern=r"\A[^\x00]*\Z", max_length=1024 * 1024)]
_Texts = Annotated[list[_Text], msgspec.Meta(max_length=10_000)]
#: Volumes of an image; each becomes a mount of its containers.
_VOLUMES = 100


class Execution(msgspec.Struct, rename="pascal", frozen=True):
    """The defaults for the process of a container of the image."""

    user: _Text | None = None
    #: A null, which Go's decoders read as an empty string, sets nothing.
    env: Annotated[list[_Text | None], msgspec.Meta(max_length=10_000)] | None = None
    entrypoint: _Texts | None = None
    cmd: _Texts | None = None
    working_dir: _Text | None = None
    volumes: Annotated[dict[_Text, msgspec.Raw], msgspec.Meta(max_length=_VOLUMES)] | None = None
    stop_signal: _Text | None = None
