"""Starts an attempt of a container: numbers it, mounts its root and volumes, and hands it to the runtime."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator
from pathlib import Path

import msgspec

from cumulet.common import clock
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.folders import Folders, remove_tree
from cumulet.instances.groups.pause import Pause
from cumulet.instances.groups.services import Save, Services
from cumulet.instances.groups.termination import make_file
from cumulet.instances.images.cache import Pulled
from cumulet.instances.model.expansion import expanded
from cumulet.instances.model.lifecycle import signal_number
from cumulet.instances.model.pod import ContainerUser, LinuxUser
from cumulet.instances.model.properties import Container
from cumulet.instances.runtime.bundle import UserMapping, describe, keep_process, owner_of
from cumulet.instances.runtime.conmon import RuntimeFailure, Stdio
from cumulet.instances.sandbox import network_files, shared_memory
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.image_volumes import make_image_volumes
from cumulet.instances.sandbox.mounts import in_order, mount_tmpfs, unmount, unmount_beneath
from cumulet.instances.sandbox.overlay import mount_overlay
from cumulet.instances.sandbox.volumes import Volumes
from cumulet.instances.security.context import stored
from cumulet.instances.store.records import GroupRecord, State
from cumulet.instances.streams.log_files import LogFiles

#: In a container's folder: its volumes, until the container has mounted them.
_MOUNTS = "mounts"


def writable_layer(bundle: Path) -> Path:
    """Return the folder with what a container has written to its root and to the volumes of its image."""
    return bundle


class Launcher:
    """Starts the attempts of one group."""

    def __init__(
        self,
        record: GroupRecord,
        attempts: Attempts,
        folders: Folders,
        volumes: Volumes,
        services: Services,
        save: Save,
    ) -> None:
        self._record = record
        self._attempts = attempts
        self._folders = folders
        self._volumes = volumes
        self._services = services
        self._save = save
        self._pause = Pause(record, folders, services, self.control_group)
        #: Set when the network namespace and the volumes exist.
        self.sandbox_ready = asyncio.Event()

    @property
    def control_group(self) -> str:
        """The control group that contains those of all containers of the installation."""
        return f"cumulet-{self._services.installation}"

    async def remove_shared(self) -> None:
        """End what the containers of the group share while they run: the holder of their processes."""
        await self._pause.remove()

    async def launch(self, container: Container, image: Pulled) -> None:
        """Replace the newest attempt of a container, which has ended or was not started, with one that is started.

        Raises `BundleError`, `RuntimeFailure`, `SandboxError`, `OSError`.
        """
        name, status = container.name, self._attempts.status(container.name)
        if status.attempt:
            await self._clear(name, interrupted=status.stage == "making")
        if status.stage in ("ended", "again"):
            status.restart_count += 1
        status.attempt, status.numbered, status.stage = status.attempt + 1, True, "making"
        status.ready = status.started = False
        status.stop_signal = _stop_signal(container, image)
        if status.current_state.state == "Terminated":
            status.current_state = State("Waiting", "")
        await self._save(soon=True)  # the number must be on disk before it is part of a name
        await self.sandbox_ready.wait()
        await to_completion(self._create(container, image))
        status.add_event("Created", "Container created")
        status.stage = "started"
        status.current_state = State("Waiting", "", start_time=clock.rfc3339_micro())
        await self._save(soon=True)  # before the start, because what may have run must not be run again
        await to_completion(self._services.runtime.start(self._attempts.cid(name)))
        status.add_event("Started", "Container started")

    async def start_again(self, name: str) -> None:
        """Start an attempt whose start was requested and perhaps not done; the runtime starts it once at most."""
        with contextlib.suppress(RuntimeFailure):
            await to_completion(self._services.runtime.start(self._attempts.cid(name)))
            self._attempts.status(name).add_event("Started", "Container started")

    async def _create(self, container: Container, image: Pulled) -> None:
        """Create the container at the runtime, without starting it."""
        name, runtime = container.name, self._services.runtime
        bundle, log, cid = self._attempts.bundle(name), self._attempts.log(name), self._attempts.cid(name)
        if self._record.properties.share_process_namespace:
            await self._pause.ensure()
        with self._processes(container) as processes:
            try:
                configuration, owner = await asyncio.to_thread(self._prepare, container, image, bundle, processes)
                status = self._attempts.status(name)
                status.resources, status.resize_error = container.properties.resource_requirements, ""
                properties = container.properties
                stdio = Stdio(properties.stdin, properties.stdin_once, properties.tty)
                await runtime.create(cid, bundle, log, configuration, stdio)
            finally:
                # The container has its own copies of these mounts, in its mount namespace.
                await asyncio.to_thread(unmount, bundle / _MOUNTS)
        runtime.give_output(bundle, *owner)

    @contextlib.contextmanager
    def _processes(self, container: Container) -> Iterator[Path | None]:
        """Yield the file that names the PID namespace to share, `None` without one. Raises `SandboxError`."""
        target = container.properties.target_container_name
        if target is not None:
            bundle, missing = (
                self._attempts.bundle(target),
                f"unable to find target container {target}: it does not run",
            )
        elif self._record.properties.share_process_namespace:
            bundle, missing = self._pause.bundle, "the pause container of the group does not run"
        else:
            yield None
            return
        with self._services.runtime.processes_of(bundle) as processes:
            if processes is None:
                raise SandboxError(missing)
            yield processes

    def _prepare(
        self, container: Container, image: Pulled, bundle: Path, processes: Path | None
    ) -> tuple[bytes, tuple[int, int]]:
        """Mount a container's root and volumes, on a thread.

        Returns the configuration for the runtime, and the owner of the container's process on this machine. Raises
        `BundleError`, `SandboxError`, `OSError`.
        """
        for part in ("rootfs", "upper", "work", _MOUNTS):
            (bundle / part).mkdir(parents=True, exist_ok=True)
        # A mount of its own, so that all mounts on it end with it, and its folders are not on the disk.
        mount_tmpfs(bundle / _MOUNTS, 0o700)
        uid, ids, users = self._record.uid, self._record.status.ids, self._services.users
        container = expanded(container, self._record.status.ip)
        root = self._attempts.root(container.name)
        layers = image.layers or [bundle / "rootfs"]  # an overlay needs one
        if ids:
            users.mount_root(uid, ids, layers, bundle, root, self._folders.layers)
        else:
            mount_overlay(layers, bundle / "upper", bundle / "work", root)
        properties = self._record.properties
        name = self._record.id.rsplit("/", 1)[-1]
        read_only = bool(stored(container.properties.security_context).read_only_root_filesystem)
        gateway = self._services.network.gateway
        files = network_files.write(
            self._folders.files, name, self._record.status.ip, gateway, properties, read_only=read_only
        )
        shared = shared_memory.bind(self._folders.folder)
        message = make_file(bundle, container.properties)
        binds = in_order([*files, shared, *self._volumes.mount(container, bundle / _MOUNTS), message])
        if ids:
            binds = users.map_binds(uid, ids, binds, bundle / _MOUNTS / "mapped")
        mounted = [bind.path for bind in binds]
        volumes = make_image_volumes(image.config.volumes or (), mounted, root, bundle / "volumes", ids)
        binds = in_order([*binds, *volumes])
        mapping = UserMapping(users.path(uid), ids, users.ipc(uid)) if ids else None
        document = describe(
            root,
            properties,
            container,
            image.config,
            namespace=self._services.network.path(uid),
            hostname=network_files.host_name(name, properties),
            cgroup=f"/{self.control_group}/{self._attempts.cid(container.name)}",
            mounts=binds,
            users=mapping,
            processes=processes,
            variables=self._services.workload.variables(self._record),
        )
        user = document["process"]["user"]
        self._attempts.status(container.name).user = ContainerUser(
            linux=LinuxUser(uid=user["uid"], gid=user["gid"], supplemental_groups=user["additionalGids"])
        )
        keep_process(bundle, document["process"], container)
        return msgspec.json.encode(document), owner_of(document["process"], mapping)

    async def _clear(self, name: str, *, interrupted: bool) -> None:
        """Remove an attempt that has ended, except its log; the log before it is deleted.

        `interrupted` is whether it was not started, and may still be in the making.
        """
        bundle = self._attempts.bundle(name)
        if interrupted:
            await self._services.runtime.abandon(self._attempts.cid(name), bundle)
        else:
            await self._services.runtime.remove(self._attempts.cid(name))
        unmount(self._attempts.root(name))
        await asyncio.to_thread(unmount_beneath, bundle)
        await remove_tree(bundle)
        LogFiles(self._attempts.log(name, previous=True)).remove()
        self._attempts.keep_log(name)


def _stop_signal(container: Container, image: Pulled) -> int:
    """Return the signal that ends a container: its own, else its image's, else SIGTERM."""
    lifecycle = container.properties.lifecycle
    named = (lifecycle.stop_signal if lifecycle is not None else None) or image.config.stop_signal or ""
    return signal_number(named) or signal.SIGTERM
