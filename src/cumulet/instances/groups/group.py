"""The life of a container group: network, volumes, init containers, containers, and its removal.

The group's task sets up the network and the volumes. It runs the init containers in turn, then all other containers at
the same time. When the room restarts, it adopts a container that is running already, or that has ended
in the meantime, instead of running it again.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

from cumulet.common.tasks import Backoff
from cumulet.instances.groups.attempts import Attempts
from cumulet.instances.groups.container import ContainerLife
from cumulet.instances.groups.ephemeral import EphemeralContainers, policy_of
from cumulet.instances.groups.folders import Folders, remove_tree
from cumulet.instances.groups.launch import Launcher
from cumulet.instances.groups.pulls import Pulls
from cumulet.instances.groups.services import Services
from cumulet.instances.model.properties import Container, virtual_network
from cumulet.instances.sandbox import shared_memory
from cumulet.instances.sandbox.completion import to_completion
from cumulet.instances.sandbox.errors import SandboxError
from cumulet.instances.sandbox.mounts import unmount, unmount_beneath
from cumulet.instances.sandbox.volumes import Volumes
from cumulet.instances.store.records import GroupRecord

log = logging.getLogger(__name__)


class Group:
    """One container group. It changes its record in place."""

    def __init__(self, record: GroupRecord, folders: Folders, services: Services) -> None:
        self.record = record
        self.attempts = Attempts(record, folders, services.users, services.installation)
        self._folders = folders
        self._services = services
        self._task: asyncio.Task[None] | None = None
        self._volumes = Volumes(folders.folder, record.properties, folders.before, services.shares)
        #: Held by the one that writes in the volumes.
        self._writing = asyncio.Lock()
        self._pulls = Pulls(record, self.attempts, services.images, services.logins, self._save)
        self._launcher = Launcher(record, self.attempts, folders, self._volumes, services, self._save)
        self._lives = {container.name: self._life(container) for container in self.attempts.containers()}
        self._ephemeral = EphemeralContainers(record, self._lives, self._life)

    # Requests.

    def start(self) -> None:
        """Start the group's task, or resume after a restart of the room."""
        self._task = asyncio.create_task(self._run(), name=f"group {self.record.id}")
        self._task.add_done_callback(self._finished)

    def renew(self) -> None:
        """Use the new credentials of the record, at once for a pull that waits."""
        self._pulls.renew()
        self._ephemeral.add()

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
            await asyncio.to_thread(unmount_beneath, folder)
            await remove_tree(folder)

    async def clear(self, grace: float) -> None:
        """Stop all containers and the group's task, and remove the containers; volumes and network stay."""
        await asyncio.gather(*(life.stop(grace) for life in self._lives.values()))
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for name in [name for name in self._lives if self.attempts.status(name).attempt]:
            await self._lives[name].settle()
            await self._services.runtime.remove(self.attempts.cid(name))
            unmount(self.attempts.root(name))

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

    def hasten(self, grace: int) -> None:
        """Shorten the grace of containers that are being stopped to `grace` seconds from now."""
        limit = asyncio.get_running_loop().time() + grace
        for life in self._lives.values():
            life.hasten(limit)

    # Streams and measurements.

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

    def _finished(self, task: asyncio.Task[None]) -> None:
        """Publish a failure that could not be written; the next start of the room tries again."""
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("group %s failed", self.record.id, exc_info=error)
            self.record.status.state = self.record.status.provisioning_state = "Failed"
            self.record.status.add_event("Failed", f"Error: {_reason(error)}", warning=True)
            self._services.changed(self.record)

    async def _run(self) -> None:
        if self.record.status.is_over:
            for life in self._lives.values():
                life.ended.set()
            return
        try:
            if self.record.flaw is not None:
                raise SandboxError(self.record.flaw)
            await self._live()
        except Exception as error:
            log.exception("group %s failed", self.record.id)
            await self._fail(_reason(error))

    async def _live(self) -> None:
        services, status = self._services, self.record.status
        await self._durably(lambda: services.meter.start(self.record))
        if not status.ip:
            status.ip = services.network.allocate()
        status.provisioning_state = "Creating"
        await self._isolate()
        await self._save()
        self._ephemeral.start()
        try:
            # Images are pulled while the sandbox is made. A failure of one task ends the others.
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._make_sandbox())
                succeeded = tasks.create_task(self._run_containers())
            await self._ephemeral.end(self.record.properties.termination_grace_period_seconds)
        finally:
            await self._ephemeral.cancel()
        await self._end("Succeeded" if succeeded.result() else "Failed")

    async def _make_sandbox(self) -> None:
        """Create the network namespace and the volumes, which every launch waits for."""
        services, status, uid = self._services, self.record.status, self.record.uid
        owner = services.users.network(uid, status.ids) if status.ids else None
        async with self._writing:
            await to_completion(
                services.network.create(uid, status.ip, virtual_network(self.record.properties), owner),
                asyncio.to_thread(self._volumes.make),
                asyncio.to_thread(shared_memory.make, self._folders.folder),
            )
        self._launcher.sandbox_ready.set()

    async def _run_containers(self) -> bool:
        """Run the init containers in turn, then all others at the same time; return whether all succeeded."""
        properties = self.record.properties
        for container in properties.init_containers:
            if not await self._lives[container.name].run_init():
                return False
        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(self._lives[item.name].run()) for item in properties.containers]
        return all(task.result() == 0 for task in running)

    async def _isolate(self) -> None:
        """Give the group a range of ids, unless its containers run already. Raises `SandboxError`."""
        services, status, uid = self._services, self.record.status, self.record.uid
        if services.network.is_there(uid):
            if not status.ids or services.users.is_there(uid):
                return  # it keeps its namespaces; a group of an earlier version has no user namespace
            await services.network.destroy(uid, status.ip)
        services.users.destroy(uid, status.ids)
        status.ids = services.users.allocate(status.ids)

    async def _end(self, state: str, provisioning_state: str = "Succeeded") -> None:
        self.record.status.state = state
        self.record.status.provisioning_state = provisioning_state
        ends = [self.attempts.status(item.name).current_state.finish_time for item in self.attempts.containers()]
        # A container can have ended while the room did not run.
        ended = max((end for end in ends if end is not None), default=None)
        await self._durably(lambda: self._services.meter.stop(self.record.uid, ended))
        await self._services.network.destroy(self.record.uid, self.record.status.ip)
        await self._save()

    async def _fail(self, reason: str) -> None:
        """End the group for a reason that is not one of its containers, and record the reason."""
        self.record.status.add_event("Failed", f"Error: {reason}", warning=True)
        for life in self._lives.values():
            await life.fail(reason)
        await self._end("Failed", "Failed")

    async def _save(self) -> None:
        """Write the status, then publish it: watchers see only what is durable."""
        status = self.record.status
        states = [self.attempts.status(item.name).current_state.state for item in self.record.properties.containers]
        if "Running" in states:
            status.provisioning_state = "Succeeded"
            if status.state == "Pending":
                status.state = "Running"
        await self._durably(lambda: self._services.store.put_status(self.record))
        self._services.changed(self.record)

    async def _durably(self, write: Callable[[], Awaitable[None]]) -> None:
        """Write, and repeat while the disk refuses, for example because it is full: containers continue to run."""
        backoff = Backoff(0.5, 30)
        while True:
            try:
                await write()
            except sqlite3.OperationalError as error:
                log.warning("group %s cannot be written: %s", self.record.id, error)
                await backoff.wait()
            else:
                return


def _reason(error: BaseException) -> str:
    """Return the published reason of a failure; of an unexpected error only its type, as its text may contain secrets."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, (SandboxError, OSError)):
        return str(error)
    return f"an internal error ({type(error).__name__}); the log of the room 'instances' has more"
