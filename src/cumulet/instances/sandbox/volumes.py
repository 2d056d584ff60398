"""A group's volumes.

A volume's folder is named by the volume's number. A mounted path is opened beneath that folder and mounted by its
descriptor, so that it ends within the volume.
"""

from __future__ import annotations

import base64
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path

from cumulet.instances.model.amounts import memory_limit
from cumulet.instances.model.properties import Container, GroupProperties, Mount, Volume
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.atomic_writer import File, replace_files
from cumulet.instances.sandbox.disks import DiskFolders
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.file_shares import FileShares
from cumulet.instances.sandbox.mounts import Bind, attach, clone, mount_tmpfs, unmount
from cumulet.instances.sandbox.ownership import READ, give_folder, give_tree, is_given

#: Modes of an emptyDir on disk, and of a file system in memory, as in a kubelet.
_OPEN, _STICKY = 0o777, 0o1777
_FILE_MODE = 0o644


class Volumes:
    """Empty folders on disk or in memory, secrets, which are in memory only, file shares and managed disks.

    `folder` is the group's own. `before` is the one of earlier versions, where names of volumes name folders.
    """

    def __init__(
        self, folder: Path, group: GroupProperties, before: Path, shares: FileShares, disks: DiskFolders
    ) -> None:
        self._shares = shares
        self._disks = disks
        self._folder = folder / "volumes"
        self._before = before / "volumes"
        self._volumes = group.volumes
        #: The bytes of memory that the group can use.
        self.memory = memory_limit(group)
        context = group.security_context
        self._group = context.fs_group if context else None
        #: Whether a disk whose root is the group's is taken as it is.
        self._trusts_roots = context is not None and context.fs_group_change_policy == "OnRootMismatch"
        self._numbers = {volume.name: number for number, volume in enumerate(group.volumes)}
        #: Held by a thread that replaces files or mounts a path, which must not lead through a folder that is replaced.
        self._lock = threading.Lock()

    def make(self) -> None:
        """Create missing volumes. Raises `SandboxError`, `OSError`."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for volume in self._volumes:
            path = self._path(volume.name)
            if not path.exists():
                self._adopt(volume, path)
            path.mkdir(mode=0o755, exist_ok=True)
            if volume.secret is not None:
                if not path.is_mount():
                    mount_tmpfs(path, _STICKY)
                self._give(path, writable=False)
                self._write(volume)
            elif volume.empty_dir is not None:
                if volume.empty_dir.medium != "Memory":
                    path.chmod(_OPEN)
                elif not path.is_mount():
                    mount_tmpfs(path, _STICKY, min(volume.empty_dir.size or self.memory, self.memory))
                self._give(path, writable=True)
            elif volume.azure_disk is not None and not volume.azure_disk.read_only:
                self._give_disk(self._disks.path(volume.azure_disk.disk_uri))

    def repositories(self) -> list[tuple[Volume, Path]]:
        """Return the volumes whose repository is to be cloned, each with its mount point."""
        found = [(volume, self._path(volume.name)) for volume in self._volumes if volume.git_repo is not None]
        return [(volume, path) for volume, path in found if not path.is_mount()]

    def give_repository(self, path: Path) -> None:
        """Give a clone, which no container has mounted yet, to the group of the pod. Raises `OSError`."""
        if self._group is not None:
            give_tree(path, self._group)

    def replace(self, volumes: Sequence[Volume]) -> None:
        """Take over new content of the volumes, and write it where it differs, while containers run. Raises `OSError`."""
        self._volumes = [*volumes]
        for volume in volumes:
            if volume.secret is not None:
                self._write(volume)

    def _give(self, path: Path, *, writable: bool) -> None:
        """Give a volume to the group of the pod, if it has one."""
        if self._group is not None:
            give_folder(path, self._group, writable=writable)

    def _give_disk(self, path: Path) -> None:
        """Give a disk with all that is on it to the group of the pod, if it has one."""
        if self._group is not None and not (self._trusts_roots and is_given(path, self._group)):
            give_tree(path, self._group)

    def _write(self, volume: Volume) -> None:
        """Write the files of a secret volume, which belong to the group of its folder."""
        with self._lock:
            _write(self._path(volume.name), volume, 0 if self._group is None else READ)

    def on_disk(self) -> dict[str, Path]:
        """Return the folders of the emptyDirs on disk, by name."""
        found = [item for item in self._volumes if item.empty_dir is not None and item.empty_dir.medium != "Memory"]
        return {item.name: self._path(item.name) for item in found}

    def _path(self, name: str) -> Path:
        return self._folder / str(self._numbers[name])

    def _adopt(self, volume: Volume, path: Path) -> None:
        """Move the content of a volume that an earlier version made."""
        old = self._before / volume.name
        try:
            descriptor = beneath.open_folder(old)
        except FileNotFoundError:
            return
        try:
            if old.is_mount():
                path.mkdir(mode=0o755)
                attach(clone(descriptor), path)
                unmount(old)
            else:
                old.rename(path)
        finally:
            os.close(descriptor)

    def mount(self, container: Container, folder: Path) -> list[Bind]:
        """Mount a container's volumes in a trusted folder, each at its number; return the binds from there.

        The caller unmounts their sources when the container has been created. Raises `SandboxError`.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        volumes = {volume.name: volume for volume in self._volumes}
        binds = []
        for number, mount in enumerate(container.properties.volume_mounts):
            volume = volumes[mount.name]
            # What outlives the group.
            lasting = volume.azure_file or volume.azure_disk
            target = folder / str(number)
            with self._lock:
                self._mount(mount, volume, target)
            read_only = mount.read_only or volume.secret is not None or (lasting is not None and lasting.read_only)
            binds.append(Bind(target, mount.mount_path, read_only, is_kept=lasting is not None))
        return binds

    def _mount(self, mount: Mount, volume: Volume, target: Path) -> None:
        """Mount a path of a volume. Raises `SandboxError`."""
        try:
            source = self._open(mount, volume)
        except OSError as error:
            raise SandboxError(
                f"the subPath {mount.sub_path!r} of volume '{mount.name}' is not a folder or file of the volume: "
                f"{os.strerror(error.errno or 0)}"
            ) from None
        try:
            kind = stat.S_IFMT(os.fstat(source).st_mode)
            if kind == stat.S_IFDIR:
                target.mkdir()
            elif kind == stat.S_IFREG:
                target.touch()
            else:
                raise SandboxError(
                    f"the subPath {mount.sub_path!r} of volume '{mount.name}' is neither folder nor file"
                )
            attach(clone(source), target)
        finally:
            os.close(source)

    def _open(self, mount: Mount, volume: Volume) -> int:
        """Return a descriptor of the mounted path. A missing folder is created with the volume's mode, as in a kubelet."""
        root = self._open_root(volume)
        if mount.sub_path is None:
            return root
        parts = [part for part in mount.sub_path.split("/") if part not in ("", ".")]
        try:
            return beneath.open_or_make_beneath(root, parts, stat.S_IMODE(os.fstat(root).st_mode))
        finally:
            os.close(root)

    def _open_root(self, volume: Volume) -> int:
        if volume.azure_file is not None:
            return self._shares.open(volume.azure_file)
        if volume.azure_disk is not None:
            return self._disks.open(volume.azure_disk.disk_uri)
        return beneath.open_folder(self._path(volume.name))


def _write(path: Path, volume: Volume, mode: int) -> None:
    """Write the files of a secret volume, unless its file system in memory is not mounted: secrets are not on disk."""
    try:
        folder = beneath.open_folder(path)
    except FileNotFoundError:
        return
    try:
        if os.fstat(folder).st_dev != path.parent.stat().st_dev:
            replace_files(folder, _files(volume, mode))
    finally:
        os.close(folder)


def _files(volume: Volume, more: int) -> dict[str, File]:
    """Return the files of a secret volume by path: all, or those that `items` selects. `more` is added to their modes."""
    content = {key: base64.b64decode(text) for key, text in (volume.secret or {}).items()}
    mode = _FILE_MODE if volume.default_mode is None else volume.default_mode
    if volume.items is None:
        return {path: File(data, mode | more) for path, data in content.items()}
    return {
        item.path: File(content[item.key], (mode if item.mode is None else item.mode) | more) for item in volume.items
    }
