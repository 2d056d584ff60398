"""Reads untrusted tar archives as streams (POSIX.1-2017 pax and ustar, GNU's long names).

The standard library's reader trusts the sizes in extended headers and expands sparse files. Here, extended headers are
bounded and sparse files are refused, so that time and memory grow only with the length of the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

_BLOCK = 512
#: Bytes of the extended headers of one entry, and of a whole archive.
_HEADER_LIMIT = 1024 * 1024
_HEADERS_LIMIT = 256 * 1024 * 1024
#: Records of one extended header, and bytes of an entry's attributes: Linux's limit for one attribute.
_RECORDS = 1000
_ATTRIBUTES_LIMIT = 64 * 1024
_PAX, _PAX_GLOBAL = b"x", b"g"
_GNU_SPARSE, _ATTRIBUTE = "GNU.sparse.", "SCHILY.xattr."
#: Keys that a global header must not set.
_OF_ONE_ENTRY = ("path", "linkpath", "size", _GNU_SPARSE, _ATTRIBUTE)
#: Keys of a global header that are used; others, such as a comment, do not concern files.
_OF_EVERY_ENTRY = ("uid", "gid", "mtime")
_INTEGER = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"-?[0-9]{1,20}(?:\.[0-9]{1,20})?")
#: The last user and group id; the next one means "unchanged" to chown(2).
_LAST_ID = 2**32 - 2

Read = Callable[[int], bytes]


class TarError(Exception):
    """The archive is not valid, or uses an unsupported feature."""


class Entry(NamedTuple):
    """One entry; `kind` is its type flag (`tarfile.REGTYPE`, …), `time` is in seconds since 1970."""

    name: str
    kind: bytes
    link: str
    mode: int
    uid: int
    gid: int
    time: float
    size: int
    attributes: dict[str, bytes]


class Archive:
    """`read(n)` returns exactly `n` bytes of the archive, fewer only at its end."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0  # bytes of the current entry's body
        self._padding = 0
        self._extended = 0  # bytes of extended headers

    def __iter__(self) -> Iterator[Entry]:
        extended: dict[str, bytes] = {}
        common: dict[str, bytes] = {}
        before = 0
        while (header := self._header()) is not None:
            kind = header.type
            if kind == _PAX_GLOBAL:
                common |= _of_all(_records(self._extension(header, before)))
            elif kind == _PAX:
                extended |= _records(self._extension(header, before))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = self._extension(header, before).rstrip(b"\0")
            elif kind == tarfile.GNUTYPE_LONGLINK:
                extended["linkpath"] = self._extension(header, before).rstrip(b"\0")
            else:
                entry = _entry(header, common | extended)
                self._begin(entry.size)
                yield entry
                extended = {}
                before = self._extended

    def body(self, most: int) -> bytes:
        """Return the next bytes of the current entry, at most `most`; none at its end."""
        data = self._read(min(most, self._left))
        if not data and self._left:
            raise TarError("the archive ends within an entry")
        self._left -= len(data)
        return data

    def _begin(self, size: int) -> None:
        self._left = size
        self._padding = -size % _BLOCK

    def _header(self) -> tarfile.TarInfo | None:
        while self.body(_BLOCK * 128):
            pass  # skip the rest of the body
        self._read(self._padding)
        self._padding = 0
        block = self._read(_BLOCK)
        if not block or not block.strip(b"\0"):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise TarError(f"the archive is not valid: {error}") from None
        if header.size < 0:
            raise TarError("an entry has a negative size")
        return header

    def _extension(self, header: tarfile.TarInfo, before: int) -> bytes:
        """Return an extended header; `before` counts the bytes of those of earlier entries."""
        self._extended += _BLOCK + header.size
        if self._extended - before > _HEADER_LIMIT:
            raise TarError(f"the extended headers of an entry are larger than {_HEADER_LIMIT} bytes")
        if self._extended > _HEADERS_LIMIT:
            raise TarError(f"the extended headers are larger than {_HEADERS_LIMIT} bytes")
        self._begin(header.size)
        content = self.body(header.size) if header.size else b""
        if len(content) < header.size:
            raise TarError("the archive ends within an entry")
        return content


def _entry(header: tarfile.TarInfo, extended: dict[str, bytes]) -> Entry:
    if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith(_GNU_SPARSE) for key in extended):
        raise TarError(f"the entry {header.name!r} is a sparse file, which is not supported")

    def text(key: str, default: str) -> str:
        return extended[key].decode("utf-8", "surrogateescape") if key in extended else default

    def number(key: str, default: int, last: int) -> int:
        value = _number(key, extended[key], _INTEGER) if key in extended else default
        if not 0 <= value <= last:
            raise TarError(f"the entry {header.name!r} has the {key} {value}, which is out of range")
        return int(value)

    size = number("size", header.size, 2**63 - 1)
    uid, gid = number("uid", header.uid, _LAST_ID), number("gid", header.gid, _LAST_ID)
    time = _number("mtime", extended["mtime"], _TIME) if "mtime" in extended else float(header.mtime)
    with_body = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
    name = text("path", header.name)
    kind = header.type
    if kind == tarfile.AREGTYPE:
        kind = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    if size and not with_body and header.type not in tarfile.SUPPORTED_TYPES:
        raise TarError(f"the entry {name[:200]!r} is of a type that is not supported")
    attributes = {
        key.removeprefix(_ATTRIBUTE): value for key, value in extended.items() if key.startswith(_ATTRIBUTE)
    }
    if sum(len(key) + len(value) for key, value in attributes.items()) > _ATTRIBUTES_LIMIT:
        raise TarError(f"the entry {name[:200]!r} has more than {_ATTRIBUTES_LIMIT} bytes of extended attributes")
    return Entry(
        name=name,
        kind=tarfile.REGTYPE if kind == tarfile.CONTTYPE else kind,
        link=text("linkpath", header.linkname),
        mode=header.mode & 0o7777,
        uid=uid,
        gid=gid,
        time=time,
        # A link can have the size of its target, but has no body (POSIX: "shall be ignored").
        size=size if with_body else 0,
        attributes=attributes,
    )


def _number(key: str, value: bytes, grammar: re.Pattern[bytes]) -> float:
    if not grammar.fullmatch(value):
        raise TarError(f"the {key} {value[:40]!r} of an extended header is not a number")
    return float(value) if b"." in value else int(value)


def _of_all(records: dict[str, bytes]) -> dict[str, bytes]:
    """Return the values that a global header sets for all later entries."""
    for key in records:
        if key.startswith(_OF_ONE_ENTRY):
            raise TarError(f"the archive sets {key[:100]!r} for all its entries, which is not supported")
    return {key: value for key, value in records.items() if key in _OF_EVERY_ENTRY}


def _records(raw: bytes) -> dict[str, bytes]:
    """Parse the records of a pax header: `<length> <key>=<value>\\n`."""
    records: dict[str, bytes] = {}
    start, count = 0, 0
    while start < len(raw):
        count += 1
        space = raw.find(b" ", start, start + 21)
        length = raw[start:space] if space > start else b""
        if count > _RECORDS or not _INTEGER.fullmatch(length):
            raise TarError("an extended header is not valid, or has too many records")
        end = start + int(length)
        key, separator, value = raw[space + 1 : end].partition(b"=")
        if end > len(raw) or end <= space or not separator or not value.endswith(b"\n"):
            raise TarError("an extended header is not valid")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1]
        start = end
    return records
