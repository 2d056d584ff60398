"""Pages of tags and manifests, ordered by name or by time (`orderby`, `last` and `n` of a query)."""

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
    """The requested page: at most `count` items after `last`, in `order` (empty: by name)."""

    count: int
    last: str
    order: str

    @classmethod
    def of(cls, request: web.Request) -> Page:
        """Read the query of a request. Raises `OciError` 400."""
        count, last = page(request)
        order = _ORDERS.get(fold(request.query.get("orderby", "")))
        if order is None:
            raise OciError(400, "UNSUPPORTED", "orderby must be timeasc, timedesc or none")
        return cls(count, last, order)


def by_time(items: Sequence[T], requested: Page, name: Callable[[T], str], time: Callable[[T], str]) -> list[T]:
    """The items of a page by time, and one more if there is a next page.

    `last` is the name of an item. If it was deleted in the meantime, the page is empty and the list ends.
    """
    descending = requested.order == "timedesc"
    ordered = sorted(items, key=lambda item: (time(item), name(item)), reverse=descending)
    begin = 0
    if requested.last:
        begin = next((at + 1 for at, item in enumerate(ordered) if name(item) == requested.last), len(ordered))
    return ordered[begin : begin + requested.count + 1]


def link(request: web.Request, requested: Page, names: Sequence[str]) -> dict[str, str]:
    """The header with the address of the next page, if any.

    `names` are the names of the items that were read, one more than requested where there is a next page.
    """
    if not 0 < requested.count < len(names):
        return {}
    query = {"last": names[requested.count - 1], "n": str(requested.count)}
    kept = {key: request.query[key] for key in ("orderby", "digest") if key in request.query}
    return {"Link": f'<{quote(request.path)}?{urlencode(query | kept)}>; rel="next"'}
