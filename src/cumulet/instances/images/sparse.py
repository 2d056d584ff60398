"""The maps of sparse files in tar archives: GNU's old format, and its pax formats 0.0, 0.1 and 1.0 (GNU tar, "Sparse Formats").

A map lists the regions that have data, which the archive stores one after the other. Everything between them is a hole.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from cumulet.instances.images.numbers import TarError, header_number

#: Regions of a file.
_REGIONS = 100_000
_NUMBER = re.compile(rb"[0-9]{1,19}")
_BLOCK = 512
#: Bytes of a region in a header of the old format: two numbers.
_FIELD, _PAIR = 12, 24
PREFIX = "GNU.sparse."
MAP = f"{PREFIX}map"
#: The keys that format 0.0 repeats for each region. Their values are the numbers of a map.
REPEATED = (f"{PREFIX}offset", f"{PREFIX}numbytes")


class Region(NamedTuple):
    """Bytes of a file that the archive stores."""

    offset: int
    length: int


class Sparse(NamedTuple):
    """The size of a sparse file with its holes, its regions, and the bytes of the entry's body that the map took."""

    size: int
    regions: list[Region]
    consumed: int


def is_sparse(records: dict[str, bytes]) -> bool:
    """Return whether pax records describe a sparse file."""
    return any(key.startswith(PREFIX) for key in records)


def name_of(records: dict[str, bytes]) -> bytes | None:
    """Return the name of a sparse file; the name of its entry is a substitute for programs that do not know them."""
    return records.get(f"{PREFIX}name")


def from_records(records: dict[str, bytes], read: Callable[[int], bytes]) -> Sparse:
    """Return the map that pax records, and in format 1.0 the begin of the body, describe. Raises `TarError`."""
    version = records.get(f"{PREFIX}major", b"0"), records.get(f"{PREFIX}minor", b"0")
    size = _number(records.get(f"{PREFIX}realsize", records.get(f"{PREFIX}size", b"")))
    if version == (b"1", b"0"):
        numbers, consumed = _numbers_of_body(read)
        return Sparse(size, _regions(numbers, size), consumed)
    if version[0] != b"0":
        raise TarError("a sparse file has a format that is not supported")
    fields = records.get(MAP, b"").split(b",") if records.get(MAP) else []
    if len(fields) > 2 * _REGIONS:
        raise TarError(f"a sparse file has more than {_REGIONS} regions")
    return Sparse(size, _regions([_number(field) for field in fields], size), 0)


def from_header(header: bytes, read: Callable[[int], bytes]) -> Sparse:
    """Return the map of the old format, which continues in blocks behind the header. Raises `TarError`."""
    size = header_number(header[483:495], "size")
    numbers = _numbers_of_block(header[386:482])
    is_extended = header[482]
    consumed = 0
    while is_extended:
        block = read(_BLOCK)
        if len(block) < _BLOCK:
            raise TarError("the archive ends within an entry")
        consumed += _BLOCK
        numbers += _numbers_of_block(block[:504])
        is_extended = block[504]
        if len(numbers) > 2 * _REGIONS:
            raise TarError(f"a sparse file has more than {_REGIONS} regions")
    return Sparse(size, _regions(numbers, size), consumed)


def _numbers_of_block(block: bytes) -> list[int]:
    numbers: list[int] = []
    for start in range(0, len(block), _PAIR):
        if not block[start]:
            break
        for field in (start, start + _FIELD):
            numbers.append(header_number(block[field : field + _FIELD], "sparse map"))
    return numbers


def _numbers_of_body(read: Callable[[int], bytes]) -> tuple[list[int], int]:
    """Read the map of format 1.0: a count and the numbers, each in a line, up to the end of a block."""
    numbers: list[int] = []
    rest, consumed, count = b"", 0, 0
    while not numbers or len(numbers) < 1 + 2 * count:
        block = read(_BLOCK)
        if len(block) < _BLOCK:
            raise TarError("the archive ends within the map of a sparse file")
        consumed += _BLOCK
        *lines, rest = (rest + block).split(b"\n")
        numbers += [_number(line) for line in lines]
        count = numbers[0] if numbers else 0
        if count > _REGIONS:
            raise TarError(f"a sparse file has more than {_REGIONS} regions")
    return numbers[1 : 1 + 2 * count], consumed


def _regions(numbers: list[int], size: int) -> list[Region]:
    if len(numbers) % 2:
        raise TarError("the map of a sparse file is not valid")
    regions = [Region(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]
    ends = [0, *(region.offset + region.length for region in regions)]
    starts = [*(region.offset for region in regions), size]
    if any(min(region) < 0 for region in regions) or any(
        end > start for end, start in zip(ends, starts, strict=True)
    ):
        raise TarError("the map of a sparse file is not valid")
    return [region for region in regions if region.length]


def _number(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise TarError(f"the number {text[:40]!r} of a sparse file is not valid")
    return int(text)
