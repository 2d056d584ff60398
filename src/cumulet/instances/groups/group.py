"""The life of a container group: network, volumes, init containers, containers, and its removal.

The group's task sets up the network and the volumes, and runs the containers. When the room restarts, it adopts a container
that is running already, or that has ended in the meantime, instead of running it again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from cumulet.common import clock
from cumulet.common.tasks import Backoff, wait_for
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.container import ContainerLife
from cumulet.instances.groups.ephemeral import EphemeralContainers
from cumulet.instances.groups.failures import cause_of, is_transient, reason_of
from cumulet.instances.groups.folders import Folders, remove_tree
from cumulet.instances.groups.grace import Grace
from cumulet.instances.groups.launch import Launcher, writable_layer
from cumulet.instances.groups.pulls import Pulls
from cumulet.instances.groups.resizes import Resizes
from cumulet.instances.groups.sequence import Sequence, policy_of
from cumulet.instances.groups.services import Services
from cumulet.instances.model.properties import Container
from cumulet.instances.sandbox import shared_memory
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.firewall import member_of
from cumulet.instances.sandbox.mounts import unmount, unmount_beneath
from cumulet.instances.sandbox.volumes import Volumes
from cumulet.instances.store.records import GroupRecord
from cumulet.instances.streams.log_files import LogFiles

log = logging.getLogger(__name__)

#: The kubelet's reason and message for `activeDeadlineSeconds`.
_OVERDUE = "DeadlineExceeded"
_OVERDUE_MESSAGE = "Pod was active on the node longer than the specified deadline"
#: The kubelet's reason for a pod that uses too much of the disk, and the seconds that its containers have to end.
_EVICTED, _EVICTION_GRACE = "Evicted", 1


class DiskPlaces(NamedTuple):
    """Where a group writes on the disk: the writable layers and the logs by container, and the emptyDirs by name.

    `roots` are where the roots of containers are mounted.
    """

    layers: dict[str, Path]
    logs: dict[str, LogFiles]
    volumes: dict[str, Path]
    roots: list[Path]


class Group:
    """One container group. It changes its record in place."""

    def __init__(self, record: GroupRecord, folders: Folders, services: Services) -> None:
        self.record = record
        self.attempts = Attempts(record, folders, services.users, services.installation)
        self._folders = folders
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._volumes = Volumes(folders.folder, record.properties, folders.before, services.shares, services.disks)
        #: Held by the one that writes in the volumes.
        self._writing = asyncio.Lock()
        self._pulls = Pulls(record, self.attempts, services.images, services.logins, self._save, services.changed)
        self._launcher = Launcher(record, self.attempts, folders, self._volumes, services, self._save)
        self._lives = {container.name: self._life(container) for container in self.attempts.containers()}
        self._sequence = Sequence(record, self._lives)
        self._ephemeral = EphemeralContainers(record, self._lives, self._life)
        self._renewed = asyncio.Event()
        #: Set when the containers are ended by a request, which decides what follows.
        self._cleared = False
        self._resizes = Resizes(record, self.attempts, services, self._save, self._restart, self.control_group)
        self._evicted = asyncio.Event()
        if record.status.reason == _EVICTED:
            self._evicted.set()  # it continues after a restart of the room

    # Requests.

    def start(self) -> None:
        """Start the group's task, or resume after a restart of the room."""
        self._task = asyncio.create_task(self._run(), name=f"group {self.record.id}")
        resizing = asyncio.create_task(self._resizes.run(), name=f"resizes of group {self.record.id}")
        self._task.add_done_callback(lambda _: resizing.cancel())

    def resize(self) -> None:
        """Bring the limits of running containers to those of the record."""
        self._resizes.begin()

    def renew(self) -> None:
        """Use the new credentials and the new deadline of the record, at once for what waits."""
        self._pulls.renew()
        self._ephemeral.add()
        self._renewed.set()

    async def renew_volumes(self) -> None:
        """Write the new content of the record's volumes, while containers run. Raises `OSError`."""
        async with self._writing:
            await to_completion(asyncio.to_thread(self._volumes.replace, self.record.properties.volumes))

    def detach(self) -> None:
        """End the group's task because this process ends; the containers continue to run."""
        if self._task is not None:
            self._task.cancel()

    async def destroy(self, grace: float) -> None:
        """Stop all containers, with `grace` seconds to end, and remove everything except the usage record."""
        await self.tear_down(grace)
        await self._services.store.remove(self.record.uid)

    async def tear_down(self, grace: float) -> None:
        """Stop all containers, with `grace` seconds to end; remove containers, volumes and network, and end the bill."""
        services, status, uid = self._services, self.record.status, self.record.uid
        await self.clear(grace)
        await self._durably(lambda: services.meter.stop(uid))
        await services.network.destroy(uid, status.ip)
        services.users.destroy(uid, status.ids)
        services.network.release(status.ip)
        for folder in (self._folders.folder, self._folders.before):
            if folder.exists():
                await asyncio.to_thread(unmount_beneath, folder)
                await remove_tree(folder)

    async def clear(self, grace: float) -> None:
        """Stop all containers and the group's task, and remove the containers; volumes and network stay."""
        self._cleared = True
        await self._sequence.stop(Grace(grace))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in [name for name in self._lives if self.attempts.status(name).attempt]:
            await self._services.runtime.remove(self.attempts.cid(name))
            unmount(self.attempts.root(name))
        await self._launcher.remove_shared()

    async def remove_containers(self, *, volumes: bool) -> None:
        """Remove the folders of containers that have ended, and with `volumes` those of the volumes."""
        for folder in (self._folders.containers, *((self._folders.volumes,) if volumes else ())):
            await asyncio.to_thread(unmount_beneath, folder)
            await remove_tree(folder)

    async def abort(self, reason: str) -> None:
        """End the group and its bill because it cannot be started, and record the reason."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._fail(reason)

    @property
    def is_evictable(self) -> bool:
        """Whether the group runs, and is neither deleted nor evicted."""
        status = self.record.status
        return not (status.is_over or status.delete_by or status.action or self._evicted.is_set())

    def evict(self, message: str) -> None:
        """End the group as failed because of its use of the disk; the message is the kubelet's."""
        status = self.record.status
        status.reason, status.message = _EVICTED, message
        status.add_event(_EVICTED, message, warning=True)
        self._evicted.set()

    def hasten(self, grace: int) -> None:
        """Shorten the grace of containers that are being stopped to `grace` seconds from now."""
        self._sequence.hasten(grace)

    # Streams and measurements.

    def disk_places(self) -> DiskPlaces:
        """Return where the group writes on the disk."""
        names = [item.name for item in self.attempts.containers() if self.attempts.status(item.name).attempt]
        return DiskPlaces(
            {name: writable_layer(self.attempts.bundle(name)) for name in names},
            {name: LogFiles(self.attempts.log(name)) for name in names},
            self._volumes.on_disk(),
            [self.attempts.root(name) for name in names],
        )

    @property
    def control_group(self) -> str:
        """The control group that contains those of all containers of the installation."""
        return self._launcher.control_group

    @property
    def network(self) -> Path:
        """The file that names the group's network namespace."""
        return self._services.network.path(self.record.uid)

    def process(self, name: str, command: list[str], *, tty: bool) -> bytes:
        """Return the description of a further process in a container; it contains secure values. Raises `OSError`."""
        return self._lives[name].process(command, tty=tty)

    def ended(self, name: str) -> asyncio.Event:
        """Return the event that is set while the newest attempt of a container has ended."""
        return self._lives[name].ended

    # The task.

    async def _restart(self, name: str, why: str) -> None:
        """End a container, which its restart policy starts again."""
        await self._lives[name].restart(why)

    def _life(self, container: Container) -> ContainerLife:
        return ContainerLife(
            container.name,
            policy_of(self.record, container.name),
            self.record,
            self.attempts,
            self._pulls,
            self._launcher,
            self._services,
            self._save,
        )

    async def _run(self) -> None:
        """Run the group to its end. Whatever fails is an event, and is tried again from the record."""
        backoff, status = Backoff(1, 60), self.record.status
        if status.is_over:
            for life in self._lives.values():
                life.ended.set()
            return
        while True:
            try:
                if self.record.flaw is not None:
                    await self._fail(self.record.flaw)
                elif status.is_over:
                    await self._end(status.state)
                else:
                    await self._live()
            except Exception as error:
                log.exception("group %s", self.record.id)
                if self._is_refused(error):
                    await self._fail(reason_of(error))
                    return
                self._tell(error)
                await backoff.wait()
            else:
                return

    def _is_refused(self, error: Exception) -> bool:
        """Return whether a new group of a caller that waits for it fails: as for ACI, and unlike for pods."""
        new = not any(life.status.attempt for life in self._lives.values())
        cause = cause_of(error)
        known = isinstance(cause, (SandboxError, OSError)) and not is_transient(cause)
        return known and new and not self.record.properties.pod

    def _tell(self, error: BaseException) -> None:
        """Publish a failure that is not one of a container, with the kubelet's reasons."""
        reason = reason_of(error)
        if isinstance(cause_of(error), (SandboxError, OSError)):
            self.record.status.add_event(
                "FailedCreatePodSandBox", f"Failed to create pod sandbox: {reason}", warning=True
            )
        else:
            self.record.status.add_event("FailedSync", f"Error syncing pod, skipping: {reason}", warning=True)
        self._services.changed(self.record)

    async def _live(self) -> None:
        services, status = self._services, self.record.status
        if not status.ip:
            status.ip = services.network.allocate()
        if status.began is None:
            status.began = clock.rfc3339_micro()
        if status.state == "Pending":
            status.provisioning_state = "Creating"
        anew = await self._isolate() and any(life.was_started for life in self._lives.values())
        # One commit has both.
        await asyncio.gather(self._durably(lambda: services.meter.start(self.record)), self._save(soon=True))
        self._ephemeral.start()
        try:
            # Images are pulled while the sandbox is made. A failure of one task ends the others.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._make_sandbox())
                succeeded = tasks.create_task(self._run_containers(anew=anew))
            await self._ephemeral.end(Grace(self.record.properties.termination_grace_period_seconds))
        finally:
            await self._ephemeral.cancel()
        if not self._cleared:
            await self._end("Succeeded" if succeeded.result() else "Failed")

    async def _make_sandbox(self) -> None:
        """Create the network namespace and the volumes, which every launch waits for."""
        services, status, uid = self._services, self.record.status, self.record.uid
        owner = services.users.network(uid, status.ids) if status.ids else None
        member = member_of(status.ip, self.record.properties, self.record.tags)
        async with self._writing:
            await to_completion(
                services.network.create(uid, member, owner),
                asyncio.to_thread(self._volumes.make),
                asyncio.to_thread(shared_memory.make, self._folders.folder),
            )
            await services.network.admit(status.ip, services.doors(self.record))
            for volume, path in self._volumes.repositories():
                assert volume.git_repo is not None
                await services.repositories.clone(
                    volume.name, volume.git_repo, path, status.ids, self._volumes.memory
                )
                await asyncio.to_thread(self._volumes.give_repository, path)
        self._launcher.sandbox_ready.set()

    async def _run_containers(self, *, anew: bool) -> bool:
        """Run all containers until they have ended or are cut short; return whether all succeeded."""
        running = asyncio.create_task(self._sequence.run(anew=anew))
        deadline, evicted = asyncio.create_task(self._until_deadline()), asyncio.create_task(self._evicted.wait())
        try:
            await asyncio.wait([running, deadline, evicted], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                return running.result()
            status, grace = self.record.status, Grace(_EVICTION_GRACE)
            if not evicted.done():
                grace = Grace(self.record.properties.termination_grace_period_seconds)
                status.reason, status.message = _OVERDUE, _OVERDUE_MESSAGE
                status.add_event(_OVERDUE, _OVERDUE_MESSAGE)
            await self._save()
            await self._sequence.stop(grace)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await self._sequence.stop(grace)  # also what was being started meanwhile
            return False
        finally:
            for task in (running, deadline, evicted):
                task.cancel()
            await asyncio.gather(running, deadline, evicted, return_exceptions=True)

    async def _until_deadline(self) -> None:
        """Wait for the end of `activeDeadlineSeconds`, which an update can change."""
        began = clock.parse(self.record.status.began) if self.record.status.began else clock.now()
        while True:
            self._renewed.clear()
            seconds = self.record.properties.active_deadline_seconds
            if seconds is None:
                await self._renewed.wait()
            elif (left := seconds - (clock.now() - began).total_seconds()) <= 0:
                return
            else:
                await wait_for(self._renewed, left)

    async def _isolate(self) -> bool:
        """Give the group a range of ids, unless it has its sandbox; return whether it had none. Raises `SandboxError`."""
        services, status, uid = self._services, self.record.status, self.record.uid
        if services.network.is_there(uid):
            if not status.ids or services.users.is_there(uid):
                return False  # it keeps its namespaces; a group of an earlier version has no user namespace
            await services.network.destroy(uid, status.ip)
        services.users.destroy(uid, status.ids)
        status.ids = services.users.allocate(status.ids)
        return True

    async def _end(self, state: str, provisioning_state: str = "Succeeded") -> None:
        self.record.status.state = state
        self.record.status.provisioning_state = provisioning_state
        for life in self._lives.values():
            life.settle()
        ends = [self.attempts.status(item.name).current_state.finish_time for item in self.attempts.containers()]
        # A container can have ended while the room did not run.
        ended = max((end for end in ends if end is not None), default=None)
        await self._durably(lambda: self._services.meter.stop(self.record.uid, ended))
        await self._launcher.remove_shared()
        await self._services.network.destroy(self.record.uid, self.record.status.ip)
        await self._save()

    async def _fail(self, reason: str) -> None:
        """End the group for a reason that is not one of its containers, and record the reason."""
        self.record.status.add_event("Failed", f"Error: {reason}", warning=True)
        for life in self._lives.values():
            await life.fail(reason)
        await self._end("Failed", "Failed")

    async def _save(self, *, soon: bool = False) -> None:
        """Write the status, then publish it, at once or soon: watchers see only what is durable."""
        status = self.record.status
        states = [self.attempts.status(item.name).current_state.state for item in self.record.properties.containers]
        if "Running" in states:
            status.provisioning_state = "Succeeded"
            if status.state == "Pending":
                status.state = "Running"
        await self._durably(lambda: self._services.store.put_status(self.record))
        (self._services.changed_soon if soon else self._services.changed)(self.record)

    async def _durably(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, and repeat while the disk refuses, for example because it is full: containers continue to run."""
        backoff = Backoff(0.5, 30)
        while True:
            try:
                await write()
            except sqlite3.Error as error:
                log.warning("group %s cannot be written: %s", self.record.id, error)
                self._tell(error)
                await backoff.wait()
            else:
                return
