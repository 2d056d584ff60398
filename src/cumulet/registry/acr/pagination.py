"""Pages of tags and manifests, by name or by time, as `orderby`, `last` and `n` ask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import web

from cumulet.common.ascii import fold
from cumulet.registry.distribution.manifests import page
from cumulet.registry.oci.errors import OciError

_ORDERS = {"": "", "none": "", "timeasc": "timeasc", "timedesc": "timedesc"}

T = TypeVar("T")


class Page(msgspec.Struct, frozen=True):
    """What a request asks for: at most `count` after `last`, in `order` (empty: by name)."""

    count: int
    last: str
    order: str

    @classmethod
    def of(cls, request: web.Request) -> Page:
        """Read from the query. Raises `OciError` 400."""
        count, last = page(request)
        order = _ORDERS.get(fold(request.query.get("orderby", "")))
        if order is None:
            raise OciError(400, "UNSUPPORTED", "orderby must be timeasc, timedesc or none")
        return cls(count, last, order)


def by_time(items: Sequence[T], wanted: Page, name: Callable[[T], str], time: Callable[[T], str]) -> list[T]:
    """Those of all items that are on the page and one more, where a page by time is asked for.

    `last` is found by its name; one that has gone meanwhile ends the list, and does not begin it again.
    """
    descending = wanted.order == "timedesc"
    ordered = sorted(items, key=lambda item: (time(item), name(item)), reverse=descending)
    begin = 0
    if wanted.last:
        begin = next((at + 1 for at, item in enumerate(ordered) if name(item) == wanted.last), len(ordered))
    return ordered[begin : begin + wanted.count + 1]


def link(request: web.Request, wanted: Page, names: Sequence[str]) -> dict[str, str]:
    """The header with the next page's address, where `names` (those found, one more than asked) say there is one."""
    if not 0 < wanted.count < len(names):
        return {}
    query = {"last": names[wanted.count - 1], "n": str(wanted.count)}
    kept = {key: request.query[key] for key in ("orderby", "digest") if key in request.query}
    return {"Link": f'<{quote(request.path)}?{urlencode(query | kept)}>; rel="next"'}
