"""Sets of whole numbers as sorted ranges: IPv4 addresses of an `ipBlock`, and ports."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_BLOCK = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})/(\d{1,4})", re.ASCII)


class Range(NamedTuple):
    """From `first` to `last`, both included."""

    first: int
    last: int


#: All IPv4 addresses.
EVERYWHERE = (Range(0, 2**32 - 1),)


def parse_block(text: str) -> Range | None:
    """Return the addresses of an IPv4 range as the API server takes it, or `None` for anything else.

    Leading zeros are decimal, and bits beyond the prefix are ignored, as in Go's old `ParseCIDR`.
    """
    found = _BLOCK.fullmatch(text)
    if found is None:
        return None
    *octets, length = (int(part) for part in found.groups())
    if max(octets) > 255 or length > 32:
        return None
    network = ipaddress.IPv4Network((bytes(octets), length), strict=False)
    return Range(int(network.network_address), int(network.broadcast_address))


def union(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """Return the same numbers as ranges in order, of which no two overlap or touch."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1].last + 1:
            merged[-1] = Range(merged[-1].first, max(last, merged[-1].last))
        else:
            merged.append(Range(first, last))
    return tuple(merged)


def without(whole: Range, holes: Iterable[Range]) -> tuple[Range, ...]:
    """Return `whole` without the numbers of `holes`."""
    left, first = [], whole.first
    for hole in union(holes):
        if hole.first > whole.last or hole.last < first:
            continue
        if hole.first > first:
            left.append(Range(first, hole.first - 1))
        first = hole.last + 1
    if first <= whole.last:
        left.append(Range(first, whole.last))
    return tuple(left)


def common(one: Sequence[Range], other: Sequence[Range]) -> tuple[Range, ...]:
    """Return the numbers that are in both."""
    return union(
        Range(max(a.first, b.first), min(a.last, b.last))
        for a in one
        for b in other
        if max(a.first, b.first) <= min(a.last, b.last)
    )
