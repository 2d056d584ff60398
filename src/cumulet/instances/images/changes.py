"""Applies the entries of a layer to what is below it (OCI Image Specification 1.1, "Image Layer Filesystem Changeset").

The changes are written into a folder of the layer's own, with the whiteouts of overlayfs. A path is resolved within the
root: links are followed as in a container whose root it is, and every step on disk is one that is no link.

The layers below may not be known yet, because layers are unpacked at the same time. Then nothing is assumed to be below,
and `needs` records the places where it matters.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile

from cumulet.instances.images.below import (
    OPAQUE_ATTRIBUTE,
    PLAIN_MODE,
    Below,
    Found,
    copy_file,
    copy_status,
    is_opaque,
    is_whiteout,
    kept_attributes,
)
from cumulet.instances.images.budget import Budget, LayerError
from cumulet.instances.images.needs import Needs
from cumulet.instances.images.open_folders import FOLDER, OpenFolders
from cumulet.instances.images.paths import PlaceError, Walk, above, join, last, split
from cumulet.instances.images.status import set_folder_status, set_name_status, set_open_status
from cumulet.instances.images.tar import Archive, Entry

_OPAQUE = ".wh..wh..opq"
_WHITEOUT = ".wh."
#: The first part of paths with AUFS's own data, which are no files of the image.
_AUFS = ".wh..wh."
_CHUNK = 1024 * 1024
#: Places in the needs of a layer.
_PLACES = 4096
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Changes:
    """The changes of one layer, in the empty folder `root`. `below` is `None` while it is not known."""

    def __init__(self, root: int, below: Below | None, budget: Budget) -> None:
        self._root = root
        self._disk = OpenFolders(root)
        self._below = below
        self._budget = budget
        #: Folders that no entry mentions; a dictionary keeps their order.
        self._implied: dict[str, None] = {}
        #: Folders that are no longer such, through which entries were placed before.
        self._passed: dict[str, None] = {}
        self._hides: dict[str, None] = {}
        self._needs_all = False
        #: Files of layers below that were copied because the layer links to them.
        self._copied: set[str] = set()
        #: The number of device nodes that were left out, and the first of them.
        self.devices = 0
        self.first_device = ""

    @property
    def needs(self) -> Needs:
        """Where the changes depend on what is below; empty if that was known."""
        if self._below is not None:
            return Needs()
        if self._needs_all:
            return Needs(all=True)
        folders, passed, hides = (
            [os.fsencode(path) for path in found] for found in (self._implied, self._passed, self._hides)
        )
        return Needs(folders, passed, hides)

    def close(self) -> None:
        """Write the times of folders, and close them."""
        self._disk.close()

    def add(self, archive: Archive, entry: Entry) -> None:
        """Apply an entry, whose body is read from its archive. Raises `LayerError`, `TarError`, `OSError`."""
        self._budget.add_file()
        if self._needs_all and self._below is None:
            return  # the layer is unpacked again
        try:
            self._add(archive, entry)
        except (PlaceError, OSError):
            if self._below is not None or not (self._implied or self._passed):
                raise
            self._needs_all = True  # with what is below, the entry can be elsewhere

    def _add(self, archive: Archive, entry: Entry) -> None:
        parts = split(entry.name)
        if not parts:
            if entry.kind == tarfile.DIRTYPE:
                set_folder_status(self._disk.folder(""), entry)
            return
        name = parts[-1]
        if parts[0].startswith(_AUFS) and parts[0] != _OPAQUE:
            return
        path = "/".join([*self._enter(parts[:-1]), name])
        if name == _OPAQUE:
            self._make_opaque(above(path))
        elif name.startswith(_WHITEOUT):
            hidden = name.removeprefix(_WHITEOUT)
            if hidden in ("", ".", ".."):
                raise LayerError(f"the layer has a whiteout of nothing: {entry.name[:200]!r}")
            self._hide(join(above(path), hidden))
        else:
            self._make(archive, entry, path)

    # Paths.

    def _enter(self, parts: list[str]) -> list[str]:
        """Return the steps of a folder, none of which is a link; missing folders are made."""
        if self._disk.is_open("/".join(parts)):
            return parts
        walk = Walk(parts, self._budget)
        while (path := walk.next()) is not None:
            status = self._disk.status(path)
            if status is None:
                link = self._imply(path)
            elif stat.S_ISLNK(status.st_mode):
                link = os.readlink(path, dir_fd=self._root)
            elif stat.S_ISDIR(status.st_mode):
                link = None
            elif is_whiteout(status):
                # What was below is gone, so the folder is a new one.
                self._replace_by_folder(path)
                link = None
            else:
                raise PlaceError(f"the layer writes through {path[:200]!r}, which is not a folder")
            walk.go_on(link)
        return walk.done

    def _imply(self, path: str) -> str | None:
        """Make a folder that no entry mentions as it is below. If there is a link, return its target instead."""
        found = None
        if not self._is_hidden(path):
            found = self._below.find(path) if self._below else None
            if found is not None and found.is_link:
                return found.target
            self._remember(self._implied, path)
        self._budget.add_file()
        self._make_folder(path)
        if found is not None and found.is_folder:
            folder = self._disk.folder(path)
            copy_status(found, folder.descriptor)
            folder.time = found.status.st_mtime_ns
        return None

    def _find(self, parts: list[str]) -> tuple[str, Found | None] | None:
        """Return the path of a file within the root, with what is there if a layer below has it.

        The last part may be a link. Returns `None` if nothing is there.
        """
        walk = Walk(parts[:-1], self._budget)
        while (path := walk.next()) is not None:
            status, found = self._disk.status(path), None
            if status is None and (found := self._find_below(path)) is not None:
                status = found.status
            if status is None or stat.S_IFMT(status.st_mode) not in (stat.S_IFDIR, stat.S_IFLNK):
                return None
            link = None
            if stat.S_ISLNK(status.st_mode):
                link = found.target if found else os.readlink(path, dir_fd=self._root)
            walk.go_on(link)
        path = "/".join([*walk.done, parts[-1]])
        status = self._disk.status(path)
        if status is not None:
            return None if is_whiteout(status) else (path, None)
        found = self._find_below(path)
        return (path, found) if found else None

    def _find_below(self, path: str) -> Found | None:
        if self._is_hidden(path) or self._below is None:
            return None
        return self._below.find(path)

    def _is_hidden(self, path: str) -> bool:
        """Return whether the layer hides what is below at a path that it does not have itself."""
        while path:
            path = above(path)
            try:
                folder = os.open(path or ".", FOLDER, dir_fd=self._root)
            except FileNotFoundError:
                continue
            except NotADirectoryError:
                return True
            try:
                if is_opaque(folder):
                    return True
            finally:
                os.close(folder)
        return False

    def _mention(self, path: str) -> None:
        """Note that a folder no longer has the owner and mode of the one below."""
        if path in self._implied:
            del self._implied[path]
            self._remember(self._passed, path)

    def _remember(self, places: dict[str, None], path: str) -> None:
        if len(places) >= _PLACES:
            self._needs_all = True
        else:
            places[path] = None

    # Whiteouts.

    def _hide(self, path: str) -> None:
        """Hide what is below at a path, and keep what the layer itself has there."""
        status = self._disk.status(path)
        if status is None:
            if self._is_hidden(path) or (self._below is not None and self._below.find(path) is None):
                return
            os.mknod(last(path), stat.S_IFCHR, 0, dir_fd=self._disk.parent(path))
            self._remember(self._hides, above(path))
        elif path in self._copied:
            self._clear(path)
            self._hide(path)
        elif stat.S_ISDIR(status.st_mode):
            if self._has_files(path):
                self._make_opaque(path)
                if path in self._implied:
                    self._forget_below(path)
            else:
                self._clear(path)
                self._hide(path)

    def _has_files(self, path: str) -> bool:
        """Return whether entries made a folder of the layer, or anything in it that is no whiteout."""
        if path not in self._implied:
            return True
        with os.scandir(self._disk.folder(path).descriptor) as entries:
            found = [(item.name, item.stat(follow_symlinks=False)) for item in entries]
        self._budget.add_steps(len(found))
        return any(
            self._has_files(join(path, name)) if stat.S_ISDIR(status.st_mode) else not is_whiteout(status)
            for name, status in found
        )

    def _make_opaque(self, path: str) -> None:
        """Hide the content below of a folder of the layer."""
        os.setxattr(self._disk.folder(path).descriptor, OPAQUE_ATTRIBUTE, b"y")
        self._budget.add_steps(len(self._implied) + len(self._hides))
        beneath = f"{path}/" if path else ""
        for place in [item for item in self._implied if item.startswith(beneath) and item != path]:
            self._forget_below(place)
        for place in [item for item in self._hides if item == path or item.startswith(beneath)]:
            del self._hides[place]
            folder = self._disk.folder(place).descriptor
            with os.scandir(folder) as entries:
                hidden = [item.name for item in entries if is_whiteout(item.stat(follow_symlinks=False))]
            for name in hidden:
                os.unlink(name, dir_fd=folder)

    def _forget_below(self, path: str) -> None:
        """Make a folder that no entry mentions a new one: what was below is hidden."""
        self._mention(path)
        folder = self._disk.folder(path).descriptor
        for name in kept_attributes(f"/proc/self/fd/{folder}/."):
            os.removexattr(folder, name)
        os.fchown(folder, 0, 0)
        os.fchmod(folder, PLAIN_MODE)

    # Files.

    def _make(self, archive: Archive, entry: Entry, path: str) -> None:
        if entry.kind == tarfile.DIRTYPE:
            status = self._disk.status(path)
            if status is None:
                self._make_folder(path)
            elif not stat.S_ISDIR(status.st_mode):
                # The layer has a whiteout or a file of its own there, which hides what is below.
                self._replace_by_folder(path)
            self._mention(path)
            set_folder_status(self._disk.folder(path), entry)
        elif entry.kind == tarfile.REGTYPE:
            self._clear(path)
            self._write_file(archive, entry, path)
        elif entry.kind == tarfile.SYMTYPE:
            self._clear(path)
            folder, name = self._disk.parent(path), last(path)
            os.symlink(entry.link, name, dir_fd=folder)
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
            os.utime(name, ns=(entry.time, entry.time), dir_fd=folder, follow_symlinks=False)
        elif entry.kind == tarfile.LNKTYPE:
            self._link(entry, path)
        elif entry.kind == tarfile.FIFOTYPE:
            self._clear(path)
            os.mkfifo(last(path), 0o600, dir_fd=self._disk.parent(path))
            set_name_status(self._disk.parent(path), last(path), entry)
        else:
            # The runtime makes the allowed devices.
            self.devices += 1
            self.first_device = self.first_device or _shown(path)

    def _make_folder(self, path: str) -> None:
        folder = self._disk.parent(path)
        os.mkdir(last(path), PLAIN_MODE, dir_fd=folder)
        os.chown(last(path), 0, 0, dir_fd=folder)  # the group can be the one of the folder above
        os.chmod(last(path), PLAIN_MODE, dir_fd=folder)  # mkdir applied the umask

    def _replace_by_folder(self, path: str) -> None:
        os.unlink(last(path), dir_fd=self._disk.parent(path))
        self._make_folder(path)
        self._make_opaque(path)

    def _write_file(self, archive: Archive, entry: Entry, path: str) -> None:
        descriptor = os.open(last(path), _NEW_FILE, 0o600, dir_fd=self._disk.parent(path))
        try:
            if entry.regions is None:
                while chunk := archive.body(_CHUNK):
                    _write(descriptor, chunk)
            else:
                self._write_regions(archive, entry, descriptor)
            set_open_status(descriptor, entry)
        finally:
            os.close(descriptor)

    def _write_regions(self, archive: Archive, entry: Entry, descriptor: int) -> None:
        regions = entry.regions or []
        # A hole counts: whoever copies the file may write it.
        self._budget.add_bytes(entry.size - sum(region.length for region in regions))
        os.ftruncate(descriptor, entry.size)
        for offset, length in regions:
            os.lseek(descriptor, offset, os.SEEK_SET)
            left = length
            while left:
                chunk = archive.body(min(left, _CHUNK))
                if not chunk:
                    raise LayerError(f"the layer has less data of the sparse file {entry.name[:200]!r} than its map")
                _write(descriptor, chunk)
                left -= len(chunk)

    def _link(self, entry: Entry, path: str) -> None:
        parts = split(entry.link)
        if not parts:
            raise LayerError(f"the layer links to its root: {entry.name[:200]!r}")
        source = self._find(parts)
        if source is None:
            if self._below is None and not self._is_whited_out(parts):
                self._needs_all = True
                return
            raise PlaceError(f"the layer links {entry.name[:200]!r} to {entry.link[:200]!r}, which does not exist")
        target, found = source
        if target == path:
            raise PlaceError(f"the layer links {entry.name[:200]!r} to itself")
        if found is not None:
            # All names of the file change with this layer, and the file below must not.
            self._enter(split(above(target)))
            self._budget.add_bytes(found.status.st_size)
            copy_file(found, self._disk.parent(target), last(target))
            self._copied.add(target)
        self._clear(path)
        os.link(target, last(path), src_dir_fd=self._root, dst_dir_fd=self._disk.parent(path), follow_symlinks=False)
        set_name_status(self._disk.parent(path), last(path), entry)

    def _is_whited_out(self, parts: list[str]) -> bool:
        status = self._disk.status("/".join(parts))
        return status is not None and is_whiteout(status)

    def _clear(self, path: str) -> None:
        """Remove what the layer has at a path."""
        status = self._disk.status(path)
        if status is None:
            return
        folder, name = self._disk.parent(path), last(path)
        self._copied.discard(path)
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(name, dir_fd=folder)
            return
        self._budget.add_steps(len(self._implied) + len(self._hides))
        beneath = f"{path}/"
        self._disk.forget(path)
        for place in [item for item in self._implied if item == path or item.startswith(beneath)]:
            self._mention(place)
        for place in [item for item in self._hides if item == path or item.startswith(beneath)]:
            del self._hides[place]
        shutil.rmtree(name, dir_fd=folder)


def _shown(path: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in path[:200])


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
