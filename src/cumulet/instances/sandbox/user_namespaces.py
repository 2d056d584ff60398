"""The user namespaces of groups (user_namespaces(7)): the users of a group, root included, have no rights on this machine.

A group has 65,536 ids of its own. Its network belongs to its user namespace, because its containers could not mount /sys
otherwise. Layers and volumes are mounted with mapped owners, so that all groups share them on disk. If the kernel cannot map
owners, each group gets copies of the layers with its own ids as owners.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from subprocess import PIPE
from typing import NamedTuple

from cumulet.common.config import Config
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.id_ranges import IDS, IdRanges
from cumulet.instances.sandbox.idmap import NotMappableError, mount_mapped, shift_owners
from cumulet.instances.sandbox.mounts import Bind, bind, unmount
from cumulet.instances.sandbox.names import run_dir
from cumulet.instances.sandbox.overlay import mount_overlay
from cumulet.instances.sandbox.programs import first_line

#: The files in a group's folder that name its namespaces, by the names of namespaces in `/proc`.
_USER, _IPC = "user", "ipc"
#: Reports that the namespaces exist, and keeps them until they are bound to files.
_HOLD = ("sh", "-c", "echo && read _")


class Support(NamedTuple):
    """Whether groups get user namespaces, and the method or the reason, as `cumulet status` shows them."""

    on: bool
    how: str

    def __str__(self) -> str:
        return f"on ({self.how})" if self.on else f"off: {self.how}"


_MAPPED = Support(True, "idmapped mounts")
_COPIED = Support(True, "copied layers: this kernel or file system has no idmapped mounts")


def support_file(config: Config) -> Path:
    """Return the file where the running room records its `Support`."""
    return run_dir(config) / "user-namespaces"


class UserNamespaces:
    """The user namespaces of an installation. `images` is the folder of the image cache.

    A group is identified by its uid, and `start` is the first id of its range.
    """

    def __init__(self, config: Config, images: Path) -> None:
        self._folder = run_dir(config)
        self._file = support_file(config)
        self._images = images
        self.ranges = IdRanges(config)
        self.support = Support(False, "not determined yet")

    async def open(self, taken: Iterable[int]) -> None:
        """Determine the support of the kernel, and reserve the ranges of existing groups by their first ids."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.ranges.open(taken)
        self.support = await self._probe()
        self._file.write_text(f"{self.support}\n")

    def allocate(self, before: int) -> int:
        """Reserve a range, if possible `before`; return its first id, or 0 when user namespaces are off."""
        return self.ranges.allocate(before) if self.support.on else 0

    def path(self, uid: str) -> Path:
        """Return the file that names a group's user namespace."""
        return self._folder / uid / _USER

    def ipc(self, uid: str) -> Path | None:
        """Return the file that names a group's IPC namespace, or `None`: groups of earlier versions have none."""
        path = self._folder / uid / _IPC
        return path if _is_mounted(path) else None

    def is_there(self, uid: str) -> bool:
        """Return whether a group has its user namespace."""
        return _is_mounted(self.path(uid))

    def destroy(self, uid: str, start: int) -> None:
        """Remove the user namespace of a group without processes, and release its range."""
        for name in (_IPC, _USER):
            unmount(self._folder / uid / name)
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        self.ranges.release(start)

    def root(self, uid: str, start: int, container: str) -> Path:
        """Create and return the mount point of a container's root, in a folder that only the group's root can enter."""
        folder = self._group(uid, start) / container
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder

    @contextlib.asynccontextmanager
    async def network(self, uid: str, start: int) -> AsyncIterator[int]:
        """Yield the id of a process in a new network namespace of the group's user namespace.

        The user namespace and the IPC namespace, which all containers share, are created if the former is missing. Raises `SandboxError`.
        """
        path = self.path(uid)
        if _is_mounted(path):
            async with _held("nsenter", f"--user={path}", "unshare", "--net") as pid:
                yield pid
            return
        async with _held("unshare", "--user", "--net", "--ipc") as pid:
            _map(pid, start)
            folder = self._group(uid, start)
            for name in (_IPC, _USER):
                (folder / name).touch(mode=0o400)
                bind(Path(f"/proc/{pid}/ns/{name}"), folder / name)
            yield pid

    def mount_root(
        self, uid: str, start: int, layers: Sequence[Path], bundle: Path, root: Path, copies: Path
    ) -> None:
        """Mount a container's root over layers with the group's owners. Raises `SandboxError`, `OSError`.

        `bundle` contains the folders `upper` and `work`; `copies` is the folder of the group's copies of layers.
        """
        os.chown(bundle / "upper", start, start)
        if self.support == _COPIED:
            copied = [_copied(layer, copies, start) for layer in layers]
            mount_overlay(copied, bundle / "upper", bundle / "work", root)
            return
        # One mount for all layers of a folder; the overlay keeps references to it.
        parents = list(dict.fromkeys(layer.parent for layer in layers))
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=""))
        with self._opened(uid) as namespace, _targets(folder, len(parents)) as targets:
            for parent, target in zip(parents, targets, strict=True):
                target.mkdir()
                mount_mapped(parent, target, namespace)
            mapped = [targets[parents.index(layer.parent)] / layer.name for layer in layers]
            mount_overlay(mapped, bundle / "upper", bundle / "work", root)

    def map_binds(self, uid: str, start: int, binds: Sequence[Bind], folder: Path) -> list[Bind]:
        """Mount the sources of binds with mapped owners in a trusted folder; return the binds from there.

        The caller unmounts them when the container has been created. Raises `SandboxError`, `OSError`.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        mapped = []
        with self._opened(uid) as namespace:
            for number, bind_ in enumerate(binds):
                target = folder / str(number)
                if bind_.source.is_dir():
                    target.mkdir()
                else:
                    target.touch()
                try:
                    mount_mapped(bind_.source, target, namespace)
                except NotMappableError:
                    if bind_.is_kept:
                        raise
                    shift_owners(bind_.source, start, IDS)
                    mapped.append(bind_)
                else:
                    mapped.append(bind_._replace(source=target))
        return mapped

    def _group(self, uid: str, start: int) -> Path:
        folder = self._folder / uid
        folder.mkdir(mode=0o710, exist_ok=True)
        os.chown(folder, 0, start)
        return folder

    @contextlib.contextmanager
    def _opened(self, uid: str) -> Iterator[int]:
        descriptor = os.open(self.path(uid), os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    async def _probe(self) -> Support:
        """Try the operations that a group needs, and return which work."""
        for program in ("unshare", "nsenter"):
            if shutil.which(program) is None:
                return Support(False, f"{program} is not on PATH: sudo apt-get install --yes util-linux")
        start = self.ranges.first
        try:
            async with _held("unshare", "--user", "--net") as pid:
                _map(pid, start)
                with tempfile.TemporaryDirectory(dir=self._images, prefix="probe-") as name:
                    return _try_mounts(Path(name), Path(f"/proc/{pid}/ns/user"), start)
        except (SandboxError, OSError) as error:
            return Support(False, f"the kernel refuses them: {error}")


def _try_mounts(folder: Path, namespace: Path, start: int) -> Support:
    for name in ("layer", "upper", "work", "root"):
        (folder / name).mkdir()
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with _targets(folder / "lower", 1) as targets:
            targets[0].mkdir()
            mount_mapped(folder / "layer", targets[0], descriptor)
            mount_overlay(targets, folder / "upper", folder / "work", folder / "root")
            unmount(folder / "root")
            return _MAPPED if targets[0].stat().st_uid == start else _COPIED
    except SandboxError:
        return _COPIED
    finally:
        os.close(descriptor)


def _is_mounted(path: Path) -> bool:
    """Return whether a file is a mount point."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _map(pid: int, start: int) -> None:
    for kind in ("uid", "gid"):
        Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {start} {IDS}\n")


