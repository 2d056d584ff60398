"""Unpacking layers (OCI Image Specification 1.1, "Image Layer Filesystem Changeset") where nothing can get out.

Every step of a path is opened beneath the layer's root without following links, so that no name, no link and no order
of entries reaches outside. Whiteouts become overlayfs's own. Devices are left out: the runtime makes those that are
allowed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cumulet.instances.tar import Archive, Entry, TarError

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
_CHUNK = 1024 * 1024
_FILES = 1_000_000
#: Folders in one another; whoever removes a tree may do so by recursion.
_DEPTH = 255
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class LayerError(Exception):
    """The archive is not one, or wants what no layer may."""


class _Inflated:
    """The bytes of a tar archive, decompressed piece by piece, counted, with their digest (the `diff_id`)."""

    def __init__(self, source: Callable[[], bytes], limit: int) -> None:
        self._source = source
        self._left = limit
        self._raw = source()
        while 0 < len(self._raw) < len(_ZSTD) and (more := source()):
            self._raw += more
        if self._raw.startswith(_ZSTD):
            raise LayerError("zstd layers are not supported")
        self._inflate = zlib.decompressobj(wbits=31) if self._raw.startswith(_GZIP) else None
        self._buffer = memoryview(b"")
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, fewer only at the end."""
        if size <= len(self._buffer):
            found, self._buffer = self._buffer[:size], self._buffer[size:]
            return bytes(found)
        parts: list[memoryview] = []
        while size:
            if not self._buffer:
                self._buffer = memoryview(self._next())
                if not self._buffer:
                    break
            part, self._buffer = self._buffer[:size], self._buffer[size:]
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _next(self) -> bytes:
        found = b""
        while not found:
            if not self._raw:
                self._raw = self._source()
                if not self._raw:
                    if self._inflate is not None and not self._inflate.eof:
                        raise LayerError("the layer ends in the middle")
                    return b""
            found = self._piece()
        self._left -= len(found)
        if self._left < 0:
            raise LayerError("the layer is larger than an image may be")
        self.digest.update(found)
        return found

    def _piece(self) -> bytes:
        if self._inflate is None:
            found, self._raw = self._raw, b""
            return found
        if self._inflate.eof:  # gzip members may follow one another
            self._inflate = zlib.decompressobj(wbits=31)
        # A piece of a thousand times the size of what is read is a bomb's: it is taken bit by bit.
        found = self._inflate.decompress(self._raw, _CHUNK)
        self._raw = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
        return found


def unpack(source: Callable[[], bytes], root: Path, diff_id: str | None, limit: int) -> None:
    """Unpack a layer into `root`, which must be empty, and check its `diff_id`. Raises `LayerError`.

    `source` gives the next piece of the archive, as it is or gzipped, and nothing at its end; `limit` is the most
    bytes that it may unpack to.
    """
    anchor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        stream = _Inflated(source, limit)
        archive = Archive(stream.read)
        for count, entry in enumerate(archive):
            if count >= _FILES:
                raise LayerError(f"the layer has more than {_FILES} files")
            _place(archive, entry, anchor)
        while stream.read(_CHUNK):
            pass  # what is behind the last entry belongs to the digest too
    except (TarError, zlib.error, OSError, OverflowError, ValueError) as error:
        raise LayerError(f"the layer cannot be unpacked: {error}") from error
    finally:
        os.close(anchor)
    found = f"sha256:{stream.digest.hexdigest()}"
    if diff_id is not None and found != diff_id:
        raise LayerError(f"the layer unpacks to {found}, and the image says {diff_id}")


def _place(archive: Archive, entry: Entry, anchor: int) -> None:
    parts = _parts(entry.name)
    if not parts:
        if entry.kind == tarfile.DIRTYPE:
            os.fchmod(anchor, entry.mode)
        return
    with _parent(anchor, parts[:-1]) as parent:
        name = parts[-1]
        if name == _OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
        elif name.startswith(_WHITEOUT):
            target = name.removeprefix(_WHITEOUT)
            if target in ("", ".", ".."):
                raise LayerError(f"the layer has a whiteout of nothing: {entry.name!r}")
            _clear(parent, target)
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        else:
            _make(archive, entry, anchor, parent, name)


def _parts(path: str) -> list[str]:
    """The steps of a path beneath the root."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerError(f"the layer has a path outside its root: {path!r}")
    if len(parts) > _DEPTH:
        raise LayerError(f"the layer has folders more than {_DEPTH} deep")
    return parts


@contextlib.contextmanager
def _parent(anchor: int, parts: list[str]) -> Iterator[int]:
    """The folder of an entry, made where it is missing; a link on the way is not followed."""
    current = os.dup(anchor)
    try:
        for part in parts:
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            except FileNotFoundError:
                os.mkdir(part, 0o755, dir_fd=current)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            except OSError as error:
                raise LayerError(f"the layer writes through {part!r}, which is not a folder") from error
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make(archive: Archive, entry: Entry, anchor: int, parent: int, name: str) -> None:
    kind = entry.kind
    if kind == tarfile.DIRTYPE:
        _make_folder(parent, name)
    elif kind == tarfile.REGTYPE:
        _clear(parent, name)
        _write_file(archive, parent, name)
    elif kind == tarfile.SYMTYPE:
        _clear(parent, name)
        os.symlink(entry.link, name, dir_fd=parent)
    elif kind == tarfile.LNKTYPE:
        _hard_link(entry, anchor, parent, name)
        return
    elif kind == tarfile.FIFOTYPE:
        _clear(parent, name)
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        return
    os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
    if kind != tarfile.SYMTYPE:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        try:
            os.fchmod(descriptor, entry.mode)  # after the owner, whose change takes the setuid bit away
            _set_attributes(descriptor, entry)
        finally:
            os.close(descriptor)
    os.utime(name, (entry.time, entry.time), dir_fd=parent, follow_symlinks=False)


def _make_folder(parent: int, name: str) -> None:
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o755, dir_fd=parent)


def _write_file(archive: Archive, parent: int, name: str) -> None:
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
    try:
        while chunk := archive.body(_CHUNK):
            os.write(descriptor, chunk)
    finally:
        os.close(descriptor)


def _hard_link(entry: Entry, anchor: int, parent: int, name: str) -> None:
    parts = _parts(entry.link)
    if not parts:
        raise LayerError(f"the layer links to its root: {entry.name!r}")
    with _parent(anchor, parts[:-1]) as source:
        if os.path.samestat(os.fstat(source), os.fstat(parent)) and parts[-1] == name:
            raise LayerError(f"the layer links {entry.name!r} to itself")
        _clear(parent, name)
        os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def _set_attributes(descriptor: int, entry: Entry) -> None:
    for key, value in entry.attributes.items():
        # Only what a program needs to run with; `trusted` would be an order to overlayfs.
        if key == "security.capability" or key.startswith("user."):
            os.setxattr(descriptor, key, value)


def _clear(parent: int, name: str) -> None:
    """An entry replaces what an earlier one of that name made."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise LayerError(f"the layer replaces its own folder {name!r}")
    os.unlink(name, dir_fd=parent)
