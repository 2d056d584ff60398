"""The grammar of names, tags and digests (OCI Distribution Specification 1.1, "Pulling manifests")."""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.registry.oci.errors import OciError

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_ALGORITHMS = ("sha256", "sha512")
#: RFC 6838, section 4.2.
_MEDIA_TYPE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}")

_NAME_LIMIT = 255


def repository(name: str) -> str:
    """A valid repository name. Raises `NAME_INVALID`."""
    if len(name) > _NAME_LIMIT or not _REPOSITORY.fullmatch(name):
        raise OciError(400, "NAME_INVALID", f"invalid repository name {name[:_NAME_LIMIT]!r}")
    return name


def is_digest(reference: str) -> bool:
    """Whether a reference is a digest and not a tag: only a digest has a colon."""
    return ":" in reference


def reference(text: str) -> str:
    """A valid digest or tag. Raises `DIGEST_INVALID` or `TAG_INVALID`."""
    return digest(text) if is_digest(text) else tag(text)


def digest(text: str) -> Digest:
    """A valid digest of a supported algorithm. Raises `DIGEST_INVALID`."""
    try:
        return digests.parse(text)
    except ValueError as error:
        raise OciError(400, "DIGEST_INVALID", str(error)) from None


def algorithm(text: str) -> str:
    """The name of a supported digest algorithm. Raises `DIGEST_INVALID`."""
    if text not in _ALGORITHMS:
        raise OciError(400, "DIGEST_INVALID", f"unsupported digest algorithm {text[:40]!r}")
    return text


def tag(text: str) -> str:
    """A valid tag. Raises `TAG_INVALID`."""
    if not _TAG.fullmatch(text):
        raise OciError(400, "TAG_INVALID", f"invalid tag {text[:160]!r}")
    return text


def is_media_type(text: str) -> bool:
    """Whether a text is a type and a subtype (RFC 6838)."""
    return _MEDIA_TYPE.fullmatch(text) is not None


def decoded(raw_path: str) -> str:
    """A path, percent-decoded once: no grammar allows text that is still encoded. Raises `NAME_INVALID`."""
    try:
        return unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise OciError(400, "NAME_INVALID", "the path is not valid UTF-8") from None
