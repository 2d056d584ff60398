"""A user namespace for each group (user_namespaces(7)): its root, and every other of its users, is nobody on this machine.

A group has 65,536 ids of its own while it is there. Its network belongs to its user namespace, or its containers could
not mount /sys. Layers and volumes are mounted with mapped owners, so they are the same on disk for every group; where
the kernel cannot map the owners of files, layers are copied for each group and the copies given to its ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cumulet.common.config import Config
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.id_ranges import IDS, IdRanges
from cumulet.instances.sandbox.idmap import NotMappableError, give_away, mount_mapped
from cumulet.instances.sandbox.mounts import bind, mount_overlay, unmount
from cumulet.instances.sandbox.names import run_dir

#: Says that the namespaces are made, and keeps them until they are held by their names.
_HOLD = ("sh", "-c", "echo && read _")

#: (source, path in the container, read only).
Bind = tuple[Path, str, bool]


class Support(NamedTuple):
    """Whether groups get user namespaces, and how or why not, as `cumulet status` shows it."""

    on: bool
    how: str

    def __str__(self) -> str:
        return f"on ({self.how})" if self.on else f"off: {self.how}"


_MAPPED = Support(True, "idmapped mounts")
_COPIED = Support(True, "copied layers: this kernel or file system has no idmapped mounts")


def support_file(config: Config) -> Path:
    """Where the running room says what `Support` it found."""
    return run_dir(config) / "user-namespaces"


class UserNamespaces:
    """See the module. `images` is the folder of the images. A group is named by its uid and its first id."""

    def __init__(self, config: Config, images: Path) -> None:
        self._folder = run_dir(config)
        self._file = support_file(config)
        self._images = images
        self.ranges = IdRanges(config)
        self.support = Support(False, "not looked at yet")

    async def open(self, taken: Iterable[int]) -> None:
        """See what the kernel can, and hold the ranges of groups, told by their first ids."""
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.ranges.open(taken)
        self.support = await self._probe()
        self._file.write_text(f"{self.support}\n")

    def allocate(self, before: int) -> int:
        """The first id of a range for a group, that of `before` where it is free; 0 where user namespaces are off."""
        return self.ranges.allocate(before) if self.support.on else 0

    def path(self, uid: str) -> Path:
        """The file that names a group's user namespace."""
        return self._folder / uid / "user"

    def is_there(self, uid: str) -> bool:
        """Whether a group has its user namespace."""
        return _is_mounted(self.path(uid))

    def destroy(self, uid: str, start: int) -> None:
        """Remove a group's user namespace, of which nothing runs, and let another group have its range."""
        unmount(self.path(uid))
        shutil.rmtree(self._folder / uid, ignore_errors=True)
        self.ranges.release(start)

    def root(self, uid: str, start: int, container: str) -> Path:
        """Where a container's root is mounted: in a folder that the group's root may pass through, and no other user."""
        folder = self._group(uid, start) / container
        folder.mkdir(mode=0o755, exist_ok=True)
        return folder

    @contextlib.asynccontextmanager
    async def network(self, uid: str, start: int) -> AsyncIterator[int]:
        """A process in a new network namespace of the group's user namespace, which is made where it is not there.

        Raises `SandboxError`.
        """
        path = self.path(uid)
        if _is_mounted(path):
            async with _held("nsenter", f"--user={path}", "unshare", "--net") as pid:
                yield pid
            return
        async with _held("unshare", "--user", "--net") as pid:
            _map(pid, start)
            self._group(uid, start)
            path.touch(mode=0o400)
            bind(Path(f"/proc/{pid}/ns/user"), path)
            yield pid

    def mount_root(
        self, uid: str, start: int, layers: Sequence[Path], bundle: Path, root: Path, copies: Path
    ) -> None:
        """Mount a container's root over layers whose owners are the group's. Raises `SandboxError`, `OSError`.

        `bundle` has the folders `upper` and `work`; `copies` is where the group has its copies of layers.
        """
        os.chown(bundle / "upper", start, start)
        if self.support == _COPIED:
            copied = [_copied(layer, copies, start) for layer in layers]
            mount_overlay(copied, bundle / "upper", bundle / "work", root)
            return
        # Short paths: what a mount is told must fit into a page.
        folder = Path(tempfile.mkdtemp(dir=self._folder, prefix=""))
        with self._opened(uid) as namespace, _targets(folder, len(layers)) as targets:
            for layer, target in zip(layers, targets, strict=True):
                target.mkdir()
                mount_mapped(layer, target, namespace)
            mount_overlay(targets, bundle / "upper", bundle / "work", root)  # it keeps what it needs of them

    def map_binds(self, uid: str, start: int, binds: Sequence[Bind], folder: Path) -> list[Bind]:
        """The same binds of a container with mapped owners, mounted in a folder of ours. Raises `SandboxError`, `OSError`.

        They are to be unmounted once the container has them.
        """
        folder.mkdir(mode=0o700, exist_ok=True)
        found = []
        with self._opened(uid) as namespace:
            for number, (source, path, read_only) in enumerate(binds):
                target = folder / str(number)
                if source.is_dir():
                    target.mkdir()
                else:
                    target.touch()
                try:
                    mount_mapped(source, target, namespace)
                except NotMappableError:
                    give_away(source, start, IDS)
                    found.append((source, path, read_only))
                else:
                    found.append((target, path, read_only))
        return found

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
        """Do what a group will need, and see whether it works."""
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
    """Whether something is mounted on a file."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except FileNotFoundError:
        return False


def _map(pid: int, start: int) -> None:
    for kind in ("uid", "gid"):
        Path(f"/proc/{pid}/{kind}_map").write_text(f"0 {start} {IDS}\n")


@contextlib.asynccontextmanager
async def _held(*command: str) -> AsyncIterator[int]:
    """A process that has new namespaces, until the end of the context. Raises `SandboxError`."""
    process = await asyncio.create_subprocess_exec(*command, *_HOLD, stdin=PIPE, stdout=PIPE, stderr=PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        if not await process.stdout.readline():
            raise SandboxError(f"{command[0]}: {(await process.stderr.read()).decode(errors='replace').strip()}")
        yield process.pid
    finally:
        process.stdin.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


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
    """A copy of a layer that belongs to a group; made once, whichever of its containers needs it first."""
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
        give_away(partial, start, IDS)
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # another container's copy, that was there first, is as good
                raise
    return target
