"""Reads untrusted tar archives as streams: POSIX.1-2017 pax and ustar, GNU, star and Unix V7 headers.

The standard library's reader trusts the sizes in extended headers, and takes GNU's times for a part of the name. Here,
extended headers and maps of sparse files are bounded, so that time and memory grow only with the length of the archive.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

from cumulet.instances.images import sparse
from cumulet.instances.images.numbers import TarError, header_number
from cumulet.instances.images.sparse import Region, Sparse

_BLOCK = 512
#: Bytes of the extended headers of one entry, and of a whole archive.
_HEADER_LIMIT = 1024 * 1024
_HEADERS_LIMIT = 256 * 1024 * 1024
#: Records of one extended header, and bytes of an entry's attributes: Linux's limit for one attribute.
_RECORDS = 20_000
_ATTRIBUTES_LIMIT = 64 * 1024
_PAX, _PAX_GLOBAL, _PAX_SOLARIS = b"x", b"g", b"X"
#: GNU: a folder with a list of its files, and the label of a volume.
_GNU_FOLDER, _GNU_LABEL = b"D", b"V"
_ATTRIBUTE = "SCHILY.xattr."
#: Keys that a global header must not set.
_OF_ONE_ENTRY = ("path", "linkpath", "size", sparse.PREFIX, _ATTRIBUTE)
#: Keys of a global header that are used; others, such as a comment, do not concern files.
_OF_EVERY_ENTRY = ("uid", "gid", "mtime")
_WITH_BODY = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE)
_WITHOUT_BODY = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_INTEGER = re.compile(rb"[0-9]{1,20}")
_TIME = re.compile(rb"(-?)([0-9]{1,20})(?:\.([0-9]{0,20}))?")
#: The last user and group id; the next one means "unchanged" to chown(2).
_LAST_ID = 2**32 - 2
#: Seconds, before or after 1970, that are kept. File systems have less.
_LAST_TIME = 2**40

Read = Callable[[int], bytes]


class Entry(NamedTuple):
    """One entry. `kind` is its type flag (`tarfile.REGTYPE`, …), `time` is in nanoseconds since 1970, `size` in bytes.

    `regions` are those of a sparse file, whose body has these bytes only.
    """

    name: str
    kind: bytes
    link: str
    mode: int
    uid: int
    gid: int
    time: int
    size: int
    attributes: dict[str, bytes]
    regions: list[Region] | None = None


class _Header(NamedTuple):
    kind: bytes
    name: bytes
    link: bytes
    mode: int
    uid: int
    gid: int
    size: int
    seconds: int
    block: bytes


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
            kind = header.kind
            if kind == _PAX_GLOBAL:
                common |= _of_all(_records(self._extension(header, before)))
            elif kind in (_PAX, _PAX_SOLARIS):
                extended |= _records(self._extension(header, before))
            elif kind == tarfile.GNUTYPE_LONGNAME:
                extended["path"] = self._extension(header, before).rstrip(b"\0")
            elif kind == tarfile.GNUTYPE_LONGLINK:
                extended["linkpath"] = self._extension(header, before).rstrip(b"\0")
            else:
                if entry := self._entry(header, _without_empty(common | extended)):
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

    def _header(self) -> _Header | None:
        while self.body(_BLOCK * 128):
            pass  # skip the rest of the body
        self._read(self._padding)
        self._padding = 0
        block = self._read(_BLOCK)
        if not block or not block.strip(b"\0"):
            return None
        return _parse(block)

    def _extension(self, header: _Header, before: int) -> bytes:
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

    def _entry(self, header: _Header, extended: dict[str, bytes]) -> Entry | None:
        """Return an entry, whose body is read next; `None` for one that is no file."""
        name, link = extended.get("path", header.name), extended.get("linkpath", header.link)
        shown = name.decode(errors="replace")[:200]

        def number(key: str, default: int, last: int) -> int:
            value = _integer(key, extended[key]) if key in extended else default
            if not 0 <= value <= last:
                raise TarError(f"the entry {shown!r} has the {key} {value}, which is out of range")
            return value

        size = number("size", header.size, 2**63 - 1)
        kind = header.kind
        self._begin(size if kind not in _WITHOUT_BODY else 0)
        if kind == _GNU_LABEL:
            return None
        if kind not in (*_WITH_BODY, *_WITHOUT_BODY, _GNU_FOLDER):
            raise TarError(f"the entry {shown!r} is of the type {kind!r}, which is not supported")
        map_ = self._sparse(header, extended) if kind in _WITH_BODY else None
        if map_ is not None:
            name = sparse.name_of(extended) or name
        if kind == tarfile.AREGTYPE:
            kind = tarfile.DIRTYPE if name.endswith(b"/") else tarfile.REGTYPE
        elif kind in _WITH_BODY:
            kind = tarfile.REGTYPE
        elif kind == _GNU_FOLDER:
            kind = tarfile.DIRTYPE
        return Entry(
            name=name.decode("utf-8", "surrogateescape"),
            kind=kind,
            link=link.decode("utf-8", "surrogateescape"),
            mode=header.mode & 0o7777,
            uid=number("uid", header.uid, _LAST_ID),
            gid=number("gid", header.gid, _LAST_ID),
            time=_nanoseconds(extended.get("mtime"), header.seconds),
            # A link can have the size of its target, but has no body (POSIX: "shall be ignored").
            size=(size if map_ is None else map_.size) if kind == tarfile.REGTYPE else 0,
            attributes=_attributes(extended, shown),
            regions=map_ and map_.regions,
        )

    def _sparse(self, header: _Header, extended: dict[str, bytes]) -> Sparse | None:
        if header.kind == tarfile.GNUTYPE_SPARSE:
            return sparse.from_header(header.block, self._read)
        if sparse.is_sparse(extended):
            return sparse.from_records(extended, self.body)
        return None


def _parse(block: bytes) -> _Header:
    if len(block) < _BLOCK:
        raise TarError("the archive is not valid: it ends within a header")
    expected = header_number(block[148:156], "checksum")
    blank = block[:148] + b" " * 8 + block[156:]
    # Old programs added signed bytes.
    if expected not in (sum(blank), sum(blank) - 256 * sum(byte > 127 for byte in blank)):
        raise TarError("the archive is not valid: a header has a wrong checksum")
    size = header_number(block[124:136], "size")
    if size < 0:
        raise TarError("an entry has a negative size")
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        # star keeps times behind a shorter prefix. GNU, whose magic is another, keeps them in place of the prefix.
        prefix = block[345 : 476 if block[508:512] == b"tar\0" else 500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return _Header(
        kind=block[156:157],
        name=name,
        link=block[157:257].partition(b"\0")[0],
        mode=header_number(block[100:108], "mode"),
        uid=header_number(block[108:116], "uid"),
        gid=header_number(block[116:124], "gid"),
        size=size,
        seconds=header_number(block[136:148], "mtime"),
        block=block,
    )


def _attributes(extended: dict[str, bytes], shown: str) -> dict[str, bytes]:
    attributes = {
        key.removeprefix(_ATTRIBUTE): value for key, value in extended.items() if key.startswith(_ATTRIBUTE)
    }
    if sum(len(key) + len(value) for key, value in attributes.items()) > _ATTRIBUTES_LIMIT:
        raise TarError(f"the entry {shown!r} has more than {_ATTRIBUTES_LIMIT} bytes of extended attributes")
    return attributes


def _integer(key: str, value: bytes) -> int:
    if not _INTEGER.fullmatch(value):
        raise TarError(f"the {key} {value[:40]!r} of an extended header is not a number")
    return int(value)


def _nanoseconds(text: bytes | None, seconds: int) -> int:
    """Return the time of an extended header, or else of a header."""
    fraction = 0
    if text is not None:
        if not (found := _TIME.fullmatch(text)):
            raise TarError(f"the mtime {text[:40]!r} of an extended header is not a number")
        sign = -1 if found[1] else 1
        seconds, fraction = sign * int(found[2]), sign * int((found[3] or b"")[:9].ljust(9, b"0"))
    return max(-_LAST_TIME, min(seconds, _LAST_TIME)) * 10**9 + fraction


def _without_empty(records: dict[str, bytes]) -> dict[str, bytes]:
    """Return the records without those that have no value, in whose place the header's counts (POSIX, "pax Header Block")."""
    return {key: value for key, value in records.items() if value or key.startswith(_ATTRIBUTE)}


def _of_all(records: dict[str, bytes]) -> dict[str, bytes]:
    """Return the values that a global header sets for all later entries."""
    for key in records:
        if key.startswith(_OF_ONE_ENTRY):
            raise TarError(f"the archive sets {key[:100]!r} for all its entries, which is not supported")
    return {key: value for key, value in records.items() if key in _OF_EVERY_ENTRY}


def _records(raw: bytes) -> dict[str, bytes]:
    """Parse the records of a pax header: `<length> <key>=<value>\\n`."""
    records: dict[str, bytes] = {}
    repeated: list[bytes] = []
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
        name = key.decode("utf-8", "surrogateescape")
        if name in sparse.REPEATED:
            repeated.append(value[:-1])
        else:
            records[name] = value[:-1]
        start = end
    if repeated:
        records[sparse.MAP] = b",".join(repeated)
    return records
