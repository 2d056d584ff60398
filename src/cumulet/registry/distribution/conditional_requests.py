"""Conditional requests and ranges (RFC 9110, sections 13 and 14). The entity tag of content is its digest."""

from __future__ import annotations

import re

from aiohttp import web

from cumulet.registry.oci.errors import OciError

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


def is_fresh(request: web.BaseRequest, digest: str) -> bool:
    """Whether the client has this content already: `If-None-Match` has its digest or `*`."""
    header = request.headers.get("If-None-Match")
    if header is None:
        return False
    tags = [tag.strip().removeprefix("W/").strip('"') for tag in header.split(",")]
    return "*" in tags or digest in tags


def byte_range(request: web.BaseRequest, digest: str, size: int) -> tuple[int, int] | None:
    """The range in `Range` as its first byte and the byte after its last, or `None` for the whole content.

    A header that is not a single range of bytes is ignored (RFC 9110, section 14.2). So is one with an `If-Range` for other
    content. Raises `OciError` 416 where the content has no such bytes.
    """
    header = request.headers.get("Range")
    if header is None or request.headers.get("If-Range", f'"{digest}"').strip('"') != digest:
        return None
    match = _RANGE.fullmatch(header.replace(" ", ""))
    if match is None or match[0] == "bytes=-":
        return None
    if match[1]:
        first, after = int(match[1]), int(match[2]) + 1 if match[2] else size
        if match[2] and after <= first:
            return None
    else:
        first, after = max(size - int(match[2]), 0), size
    if first >= size:
        raise OciError(
            416, "SIZE_INVALID", f"the content has {size} bytes", headers={"Content-Range": f"bytes */{size}"}
        )
    return first, min(after, size)
