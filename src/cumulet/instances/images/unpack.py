"""Unpacks untrusted layers (OCI Image Specification 1.1, "Image Layer Filesystem Changeset").

Every step of a path is opened beneath the layer's root without following links, so that no name, link or order of entries
reaches outside. Whiteouts become those of overlayfs. Devices are skipped: the runtime creates the allowed ones.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tarfile
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from cumulet.common import digests
from cumulet.common.digests import Digest
from cumulet.instances.images.tar import Archive, Entry, TarError

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
_CHUNK = 1024 * 1024
#: Files and folders of an image, and steps of the paths to them.
_FILES = 500_000
_STEPS = 10_000_000
#: Members of a gzip stream, which some tools write for each file, and empty members.
_MEMBERS, _EMPTY_MEMBERS = 1_000_000, 1000
#: Bytes of the first piece that a new gzip member gets; each further piece is twice as large.
_FIRST_PIECE = 512
#: Nested folders, because a tree may be removed by recursion.
_DEPTH = 255
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class LayerError(Exception):
    """The layer is not valid or exceeds a limit."""


class Budget:
    """The limits of all layers of an image together. The methods raise `LayerError` above a limit."""

    def __init__(self, limit: int, files: int = _FILES) -> None:
        self._lock = threading.Lock()
        self._limit = limit
        self._most_files = files
        self._bytes = self._files = self._steps = 0

    def add_bytes(self, count: int) -> None:
        """Count unpacked bytes."""
        with self._lock:
            self._bytes += count
        if self._bytes > self._limit:
            raise LayerError(f"the image unpacks to more than {self._limit} bytes")

    def add_file(self) -> None:
        """Count a file or folder."""
        with self._lock:
            self._files += 1
        if self._files > self._most_files:
            raise LayerError(f"the image has more than {self._most_files} files and folders")

    def add_steps(self, count: int) -> None:
        """Count the steps of a path."""
        with self._lock:
            self._steps += count
        if self._steps > _STEPS:
            raise LayerError(f"the paths of the image have more than {_STEPS} steps")


class _Inflated:
    """A tar archive, decompressed in pieces, with its size and digest (the `diff_id`)."""

    def __init__(self, source: Callable[[], bytes], algorithm: str, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        raw = source()
        while 0 < len(raw) < len(_ZSTD) and (more := source()):
            raw += more
        if raw.startswith(_ZSTD):
            raise LayerError("zstd layers are not supported")
        self._raw = memoryview(raw)
        self._inflate = zlib.decompressobj(wbits=31) if raw.startswith(_GZIP) else None
        self._piece = _FIRST_PIECE
        self._members = self._empty_members = 0
        self._member_is_empty = True
        self._buffer = memoryview(b"")
        self._size = 0
        self._digest = hashlib.new(algorithm)

    @property
    def size(self) -> int:
        """The number of unpacked bytes."""
        return self._size

    def digest(self) -> Digest:
        """Return the digest of the unpacked bytes."""
        return Digest(f"{self._digest.name}:{self._digest.hexdigest()}")

    def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, fewer only at the end."""
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

    def _next(self) -> bytes | memoryview:
        found: bytes | memoryview = b""
        while not found:
            if not self._raw:
                self._raw = memoryview(self._source())
                if not self._raw:
                    if self._inflate is not None and not self._inflate.eof:
                        raise LayerError("the layer ends in the middle")
                    return b""
            if self._inflate is None:
                found, self._raw = self._raw, memoryview(b"")
            else:
                found = self._inflated(self._inflate)
        self._budget.add_bytes(len(found))
        self._size += len(found)
        self._digest.update(found)
        return found

    def _inflated(self, inflate: zlib._Decompress) -> bytes:
        """Decompress the next piece, to at most `_CHUNK` bytes: the ratio can be a thousand.

        zlib copies the input behind the end of a member. Members can have a few bytes, so a new one gets a small piece, and
        then larger ones. That bounds the copies to a few times the input.
        """
        if inflate.eof:
            inflate = self._inflate = self._next_member()
        piece = self._raw[: self._piece]
        found = inflate.decompress(piece, _CHUNK)
        self._raw = self._raw[len(piece) - len(inflate.unconsumed_tail) - len(inflate.unused_data) :]
        self._piece = min(2 * self._piece, _CHUNK)
        self._member_is_empty = self._member_is_empty and not found
        return found

    def _next_member(self) -> zlib._Decompress:
        self._members += 1
        self._empty_members += self._member_is_empty
        if self._members > _MEMBERS or self._empty_members > _EMPTY_MEMBERS:
            raise LayerError("the layer has too many gzip members")
        self._member_is_empty = True
        self._piece = _FIRST_PIECE
        return zlib.decompressobj(wbits=31)


