"""A group's volumes, and the three files that every container has of its group: hosts, hostname, resolv.conf."""

from __future__ import annotations

import base64
import binascii
import shutil
from pathlib import Path
from typing import Any

from cumulet.instances.model import Container, GroupProperties
from cumulet.instances.sandbox import SandboxError, mount_tmpfs, unmount


class Volumes:
    """Empty folders on disk or in memory; secrets in memory only."""

    def __init__(self, folder: Path, group: GroupProperties) -> None:
        self._folder = folder
        self._group = group

    def make(self) -> None:
        """Make those that are not there. Raises `SandboxError`."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        for volume in self._group.volumes:
            path = self._folder / volume.name
            path.mkdir(mode=0o755, exist_ok=True)
            if volume.secret is not None:
                if not path.is_mount():
                    mount_tmpfs(path)
                self._write(path, volume.secret, volume.default_mode)
            elif volume.empty_dir is not None:
                if (volume.empty_dir.get("medium") or "") == "Memory" and not path.is_mount():
                    mount_tmpfs(path, mode=0o777)
                path.chmod(0o777)

    def _write(self, path: Path, files: dict[str, str], mode: int | None) -> None:
        for name, content in files.items():
            parts = name.split("/")
            if not all(parts) or ".." in parts:
                raise SandboxError(f"the file name {name!r} of a secret volume is not valid")
            try:
                data = base64.b64decode(content, validate=True)
            except binascii.Error:
                raise SandboxError(f"the file {name!r} of a secret volume is not base64") from None
            target = path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.write_bytes(data)
            target.chmod(mode if mode is not None else 0o644)

    def mounts(self, container: Container) -> list[tuple[Path, str, bool]]:
        """(source, path in the container, read only) of a container's mounts. Raises `SandboxError`."""
        found = []
        secrets = {volume.name for volume in self._group.volumes if volume.secret is not None}
        for mount in container.properties.volume_mounts:
            source = self._folder / mount.name
            if mount.sub_path:
                parts = [part for part in mount.sub_path.split("/") if part]
                if ".." in parts:
                    raise SandboxError(f"the subPath {mount.sub_path!r} is not valid")
                source = source.joinpath(*parts)
                if not source.exists():
                    source.mkdir(parents=True)
                if not source.resolve().is_relative_to(self._folder.resolve()):
                    raise SandboxError(f"the subPath {mount.sub_path!r} leads out of its volume")
            found.append((source, mount.mount_path, mount.read_only or mount.name in secrets))
        return found

    def files(self, hostname: str, address: str, dns: dict[str, Any] | None) -> list[tuple[Path, str, bool]]:
        """Write the group's own files; their mounts."""
        hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n{address}\t{hostname}\n"
        resolv = Path("/etc/resolv.conf").read_text() if Path("/etc/resolv.conf").exists() else ""
        if dns:
            lines = [f"nameserver {server}" for server in dns.get("nameServers") or ()]
            if dns.get("searchDomains"):
                lines.append(f"search {dns['searchDomains']}")
            if dns.get("options"):
                lines.append(f"options {dns['options']}")
            resolv = "\n".join(lines) + "\n"
        found = []
        own = self._folder / ".files"
        own.mkdir(mode=0o755, exist_ok=True)
        for name, text in (("hosts", hosts), ("hostname", f"{hostname}\n"), ("resolv.conf", resolv)):
            (own / name).write_text(text)
            found.append((own / name, f"/etc/{name}", False))
        return found

    def remove(self) -> None:
        """Take all of them away."""
        for volume in self._group.volumes:
            if (self._folder / volume.name).is_mount():
                unmount(self._folder / volume.name)
        shutil.rmtree(self._folder, ignore_errors=True)
