"""Keeps the container that holds the shared PID namespace of a group's containers (`shareProcessNamespace`)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec

from cumulet.instances.groups.attempts import UID_PART
from cumulet.instances.groups.folders import Folders, remove_tree
from cumulet.instances.groups.services import Services
from cumulet.instances.runtime.bundle import UserMapping
from cumulet.instances.runtime.conmon import RuntimeFailure, Stdio
from cumulet.instances.runtime.pause import describe_pause, write_program
from cumulet.instances.sandbox import network_files
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.mounts import unmount, unmount_beneath
from cumulet.instances.sandbox.overlay import mount_overlay
from cumulet.instances.store.records import GroupRecord

_NAME = "pause"


class Pause:
    """The holder of one group, if its containers share their processes. `parent` is the control group."""

    def __init__(self, record: GroupRecord, folders: Folders, services: Services, parent: str) -> None:
        self._record = record
        self._folders = folders
        self._services = services
        self._cid = f"{services.installation}-{record.uid[:UID_PART]}-{_NAME}"
        self._cgroup = f"/{parent}/{self._cid}"
        self._lock = asyncio.Lock()
        self._started = False

    @property
    def bundle(self) -> Path:
        """The folder of the container, which names its process."""
        return self._folders.pause

    async def ensure(self) -> None:
        """Start the container unless it runs. The network and user namespaces of the group exist.

        Raises `RuntimeFailure`, `SandboxError`, `SeccompError`, `OSError`.
        """
        async with self._lock:
            runtime = self._services.runtime
            if not runtime.is_running(self.bundle):
                await self._remove()
                await to_completion(self._create())
                await to_completion(runtime.start(self._cid))
            elif not self._started:
                # The room may have been killed before the start; the runtime starts it once at most.
                with contextlib.suppress(RuntimeFailure):
                    await to_completion(runtime.start(self._cid))
            self._started = True

    async def remove(self) -> None:
        """End the container, and with it all processes of the namespace."""
        async with self._lock:
            if self.bundle.exists():
                await to_completion(self._remove())

    async def _create(self) -> None:
        configuration = await asyncio.to_thread(self._prepare)
        bundle = self.bundle
        await self._services.runtime.create(
            self._cid, bundle, bundle / "log", configuration, Stdio(stdin=False, once=False, terminal=False)
        )

    def _prepare(self) -> bytes:
        """Mount the container's root, on a thread; return its configuration. Raises `SandboxError`, `OSError`."""
        for part in ("image", "rootfs", "upper", "work"):
            (self.bundle / part).mkdir(parents=True, exist_ok=True)
        image = self.bundle / "image"
        write_program(image)
        uid, ids, users = self._record.uid, self._record.status.ids, self._services.users
        root = self._root()
        if ids:
            users.mount_root(uid, ids, [image], self.bundle, root, self._folders.layers)
        else:
            mount_overlay([image], self.bundle / "upper", self.bundle / "work", root)
        document = describe_pause(
            root,
            namespace=self._services.network.path(uid),
            hostname=network_files.host_name(self._record.id.rsplit("/", 1)[-1], self._record.properties),
            cgroup=self._cgroup,
            users=UserMapping(users.path(uid), ids, users.ipc(uid)) if ids else None,
        )
        return msgspec.json.encode(document)

    async def _remove(self) -> None:
        self._started = False
        runtime = self._services.runtime
        if runtime.is_running(self.bundle):
            await runtime.kill(self._cid)
            await runtime.wait(self._cid, self.bundle)
            await runtime.remove(self._cid)
        else:
            await runtime.abandon(self._cid, self.bundle)
        unmount(self._root())
        await asyncio.to_thread(unmount_beneath, self.bundle)
        await remove_tree(self.bundle)

    def _root(self) -> Path:
        ids = self._record.status.ids
        return self._services.users.root(self._record.uid, ids, _NAME) if ids else self.bundle / "rootfs"
