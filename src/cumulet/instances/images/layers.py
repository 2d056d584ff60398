"""The layers on this machine, and a record of each.

A layer is a folder named by its digest, with a record of the repositories that have proven to have it, by sending its
bytes. The images of all tenants share it. A layer that depends on the layers below it has further forms: a patch for it, or
the layer as it was unpacked over them. The name of a form contains the chain id of the layers below (OCI Image
Specification 1.1, "Layer ChainID").

A power cut can leave files without their content, and records without their layers. A layer is therefore trusted either until
the machine restarts, or after the file system was synchronized, which its record says.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import shutil
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cumulet.common import digests
from cumulet.common.digests import Digest, DigestField, algorithm, encoded
from cumulet.common.private_files import private_folder
from cumulet.instances.images.needs import Needs

log = logging.getLogger(__name__)

_LAYERS, _RECORDS, _PARTIAL = "changesets", "changeset-records", "partial"
#: The folders of versions that applied layers without those below. Containers of such a version can still use them.
FORMER = ("layers", "known")
_NAME = re.compile(r"(sha256|sha512)-([0-9a-f]+)")
#: The name of nothing in place of a chain id.
NO_LAYERS = digests.of(b"")
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_libc = ctypes.CDLL(None, use_errno=True)


class Known(msgspec.Struct, frozen=True):
    """The record of a layer: digest and size in bytes when unpacked, needs, device nodes that were left out, and the
    repositories that have proven to have it.

    `boot` is the id of the system's start until the layer is durable.
    """

    diff_id: DigestField
    size: int
    needs: Needs = Needs()
    devices: int = 0
    first_device: str = ""
    repositories: list[str] = []
    boot: str = ""


class Footprint(NamedTuple):
    """The bytes of a layer with its forms, and when the newest was added, in seconds since the epoch."""

    size: int
    added: float


class Layers:
    """A layer appears when it is complete: a crash leaves nothing that looks like one."""

    def __init__(self, folder: Path) -> None:
        self._layers, self._records, self._partial = (folder / part for part in (_LAYERS, _RECORDS, _PARTIAL))
        self._boot = _boot_id()
        shutil.rmtree(self._partial, ignore_errors=True)  # a crash left it
        for part in (self._layers, self._records, self._partial):
            private_folder(part)
        self._lock = threading.Lock()
        self._volatile = self._remove_untrusted()

    @property
    def has_volatile(self) -> bool:
        """Whether a layer is not durable yet."""
        return bool(self._volatile)

    def path(self, digest: Digest, form: str = "") -> Path:
        """Return the folder of a layer, or of a form of it."""
        return self._layers / _name(digest, form)

    def named(self, name: str) -> Path:
        """Return the folder that has a name which the name of a path of `path` was."""
        return self._layers / name

    def find(self, digest: Digest, form: str = "") -> Known | None:
        """Return the record of a cached layer, or `None`. A layer without a record does not count."""
        return self._find(_name(digest, form))

    @contextlib.asynccontextmanager
    async def work(self) -> AsyncIterator[Path]:
        """Yield an empty folder to unpack into; remove it at the end unless it became a layer."""
        folder = self._new_folder()
        try:
            yield folder
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    @contextlib.contextmanager
    def work_on_thread(self) -> Iterator[Path]:
        """Do the same as `work`, on a thread."""
        folder = self._new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def add(self, digest: Digest, known: Known, work: Path, form: str = "") -> None:
        """Make an unpacked folder a layer. An existing layer, for example of a faster pull, stays."""
        name = _name(digest, form)
        with self._lock:
            before = self._find(name)
            if before is not None:
                repositories = list(dict.fromkeys([*before.repositories, *known.repositories]))
                self._write(name, msgspec.structs.replace(before, repositories=repositories))
                return
            shutil.rmtree(self._layers / name, ignore_errors=True)  # without a record, it is not trusted
            self._write(name, msgspec.structs.replace(known, boot=self._boot))
            work.rename(self._layers / name)
            self._volatile.add(name)

    def add_repository(self, digest: Digest, repository: str) -> None:
        """Record that a repository has proven to have a layer."""
        with self._lock:
            known = self.find(digest)
            if known is not None and repository not in known.repositories:
                known = msgspec.structs.replace(known, repositories=[*known.repositories, repository])
                self._write(_name(digest), known)

    def sizes(self) -> dict[Digest, Footprint]:
        """Return what each layer with its forms takes on disk. It reads all records: call it on a thread."""
        found: dict[Digest, Footprint] = {}
        for file in self._records.glob("[!.]*.json"):
            match = _NAME.match(file.name)
            known = self._read(file)
            if match is not None and known is not None and digests.is_digest(f"{match[1]}:{match[2]}"):
                digest = digests.parse(f"{match[1]}:{match[2]}")
                before = found.get(digest, Footprint(0, 0.0))
                with contextlib.suppress(FileNotFoundError):
                    added = max(before.added, file.stat().st_mtime)
                    found[digest] = Footprint(before.size + known.size, added)
        return found

    def detach(self, digest: Digest) -> list[Path]:
        """Make a layer with its forms absent at once, and return the folders that are left to delete."""
        detached = []
        for file in [self._file(_name(digest)), *self._records.glob(f"{_name(digest)}-*.json")]:
            file.unlink(missing_ok=True)  # before the files, so that a crash leaves no damaged layer
            name = file.name.removesuffix(".json")
            target = self._partial / str(uuid.uuid4())
            with contextlib.suppress(FileNotFoundError):
                (self._layers / name).rename(target)
                detached.append(target)
            with self._lock:
                self._volatile.discard(name)
        return detached

    def synchronize(self) -> None:
        """Wait until the disk has the files of all layers, and record that they are durable. Raises `OSError`."""
        with self._lock:
            names, self._volatile = self._volatile, set()
        try:
            _synchronize(self._layers)
            for name in sorted(names):
                with self._lock:
                    if (known := self._find(name)) is not None:
                        self._write(name, msgspec.structs.replace(known, boot=""))
        except OSError:
            with self._lock:
                self._volatile |= names
            raise

    def _remove_untrusted(self) -> set[str]:
        """Remove the layers that a power cut may have damaged; return those that are not durable yet."""
        volatile, trusted = set(), set()
        for file in self._records.iterdir():
            known, name = self._read(file), file.name.removesuffix(".json")
            if known is None or name.startswith(".") or known.boot not in ("", self._boot):
                file.unlink()
                continue
            trusted.add(name)
            if known.boot:
                volatile.add(name)
        for folder in self._layers.iterdir():
            if folder.name not in trusted:
                log.warning("the layer %s may not be complete, and is removed", folder.name)
                shutil.rmtree(folder, ignore_errors=True)
        return volatile

    def _new_folder(self) -> Path:
        folder = self._partial / str(uuid.uuid4())
        folder.mkdir(mode=0o755)
        return folder

    def _find(self, name: str) -> Known | None:
        known = self._read(self._file(name))
        return known if known is not None and (self._layers / name).is_dir() else None

    def _write(self, name: str, known: Known) -> None:
        """Replace a record. It is not synchronized: a lost one costs a second pull, and a pull does not wait for the disk."""
        file = self._file(name)
        temporary = file.with_name(f".{uuid.uuid4()}")
        temporary.touch(mode=0o600)
        temporary.write_bytes(msgspec.json.encode(known))
        temporary.replace(file)

    def _file(self, name: str) -> Path:
        return self._records / f"{name}.json"

    @staticmethod
    def _read(file: Path) -> Known | None:
        with contextlib.suppress(FileNotFoundError, msgspec.MsgspecError):
            return msgspec.json.decode(file.read_bytes(), type=Known)
        return None


def patch_for(chain: Digest) -> str:
    """Return the form that is the patch of a layer for the layers below it."""
    return f"patch-{encoded(chain)}"


def unpacked_on(chain: Digest) -> str:
    """Return the form of a layer that was unpacked over those below it."""
    return f"on-{encoded(chain)}"


def chain_of(below: Digest | None, diff_id: Digest) -> Digest:
    """Return the chain id of a layer and the layers below it, given by theirs; `None` stands for no layers."""
    return diff_id if below is None else digests.of(f"{below} {diff_id}".encode())


def _name(digest: Digest, form: str = "") -> str:
    name = f"{algorithm(digest)}-{encoded(digest)}"
    return f"{name}-{form}" if form else name


def _boot_id() -> str:
    """Return the id of the system's start. Without one, only durable layers are trusted after a start of the room."""
    try:
        return _BOOT.read_text().strip()
    except FileNotFoundError:
        return str(uuid.uuid4())


def _synchronize(folder: Path) -> None:
    """syncfs(2). Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if _libc.syncfs(descriptor):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(descriptor)
