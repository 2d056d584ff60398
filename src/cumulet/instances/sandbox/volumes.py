"""A group's volumes, and the three files that every container has of its group: hosts, hostname, resolv.conf.

A volume's folder has the volume's number as its name. What a container mounts is opened beneath that folder and
mounted by its descriptor, so that a path within a volume ends within the volume.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

from cumulet.instances.model.properties import Container, DnsConfig, GroupProperties, Mount, Volume
from cumulet.instances.sandbox import beneath
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import attach, clone, mount_tmpfs, unmount

#: (source on this machine, path in the container, read only).
Bind = tuple[Path, str, bool]

_OPEN = 0o777


class Volumes:
    """Empty folders on disk or in memory; secrets in memory only.

    `folder` is for nothing else. `before` is where an earlier version kept volumes, by their names.
    """

    def __init__(self, folder: Path, group: GroupProperties, before: Path) -> None:
        self._folder = folder / "volumes"
        self._files = folder / "files"
        self._before = before / "volumes"
        self._volumes = group.volumes
        self._numbers = {volume.name: number for number, volume in enumerate(group.volumes)}

    def make(self) -> None:
        """Make those that are not there. Raises `SandboxError`, `OSError`."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for volume in self._volumes:
            path = self._path(volume.name)
            if not path.exists():
                self._take_over(volume, path)
            path.mkdir(mode=0o755, exist_ok=True)
            if volume.secret is not None:
                if not path.is_mount():
                    mount_tmpfs(path)
                _write(path, volume.secret, volume.default_mode)
            elif volume.empty_dir is not None:
                if volume.empty_dir.medium == "Memory" and not path.is_mount():
                    mount_tmpfs(path, mode=_OPEN)
                path.chmod(_OPEN)

    def _path(self, name: str) -> Path:
        return self._folder / str(self._numbers[name])

    def _take_over(self, volume: Volume, path: Path) -> None:
        """Keep what an earlier version's containers have put in a volume."""
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
        """Mount a container's volumes in a folder of ours, each at its number; what to bind from there.

        The binds' sources are to be unmounted once the container has them. Raises `SandboxError`.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        secrets = {volume.name for volume in self._volumes if volume.secret is not None}
        found = []
        for number, mount in enumerate(container.properties.volume_mounts):
            target = folder / str(number)
            try:
                source = self._open(mount)
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
            found.append((target, mount.mount_path, mount.read_only or mount.name in secrets))
        return found

    def _open(self, mount: Mount) -> int:
        """A descriptor of what is mounted. A folder that is not there is made as open as its volume, as a kubelet does."""
        volume = beneath.open_folder(self._path(mount.name))
        if mount.sub_path is None:
            return volume
        parts = [part for part in mount.sub_path.split("/") if part not in ("", ".")]
        try:
            try:
                return beneath.open_beneath(volume, parts)
            except FileNotFoundError:
                return beneath.make_folders(volume, parts, stat.S_IMODE(os.fstat(volume).st_mode))
        finally:
            os.close(volume)

    def files(self, hostname: str, address: str, dns: DnsConfig | None) -> list[Bind]:
        """Write the group's own files; their mounts."""
        hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
        if dns is not None:
            resolv = "".join(f"{line}\n" for line in dns.lines())
        else:
            resolv = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
        self._files.mkdir(mode=0o755, parents=True, exist_ok=True)
        found = []
        for name, text in (("hosts", hosts), ("hostname", f"{hostname}\n"), ("resolv.conf", resolv)):
            (self._files / name).write_text(text)
            found.append((self._files / name, f"/etc/{name}", False))
        return found


def _write(path: Path, files: dict[str, str], mode: int | None) -> None:
    folder = beneath.open_folder(path)
    try:
        for name, content in files.items():
            data = base64.b64decode(content)
            beneath.write_file(folder, name.split("/"), data, mode if mode is not None else 0o644)
    finally:
        os.close(folder)