def unpack(source: Callable[[], bytes], root: Path, diff_id: Digest, budget: Budget) -> int:
    """Unpack a layer into the empty folder `root`, verify its `diff_id`, and return its bytes. Raises `LayerError`.

    `source` returns the next piece of the archive, plain or gzipped, and nothing at its end.
    """
    anchor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        stream = _Inflated(source, digests.algorithm(diff_id), budget)
        archive = Archive(stream.read)
        for entry in archive:
            _place(archive, entry, anchor, budget)
        while stream.read(_CHUNK):
            pass  # the digest includes what follows the last entry
    except (TarError, zlib.error, OSError, OverflowError, ValueError) as error:
        raise LayerError(f"the layer cannot be unpacked: {error}") from error
    finally:
        os.close(anchor)
    if stream.digest() != diff_id:
        raise LayerError(f"the layer unpacks to {stream.digest()}, but the image's configuration has {diff_id}")
    return stream.size


def _place(archive: Archive, entry: Entry, anchor: int, budget: Budget) -> None:
    parts = _parts(entry.name)
    budget.add_file()
    if not parts:
        if entry.kind == tarfile.DIRTYPE:
            os.fchmod(anchor, entry.mode)
        return
    with _parent(anchor, parts[:-1], budget) as parent:
        name = parts[-1]
        if name == _OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
        elif name.startswith(_WHITEOUT):
            target = name.removeprefix(_WHITEOUT)
            if target in ("", ".", ".."):
                raise LayerError(f"the layer has a whiteout of nothing: {entry.name[:200]!r}")
            _clear(parent, target)
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        else:
            _make(archive, entry, anchor, parent, name, budget)


def _parts(path: str) -> list[str]:
    """Return the steps of a path beneath the root. Raises `LayerError`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerError(f"the layer has a path outside its root: {path[:200]!r}")
    if len(parts) > _DEPTH:
        raise LayerError(f"the layer has folders more than {_DEPTH} deep")
    return parts


@contextlib.contextmanager
def _parent(anchor: int, parts: list[str], budget: Budget) -> Iterator[int]:
    """Yield a descriptor of an entry's folder, which is created if missing; links are not followed."""
    budget.add_steps(len(parts))
    current = os.dup(anchor)
    try:
        for part in parts:
            try:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            except FileNotFoundError:
                budget.add_file()
                os.mkdir(part, 0o755, dir_fd=current)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=current)
            except OSError as error:
                raise LayerError(f"the layer writes through {part[:200]!r}, which is not a folder") from error
            os.close(current)
            current = below
        yield current
    finally:
        os.close(current)


def _make(archive: Archive, entry: Entry, anchor: int, parent: int, name: str, budget: Budget) -> None:
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
        _hard_link(entry, anchor, parent, name, budget)
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
            os.fchmod(descriptor, entry.mode)  # after chown, which clears the setuid bit
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


def _hard_link(entry: Entry, anchor: int, parent: int, name: str, budget: Budget) -> None:
    parts = _parts(entry.link)
    if not parts:
        raise LayerError(f"the layer links to its root: {entry.name[:200]!r}")
    with _parent(anchor, parts[:-1], budget) as source:
        if os.path.samestat(os.fstat(source), os.fstat(parent)) and parts[-1] == name:
            raise LayerError(f"the layer links {entry.name[:200]!r} to itself")
        _clear(parent, name)
        os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def _set_attributes(descriptor: int, entry: Entry) -> None:
    for key, value in entry.attributes.items():
        # Only attributes that programs use: overlayfs interprets those in `trusted`.
        if key == "security.capability" or key.startswith("user."):
            os.setxattr(descriptor, key, value)


def _clear(parent: int, name: str) -> None:
    """Remove the file of an earlier entry of that name. Raises `LayerError` for a folder."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise LayerError(f"the layer replaces its own folder {name!r}")
    os.unlink(name, dir_fd=parent)
