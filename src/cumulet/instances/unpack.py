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
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
_CHUNK = 1024 * 1024
_FILES = 1_000_000
_XATTR = "SCHILY.xattr."


class LayerError(Exception):
    """The archive is not one, or wants what no layer may."""


class _Verified:
    """The bytes of a tar archive, decompressed and counted, with their digest (the `diff_id`)."""

    def __init__(self, file: IO[bytes], limit: int) -> None:
        self._file = file
        self._left = limit
        self._buffer = b""
        magic = file.read(4)
        file.seek(0)
        if magic.startswith(b"\x28\xb5\x2f\xfd"):
            raise LayerError("zstd layers are not supported")
        self._inflate = zlib.decompressobj(wbits=31) if magic.startswith(b"\x1f\x8b") else None
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """At most `size` bytes."""
        while not self._buffer:
            raw = self._file.read(_CHUNK)
            if not raw:
                return b""
            self._take(raw)
        wanted = len(self._buffer) if size < 0 else size
        found, self._buffer = self._buffer[:wanted], self._buffer[wanted:]
        return found

    def _take(self, raw: bytes) -> None:
        found = raw
        if self._inflate is not None:
            found = b""
            while raw:
                found += self._inflate.decompress(raw)
                raw = self._inflate.unused_data
                if self._inflate.eof and raw:
                    self._inflate = zlib.decompressobj(wbits=31)  # gzip members may follow one another
                else:
                    break
        self._left -= len(found)
        if self._left < 0:
            raise LayerError("the layer is larger than an image may be")
        self.digest.update(found)
        self._buffer += found


def unpack(archive: Path, root: Path, diff_id: str | None, limit: int) -> None:
    """Unpack a layer into `root`, which must be empty, and check its `diff_id`. Raises `LayerError`."""
    with archive.open("rb") as file:
        stream = _Verified(file, limit)
        anchor = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                for count, member in enumerate(tar):
                    if count > _FILES:
                        raise LayerError("the layer has too many files")
                    _entry(tar, member, anchor)
            while stream.read(_CHUNK):
                pass  # what is behind the last entry belongs to the digest too
        except (tarfile.TarError, zlib.error, OSError, UnicodeError) as error:
            raise LayerError(f"the layer cannot be unpacked: {error}") from error
        finally:
            os.close(anchor)
    found = f"sha256:{stream.digest.hexdigest()}"
    if diff_id is not None and found != diff_id:
        raise LayerError(f"the layer unpacks to {found}, and the image says {diff_id}")


def _entry(tar: tarfile.TarFile, member: tarfile.TarInfo, anchor: int) -> None:
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if ".." in parts or any("\0" in part for part in parts):
        raise LayerError(f"the layer has an entry outside its root: {member.name!r}")
    if not parts:
        if member.isdir():
            os.fchmod(anchor, member.mode & 0o7777)
        return
    with _parent(anchor, parts[:-1]) as parent:
        name = parts[-1]
        if name == _OPAQUE:
            os.setxattr(parent, "trusted.overlay.opaque", b"y")
        elif name.startswith(_WHITEOUT):
            target = name.removeprefix(_WHITEOUT)
            if target in ("", ".", ".."):
                raise LayerError(f"the layer has a whiteout of nothing: {member.name!r}")
            _clear(parent, target)
            os.mknod(target, stat.S_IFCHR, 0, dir_fd=parent)
        else:
            _make(tar, member, anchor, parent, name)


@contextlib.contextmanager
def _parent(anchor: int, parts: list[str]) -> Iterator[int]:
    """The folder of an entry, made where it is missing; a link on the way is not followed but replaced."""
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


def _make(tar: tarfile.TarFile, member: tarfile.TarInfo, anchor: int, parent: int, name: str) -> None:
    mode = member.mode & 0o7777
    if member.isdir():
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o755, dir_fd=parent)
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            _clear(parent, name)
            os.mkdir(name, 0o755, dir_fd=parent)
    elif member.isreg():
        _clear(parent, name)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with os.fdopen(descriptor, "wb") as file:
            source: Any = tar.extractfile(member)
            while chunk := source.read(_CHUNK):
                file.write(chunk)
    elif member.issym():
        _clear(parent, name)
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        _clear(parent, name)
        _hard_link(member, anchor, parent, name)
        return
    elif member.isfifo():
        _clear(parent, name)
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        return
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    if not member.issym():
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
        try:
            os.fchmod(descriptor, mode)
            _attributes(descriptor, member)
        finally:
            os.close(descriptor)
    os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def _hard_link(member: tarfile.TarInfo, anchor: int, parent: int, name: str) -> None:
    parts = [part for part in member.linkname.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise LayerError(f"the layer links outside its root: {member.linkname!r}")
    with _parent(anchor, parts[:-1]) as source:
        os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)


def _attributes(descriptor: int, member: tarfile.TarInfo) -> None:
    for key, value in member.pax_headers.items():
        # Only what a program needs to run with; `trusted` would be an order to overlayfs.
        if key in (f"{_XATTR}security.capability",) or key.startswith(f"{_XATTR}user."):
            os.setxattr(descriptor, key.removeprefix(_XATTR), value.encode("utf-8", "surrogateescape"))


def _clear(parent: int, name: str) -> None:
    """An entry replaces what an earlier one of that name made."""
    try:
        found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(found.st_mode):
        raise LayerError(f"the layer replaces its own folder {name!r}")
    os.unlink(name, dir_fd=parent)
