"""Reading a tar archive as it comes (POSIX.1-2017 pax and ustar, GNU's long names), for layers from strangers.

The standard library's reader believes the sizes in extended headers and unfolds sparse files; here a header is bounded
and a sparse file refused, so that what an archive costs is bounded by its own length.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

_BLOCK = 512
#: Bytes of one extended header: long names and attributes, with much to spare.
_HEADER_LIMIT = 1024 * 1024
_PAX, _PAX_GLOBAL = b"x", b"g"

Read = Callable[[int], bytes]


class TarError(Exception):
    """The archive is not one, or has what is not read; the message says what."""


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
    """`read(n)` gives exactly `n` bytes of the archive, fewer only at its end."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = 0  # of the body of the current entry
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        extended: dict[str, bytes] = {}
        common: dict[str, bytes] = {}
        while (header := self._header()) is not None:
            kind = header.type
            if kind in (_PAX, _PAX_GLOBAL):
                (common if kind == _PAX_GLOBAL else extended).update(_records(self._extension(header)))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = self._extension(header).rstrip(b"\0")
            elif kind == tarfile.GNUTYPE_LONGLINK:
                extended["linkpath"] = self._extension(header).rstrip(b"\0")
            else:
                entry = _entry(header, {**common, **extended})
                self._begin(entry.size)
                yield entry
                extended = {}

    def body(self, most: int) -> bytes:
        """The next bytes of the current entry, at most so many; none at its end."""
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
            pass  # what nobody asked for
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

    def _extension(self, header: tarfile.TarInfo) -> bytes:
        if header.size > _HEADER_LIMIT:
            raise TarError(f"an extended header of {header.size} bytes is larger than {_HEADER_LIMIT}")
        self._begin(header.size)
        found = b""
        while len(found) < header.size:
            found += self.body(header.size)
        return found


def _entry(header: tarfile.TarInfo, extended: dict[str, bytes]) -> Entry:
    if header.type == tarfile.GNUTYPE_SPARSE or any(key.startswith("GNU.sparse.") for key in extended):
        raise TarError(f"the entry {header.name!r} is a sparse file, which is not supported")

    def text(key: str, default: str) -> str:
        return extended[key].decode("utf-8", "surrogateescape") if key in extended else default

    try:
        size = int(extended.get("size", header.size))
        uid, gid = int(extended.get("uid", header.uid)), int(extended.get("gid", header.gid))
        time = float(extended.get("mtime", header.mtime))
    except ValueError as error:
        raise TarError(f"the entry {header.name!r} has a number that is none: {error}") from None
    with_body = header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
    name = text("path", header.name)
    kind = header.type
    if kind == tarfile.AREGTYPE:
        kind = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
    if size < 0 or (size and not with_body and header.type not in tarfile.SUPPORTED_TYPES):
        raise TarError(f"the entry {name!r} is of a type that is not supported")
    attributes = {
        key.removeprefix("SCHILY.xattr."): value for key, value in extended.items() if key.startswith("SCHILY.xattr.")
    }
    return Entry(
        name=name,
        kind=tarfile.REGTYPE if kind == tarfile.CONTTYPE else kind,
        link=text("linkpath", header.linkname),
        mode=header.mode & 0o7777,
        uid=uid,
        gid=gid,
        time=time,
        # A link may tell the size of what it links to, without having a body (POSIX: "shall be ignored").
        size=size if with_body else 0,
        attributes=attributes,
    )


def _records(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """The records of a pax header: `<length> <key>=<value>\\n`."""
    while raw:
        length, _, _ = raw.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(raw):
            raise TarError("an extended header is not valid")
        record, raw = raw[: int(length)], raw[int(length) :]
        key, separator, value = record[len(length) + 1 :].partition(b"=")
        if not separator or not value.endswith(b"\n"):
            raise TarError("an extended header is not valid")
        yield key.decode("utf-8", "surrogateescape"), value[:-1]