@contextlib.asynccontextmanager
async def _held(*command: str) -> AsyncIterator[int]:
    """Yield the id of a process in new namespaces, which ends with the context. Raises `SandboxError`."""
    process = subprocess.Popen((*command, *_HOLD), stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdin, process.stdout, process.stderr:
        try:
            if not await first_line(process.stdout.fileno()):
                raise SandboxError(f"{command[0]}: {process.stderr.read().decode(errors='replace').strip()}")
            yield process.pid
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _targets(folder: Path, count: int) -> Iterator[list[Path]]:
    """Folders for mounts that are only needed in the context."""
    folder.mkdir(mode=0o700, exist_ok=True)
    targets = [folder / str(number) for number in range(count)]
    try:
        yield targets
    finally:
        for target in targets:
            unmount(target)
        shutil.rmtree(folder, ignore_errors=True)


def _copied(layer: Path, folder: Path, start: int) -> Path:
    """Return a group's copy of a layer; the first container that needs it makes it."""
    target = folder / f"{layer.name}-{start}"
    if target.exists():
        return target
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="partial-") as name:
        partial = Path(name) / "layer"
        command = ["cp", "--archive", "--reflink=auto", "--", str(layer), str(partial)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SandboxError(f"copying the layer {layer.name}: {done.stderr.strip()}")
        shift_owners(partial, start, IDS)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # unless another container's copy was faster
                raise
    return target
